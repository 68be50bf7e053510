"""The environments that a configuration names."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from common.config import Config
from common.envs import Settings, make_env, make_envs
from common.envs.base import Env
from dreamerv2.run import own


def configured_env(config: Config, mode: str, seed: int) -> Env:
    """The environment that the configuration names; `mode` is `train` or `eval`."""
    return make_env(named_env(config), seed=seed, mode=mode, **env_settings(config))


def configured_envs(config: Config, mode: str, seeds: Sequence[int]) -> list[Env]:
    """One per seed; where there are several, each works in a process of its own."""
    return prepared_envs(config, named_env(config), mode, seeds)


def prepared_envs(config: Config, env: Any, mode: str, seeds: Sequence[int]) -> list[Env]:
    """An environment, by the name of its task or as an object, as often as there are seeds."""
    return make_envs(env, seeds, mode=mode, **env_settings(config))


def named_env(config: Config) -> Any:
    """What `common.envs.make_env` takes first: the maker of the user's own, or a task's name."""
    return own.Maker(config.env) if config.env else config.task


def env_settings(config: Config) -> dict[str, Any]:
    """What `common.envs.make_env` takes besides that, seed and mode."""
    names = ["time_limit", *(field.name for field in dataclasses.fields(Settings))]
    return {name: config[name] for name in names}
