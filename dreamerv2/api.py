"""DreamerV2 from Python."""

from typing import Any

from common.config import Config
from common.envs.base import Env
from dreamerv2.run.restore import load

__all__ = ["load", "train"]


def train(env: Any, config: Config, eval_env: Any = None) -> None:
    """Train an agent on an environment object, in `config.logdir`, until `config.steps`.

    env: a `common.envs.base.Env`, or a Gymnasium environment.
    config: from `dreamerv2.run.blocks.make_config(blocks, overrides)`; needs a `logdir`.
      `time_limit` and `action_repeat` are applied to the environment, `task` is not read.
    eval_env: another such environment for evaluations; without it there are none.

    Resumes what is in the logdir, and returns after saving when interrupted by SIGINT or SIGTERM.
    Raises ValueError for settings that do not fit.
    """
    from dreamerv2.run.factory import make_runner

    if not config.logdir:
        raise ValueError("logdir is empty; name a directory in the configuration")
    envs = {"train": env, "eval": eval_env}
    make_runner(config, lambda mode, seed: _prepared(envs[mode], config, mode, seed)).run()


def _prepared(env: Any, config: Config, mode: str, seed: int) -> Env | None:
    from common.envs import make_env

    if env is None:
        return None
    settings = {key: config[key] for key in ("time_limit", "action_repeat", "render_size")}
    return make_env(env, seed=seed, mode=mode, **settings)
