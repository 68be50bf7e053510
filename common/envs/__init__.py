"""Environments by name: `make_env("atari_breakout", seed=0)`."""

from collections.abc import Sequence
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

SUITES = ("atari", "minatar", "gym")
MODES = ("train", "eval")


def make_env(
    task: str | Any,
    *,
    seed: int = 0,
    mode: str = "train",
    time_limit: int = 0,
    action_repeat: int = 1,
    render_size: Sequence[int] = (64, 64),
    atari_grayscale: bool = True,
    atari_full_actions: bool = False,
    atari_backend: str = "ale",
    minatar_render: bool = False,
) -> Env:
    """The environment of a task, wrapped so that it keeps the contract of `base.Env`.

    task: suite and name: `atari_GAME`, `minatar_GAME` or `gym_ID`. Or an environment object: one of
      ours, one of Gymnasium or of the old gym.
    seed: seeds everything random in the environment. `mode` (`train` or `eval`) goes into it too,
      so that the two environments of a run do not play the same games.
    time_limit: agent steps after which an episode is cut; 0 for no limit.
    action_repeat: environment frames per agent step.
    render_size: height and width of image observations.

    Raises ValueError for an unknown task or setting, and where a package is missing.
    """
    if mode not in MODES:
        raise ValueError(f"mode: expected one of {', '.join(MODES)}, got {mode!r}")
    seed = int(np.random.SeedSequence((seed, MODES.index(mode))).generate_state(1)[0])
    size = tuple(render_size)
    if isinstance(task, Env):
        return wrap(task, time_limit, action_repeat)
    suite, _, name = task.partition("_") if isinstance(task, str) else ("gym", "", task)
    if suite not in SUITES or not name:
        accepted = ", ".join(f"{suite}_NAME" for suite in SUITES)
        raise ValueError(f"task {task!r}: expected one of {accepted}")
    # Each suite is imported only when it is asked for: its packages need not be installed.
    if suite == "atari":
        from common.envs.atari import Atari

        env = Atari(
            name,
            seed=seed,
            action_repeat=action_repeat,
            size=size,
            grayscale=atari_grayscale,
            full_actions=atari_full_actions,
            backend=atari_backend,
        )
        return wrap(env, time_limit)
    if suite == "minatar":
        from common.envs.minatar import MinAtar

        env = MinAtar(name, seed=seed, image=minatar_render, size=size)
    else:
        from common.envs.gym_adapter import GymAdapter

        env = GymAdapter(name, seed=seed, size=size)
    return wrap(env, time_limit, action_repeat)


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
