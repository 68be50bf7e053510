"""DreamerV2 from Python, on environments of your own: train, load, evaluate, render.

An environment is a `common.envs.base.Env`, one of Gymnasium or of the old gym; what is said of
environments in docs/own_environment.md holds for all four functions.
"""

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.config import Config
from common.envs import make_env
from common.envs.base import Env
from common.envs.wrappers import Wrapper
from dreamerv2.film import PANELS
from dreamerv2.play.evaluation import Result
from dreamerv2.run import finish, own, restore
from dreamerv2.run.blocks import make_config
from dreamerv2.run.restore import load

if TYPE_CHECKING:
    from dreamerv2.agent.agent import Agent

__all__ = ["Result", "evaluate", "load", "make_config", "render", "train"]


def train(env: Any, config: Config, eval_env: Any = None) -> bool:
    """Train an agent on an environment object, in `config.logdir`, until `config.steps`.

    env: the environment. config: from `make_config(blocks, overrides)`; the block `custom` is made
      for this. It needs a `logdir`; `time_limit` and `action_repeat` are applied to the
      environment. What was trained on is recorded: `task` becomes `own_NAME` and `env` the class.
      With `envs` above 1, copies of the environment play, each in a process of its own: it is
      pickled, and the copies differ by the seed of their `reset`, where that takes one.
    eval_env: another such environment for evaluations; without it there are none. Neither of the
      two is closed.

    Resumes what is in the logdir, and returns after saving when interrupted by SIGINT or SIGTERM.

    Returns:
        Whether `config.steps` are done; False where a signal ended it before.

    Raises:
        ValueError: settings or environments do not fit.
    """
    if not config.logdir:
        raise ValueError("logdir is empty; name a directory in the configuration")
    if eval_env is not None and _inner(eval_env) is _inner(env):
        raise ValueError(
            "eval_env is the same environment as env: an evaluation would play on in the middle of "
            "an episode of training; make another one"
        )
    config = own.of_object(config, env)
    summary = finish.finished(config)
    if summary:
        print(summary)
        return True
    from dreamerv2.page.html import write_at_end
    from dreamerv2.run.environments import prepared_envs
    from dreamerv2.run.factory import make_runner

    objects = {"train": env, "eval": eval_env}

    def prepared(mode: str, seeds: Sequence[int]) -> list[Env]:
        given = objects[mode]
        if given is None:
            return []
        made = prepared_envs(config, given, mode, seeds)
        return [_Lent(each) for each in made] if len(made) == 1 else made  # copies are ours

    runner = make_runner(config, prepared)
    done = runner.run() == 0
    if done and runner.leads:
        write_at_end(Path(config.logdir).expanduser())
    return done


def evaluate(
    agent: "Agent",
    env: Any,
    episodes: int = 10,
    *,
    mode: str = "eval",
    seed: int = 0,
    max_steps: int | None = None,
    show: Callable[[str], Any] = print,
) -> Result:
    """Play episodes with an agent; `Result.summary()` has their statistics.

    agent: from `load`. mode: `eval` for the most likely actions, `train` for sampled ones.
    seed: same seed, same episodes, if the environment keeps to the seed of its `reset`.
    max_steps: agent steps after which an episode is an error; None: the agent's `time_limit`, or
      27,000. show: gets a line per episode.

    Raises ValueError where the environment is not one that the agent was made for.
    """
    from dreamerv2.play.episodes import AgentPolicy
    from dreamerv2.play.evaluation import evaluate as play

    saved = restore.of_agent(agent, _repeatedly(agent, env))
    player = AgentPolicy(agent, mode)
    limit = max_steps or saved.max_steps
    return play(saved.env, lambda seed, _: player.episode(seed), episodes, seed, limit, show)


def render(
    agent: "Agent",
    env: Any,
    out: str | Path,
    episodes: int = 1,
    *,
    mode: str = "eval",
    seed: int = 0,
    panels: Sequence[str] = PANELS,
    scale: int = 2,
    fps: int = 15,
    max_steps: int | None = None,
) -> Path:
    """Film an agent at play, as the command `render` does; returns the path of the film.

    out: ends in `.gif` or `.mp4`. panels: some of `screen`, `input`, `recon`, `openloop`, `dream`,
      `latent`, `policy`; `screen` needs an environment made with `render_mode="rgb_array"`.
    scale: pixels per pixel. fps: pictures per second. The rest as for `evaluate`.

    Raises ValueError where the environment does not fit, or cannot show its screen.
    """
    from dreamerv2.film import film

    saved = restore.of_agent(agent, _repeatedly(agent, env))
    unknown = [panel for panel in panels if panel not in PANELS]
    if unknown:
        raise ValueError(f"panels: got {unknown[0]!r}, expected some of {', '.join(PANELS)}")
    args = Namespace(
        **{"mode": mode, "seed": seed, "panels": tuple(panels), "scale": scale, "fps": fps},
        **{"episodes": episodes, "best_of": None, "frames": range(sys.maxsize)},
        max_steps=max_steps,
    )
    path = film.out_path(Path(out).expanduser(), args, saved)
    film.shoot(args, saved, agent, film.screen_size(saved, args), path)
    return path


def _inner(env: Any) -> Any:
    """What an environment is without its wrappers."""
    return getattr(env, "unwrapped", env)


def _repeatedly(agent: "Agent", env: Any) -> Callable[[int], Env]:
    """The environment prepared for each of several episodes by its seed; it is never closed."""
    config = agent.config
    settings = {key: config[key] for key in ("time_limit", "action_repeat", "render_size")}
    return lambda seed: _Lent(make_env(env, seed=seed, mode="eval", **settings))


class _Lent(Wrapper):
    """An environment that belongs to the caller, who closes it."""

    def close(self) -> None:
        pass
