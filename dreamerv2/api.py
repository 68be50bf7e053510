"""DreamerV2 from Python."""

from typing import Any

from common.config import Config
from common.envs.base import Env
from dreamerv2.restore import load

__all__ = ["load", "train"]


def train(env: Any, config: Config, eval_env: Any = None) -> None:
    """Train an agent on an environment object, in `config.logdir`, until `config.steps`.

    env: a `common.envs.base.Env`, or a Gymnasium environment.
    config: from `dreamerv2.configs.make_config(blocks, overrides)`; needs a `logdir`. `time_limit`
      and `action_repeat` are applied to the environment, `task` is not read.
    eval_env: another such environment for evaluations; without it there are none.

    Resumes what is in the logdir, and returns after saving when interrupted by SIGINT or SIGTERM.
    Raises ValueError for settings that do not fit.
    """
    from dreamerv2.train import make_runner

    if not config.logdir:
        raise ValueError("logdir is empty; name a directory in the configuration")
    envs = {"train": env, "eval": eval_env}
    make_runner(config, lambda mode, seed: _wrapped(envs[mode], config, seed)).run()


def _wrapped(env: Any, config: Config, seed: int) -> Env | None:
    from common.envs import wrap
    from common.envs.gym_adapter import GymAdapter

    if env is None:
        return None
    if not isinstance(env, Env):
        env = GymAdapter(env, seed=seed, size=tuple(config.render_size))
    return wrap(env, config.time_limit, config.action_repeat)
