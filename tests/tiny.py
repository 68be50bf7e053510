"""A configuration, agent and batches of the smallest size, for tests."""

import gymnasium
import numpy as np
import tensorflow as tf

from common.data.spaces import OneHot
from dreamerv2.agent.agent import Agent
from dreamerv2.run.blocks import defaults

IMAGE = gymnasium.spaces.Box(0, 255, (64, 64, 1), np.uint8)
RGB = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
VECTOR = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
ACTION = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
_FLAG = gymnasium.spaces.Box(0, 1, (), bool)
_ROW = {
    "reward": gymnasium.spaces.Box(-np.inf, np.inf, (), np.float32),
    "is_first": _FLAG,
    "is_last": _FLAG,
    "is_terminal": _FLAG,
}
_SIZES = {
    "jit": False,
    "imag_horizon": 3,
    r"rssm\.(hidden|deter)": 8,
    r"rssm\.(stoch|discrete)": 3,
    r".*\.cnn_depth": 1,
    r".*\.mlp_layers": [6],
    r".*\.layers": 1,
    r".*\.units": 6,
}


def config(**overrides):
    """The defaults with tiny sizes, eager; dots in keys are written `__`."""
    changed = {key.replace("__", "."): value for key, value in overrides.items()}
    return defaults().update(_SIZES).update(changed)


def agent(obs: dict | None = None, act_space: gymnasium.Space | None = None, **overrides) -> Agent:
    """An agent for the observation `vector` and 4 actions, where nothing else is asked for."""
    obs = {"vector": VECTOR} if obs is None else obs
    return Agent(config(**overrides), {**obs, **_ROW}, act_space or OneHot(4))


def batch(agent: Agent, rows: int = 2, steps: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """Random rows `[rows, steps, ...]` that start with `is_first`, one of them terminal."""
    rng = np.random.default_rng(seed)
    data = {}
    for key, space in agent.obs_space.items():
        shape = (rows, steps, *space.shape)
        if space.dtype == np.uint8:
            data[key] = rng.integers(0, 256, shape, np.uint8)
        elif space.dtype == bool:
            data[key] = np.zeros(shape, bool)
        else:
            data[key] = rng.normal(size=shape).astype(np.float32)
    data["is_first"][:, 0] = True
    data["is_terminal"][-1, -1] = True
    size = agent.act_space.shape[0]
    if isinstance(agent.act_space, OneHot):
        data["action"] = np.eye(size, dtype=np.float32)[rng.integers(0, size, (rows, steps))]
    else:
        data["action"] = rng.uniform(-1, 1, (rows, steps, size)).astype(np.float32)
    data["action"][:, 0] = 0
    return data


def tensors(data: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
    """A batch as tensors."""
    return {key: tf.constant(value) for key, value in data.items()}
