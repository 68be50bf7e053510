"""The author's TensorFlow 2 implementation, version 2.2.0, as seen from here: keys and names."""

import re
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf

from common.config import Config, ConfigError
from common.data.spaces import OneHot
from dreamerv2.agent.agent import Agent
from dreamerv2.run.blocks import defaults

# Features that are not here, off in the reference as long as these keys have these values.
OFF = {
    "envs": 1,
    "envs_parallel": "none",
    "dmc_camera": -1,
    "expl_behavior": "greedy",
    "expl_until": 0,
    "expl_intr_scale": 1.0,
    "expl_extr_scale": 0.0,
    "expl_model_loss": "kl",
    "disag_target": "stoch",
    "disag_log": False,
    "disag_models": 10,
    "disag_offset": 1,
    "disag_action_cond": True,
}
# Read by nothing while those features are off; key patterns of the reference's blocks change them.
UNUSED = re.compile(r"(expl_opt|expl_head|expl_reward_norm)\..*|slow_baseline")


def config_from_reference(flat: Mapping[str, Any]) -> Config:
    """Our configuration for one of the reference, given under dotted keys.

    Raises:
        ConfigError: a key that we do not know, or a feature that we do not have, is asked for.
    """
    config = defaults()
    ours = {}
    for key, value in flat.items():
        if key in OFF:
            if value != OFF[key]:
                raise ConfigError(
                    f"{key}: got {value!r}, but this feature does not exist here; only its default "
                    f"{OFF[key]!r} is accepted"
                )
        elif not UNUSED.fullmatch(key):
            ours[key] = value
    return config.update(ours)


def spaces_from_json(
    spaces: Mapping,
) -> tuple[dict[str, gymnasium.spaces.Box], gymnasium.spaces.Box]:
    """Observation and action spaces from `{"obs": {key: [shape, dtype]}, "act": {...}}`."""
    obs_space: dict[str, gymnasium.spaces.Box] = {}
    for key, (shape, dtype) in spaces["obs"].items():
        low, high = (
            (0, 255) if dtype == "uint8" else (0, 1) if dtype == "bool" else (-np.inf, np.inf)
        )
        obs_space[key] = gymnasium.spaces.Box(low, high, tuple(shape), np.dtype(dtype))
    shape = tuple(spaces["act"]["shape"])
    if spaces["act"]["discrete"]:
        return obs_space, OneHot(shape[0])
    return obs_space, gymnasium.spaces.Box(-1.0, 1.0, shape, np.float32)


def reference_variables(agent: Agent) -> dict[str, tf.Variable]:
    """The variables that the reference saves, in its order, under our names for them.

    Its module tree lists attributes by name: the slow critic first, then actor, critic, reward
    normaliser, and the world model's encoder, heads and RSSM. The agent step, which comes before
    all of them, is not a variable of our agent.
    """
    behavior, wm = agent.behavior.named_variables(), agent.wm.named_variables()
    found = {}
    if agent.config.slow_target:
        found["slow_critic/updates"] = behavior["slow_updates"]
        order = ["slow_critic/", "actor/", "critic/", "reward_norm/"]
    else:  # the slow critic is the critic itself, and so comes first
        order = ["critic/", "actor/", "reward_norm/"]
    for prefix in order:
        found |= {k: v for k, v in behavior.items() if k.startswith(prefix)}
    for prefix in ("encoder/", "decoder/", "discount/", "reward/", "rssm/"):
        found |= {k: v for k, v in wm.items() if k.startswith(prefix)}
    return found
