"""Environments by name: `make_env("atari_breakout", seed=0)`."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from common.data.spaces import is_discrete
from common.envs.base import Env
from common.envs.wrappers import (
    ActionRepeat,
    CheckSpaces,
    NormalizeAction,
    OneHotAction,
    TimeLimit,
)

MODES = ("train", "eval")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What may be said of an environment besides its name, its seed and its time limit.

    action_repeat: environment frames per agent step.
    render_size: height and width of image observations.
    The others are those of one suite; the block `defaults` says what they mean.
    """

    action_repeat: int = 1
    render_size: Sequence[int] = (64, 64)
    atari_grayscale: bool = True
    atari_full_actions: bool = False
    atari_life_terminal: bool = False
    atari_backend: str = "ale"
    dmc_camera: int = -1
    dmc_render: bool = True
    minatar_render: bool = False

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.render_size
        return height, width


def make_env(
    task: str | Any,
    *,
    seed: int = 0,
    mode: str = "train",
    time_limit: int = 0,
    **settings: Any,
) -> Env:
    """The environment of a task, wrapped so that it keeps the contract of `base.Env`.

    task: suite and name: `atari_GAME`, `crafter_reward`, `dmc_DOMAIN_TASK`, `gym_ID` or
      `minatar_GAME`. Or an environment object: one of ours, one of Gymnasium or of the old gym.
      Or a function without arguments that makes one.
    seed: seeds everything random in the environment. `mode` (`train` or `eval`) goes into it too,
      so that the two environments of a run do not play the same games.
    time_limit: agent steps after which an episode is cut; 0 for no limit.
    settings: fields of `Settings`.

    Raises ValueError for an unknown task or setting, and where a package is missing.
    """
    make = _maker(task, mode, time_limit, settings)
    if is_remote(task):
        # What draws for MuJoCo and TensorFlow cannot live in one process.
        from common.envs.remote import Remote

        return Remote(make, seed)
    return make(seed)


def make_envs(
    task: str | Any,
    seeds: Sequence[int],
    *,
    mode: str = "train",
    time_limit: int = 0,
    **settings: Any,
) -> list[Env]:
    """`make_env` once per seed; where there are several, each works in a process of its own.

    Raises ValueError for an environment object that cannot be pickled as well, and for any that
    fails at its first step.
    """
    if len(seeds) == 1:
        return [make_env(task, seed=seeds[0], mode=mode, time_limit=time_limit, **settings)]
    make = _maker(task, mode, time_limit, settings)
    from common.envs.remote import Remote

    first = Remote(make, seeds[0])
    return [first, *(Remote(make, seed, first.spaces) for seed in seeds[1:])]


def _maker(task: Any, mode: str, time_limit: int, settings: dict) -> Callable[[int], Env]:
    """Seed to environment, for this process or another; ValueError for what can be seen at once."""
    if mode not in MODES:
        raise ValueError(f"mode: expected one of {', '.join(MODES)}, got {mode!r}")
    if isinstance(task, str):
        suite, _, name = task.partition("_")
        if suite not in SUITES or not name:
            accepted = ", ".join(f"{suite}_NAME" for suite in SUITES)
            raise ValueError(f"task {task!r}: expected one of {accepted}")
    if is_remote(task):
        from common.envs.dmc import choose_drawing

        choose_drawing()
    return functools.partial(_make, task, mode, time_limit, Settings(**settings))


def is_remote(task: Any) -> bool:
    """Whether an environment of the task always works in a process of its own."""
    return isinstance(task, str) and task.startswith("dmc_")


def _make(task: Any, mode: str, time_limit: int, settings: Settings, seed: int) -> Env:
    """The environment in this process."""
    seed = int(np.random.SeedSequence((seed, MODES.index(mode))).generate_state(1)[0])
    if callable(task) and not hasattr(task, "reset"):
        task = task()
    if isinstance(task, Env):
        return wrap(task, time_limit, settings.action_repeat)
    suite, _, name = task.partition("_") if isinstance(task, str) else ("gym", "", task)
    return wrap(SUITES[suite](name, seed, settings), time_limit)


def wrap(env: Env, time_limit: int = 0, action_repeat: int = 1) -> Env:
    """Puts an environment (`Discrete`, `OneHot` or `Box` actions) into the common wrappers."""
    if action_repeat != 1:
        env = ActionRepeat(env, action_repeat)
    if isinstance(env.act_space, spaces.Discrete):
        env = OneHotAction(env)
    elif not is_discrete(env.act_space):
        env = NormalizeAction(env)
    if time_limit:
        env = TimeLimit(env, time_limit)
    return CheckSpaces(env)


# Each suite is imported only when it is asked for: its packages need not be installed.


def _atari(name: str, seed: int, settings: Settings) -> Env:
    from common.envs.atari import Atari

    return Atari(
        name,
        seed=seed,
        action_repeat=settings.action_repeat,
        size=settings.size,
        grayscale=settings.atari_grayscale,
        full_actions=settings.atari_full_actions,
        life_terminal=settings.atari_life_terminal,
        backend=settings.atari_backend,
    )


def _crafter(name: str, seed: int, settings: Settings) -> Env:
    from common.envs.crafter import Crafter

    return _repeat(Crafter(name, seed=seed, size=settings.size), settings)


def _dmc(name: str, seed: int, settings: Settings) -> Env:
    from common.envs.dmc import DMC

    return DMC(
        name,
        seed=seed,
        action_repeat=settings.action_repeat,
        size=settings.size,
        image=settings.dmc_render,
        camera=settings.dmc_camera,
    )


def _gym(name: str | Any, seed: int, settings: Settings) -> Env:
    from common.envs.gym_adapter import GymAdapter

    return _repeat(GymAdapter(name, seed=seed, size=settings.size), settings)


def _minatar(name: str, seed: int, settings: Settings) -> Env:
    from common.envs.minatar import MinAtar

    env = MinAtar(name, seed=seed, image=settings.minatar_render, size=settings.size)
    return _repeat(env, settings)


def _repeat(env: Env, settings: Settings) -> Env:
    """For suites that do not repeat actions themselves."""
    return env if settings.action_repeat == 1 else ActionRepeat(env, settings.action_repeat)


SUITES: dict[str, Callable[[Any, int, Settings], Env]] = {
    "atari": _atari,
    "crafter": _crafter,
    "dmc": _dmc,
    "gym": _gym,
    "minatar": _minatar,
}
