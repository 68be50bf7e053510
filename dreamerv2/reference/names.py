"""The author's TensorFlow 2 implementation, version 2.2.0, as seen from here: keys and names."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf

from common.config import Config, ConfigError
from common.data.spaces import OneHot
from dreamerv2.agent.agent import Agent
from dreamerv2.agent.behavior import Behavior
from dreamerv2.agent.exploration import Explorer, Plan2Explore
from dreamerv2.run.blocks import defaults

# Features that are not here, off in the reference as long as these keys have these values.
OFF = {
    "envs_parallel": "none",
}
UNUSED = ("slow_baseline",)  # read by nothing in the reference either


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
        elif key not in UNUSED:
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
    """The variables that the reference saves, in its order, under its names for them.

    Its module tree lists attributes by name: what explores, then slow critic, actor, critic and
    reward norm of the task, and the world model's encoder, heads and RSSM. The agent step, which
    comes before all of them, is not a variable of our agent.
    """
    wm = agent.wm.named_variables()
    order = ["slow_critic", "actor", "critic", "reward_norm"]
    if not agent.config.slow_target:  # the slow critic is the critic itself, and so comes first
        order = ["critic", "actor", "reward_norm"]
    found = _of_explorer(agent) | _of_behavior(agent.behavior, order)
    for part in ("encoder", "decoder", "discount", "reward", "rssm"):
        found |= _below(wm, part)
    return found


def _of_explorer(agent: Agent) -> dict[str, tf.Variable]:
    """The ensemble of Plan2Explore comes before actor and critic, the head of ModelLoss after."""
    if not isinstance(agent.expl, Explorer):
        return {}
    expl = agent.expl.named_variables()
    slow = ["slow_critic"] if agent.config.slow_target else []
    behavior = _of_behavior(agent.expl.behavior, [*slow, "critic", "reward_norm", "actor"])
    heads = agent.expl.head_variables
    if isinstance(agent.expl, Plan2Explore):
        norms = _below(expl, "extr_norm") | _below(expl, "intr_norm")
        found = heads | behavior | norms
    else:
        found = behavior | heads
    return {f"expl/{name}": variable for name, variable in found.items()}


def _of_behavior(behavior: Behavior, order: Sequence[str]) -> dict[str, tf.Variable]:
    """The parts of a behaviour in this order; the slow critic's counter comes before it."""
    variables, found = behavior.named_variables(), {}
    for part in order:
        if part == "slow_critic":
            found["slow_critic/updates"] = variables["slow_updates"]
        found |= _below(variables, part)
    return found


def _below(variables: Mapping[str, tf.Variable], part: str) -> dict[str, tf.Variable]:
    return {name: v for name, v in variables.items() if name.startswith(f"{part}/")}
