"""Action spaces as the agent sees them: a float32 vector, one-hot or continuous."""

from typing import TypeGuard

import gymnasium
import numpy as np


class OneHot(gymnasium.spaces.Box):
    """The one-hot vectors of length `size`; samples are uniform over the `size` actions."""

    def __init__(self, size: int, seed: int | None = None):
        self.size = int(size)
        super().__init__(0.0, 1.0, (self.size,), np.float32, seed)

    def sample(self, mask=None, probability=None) -> np.ndarray:
        action = np.zeros(self.size, np.float32)
        action[self.np_random.integers(self.size)] = 1.0
        return action

    def contains(self, x) -> bool:
        x = np.asarray(x)
        return x.shape == (self.size,) and np.count_nonzero(x) == 1 and x.max() == 1

    def __repr__(self) -> str:
        return f"OneHot({self.size})"

    def __eq__(self, other) -> bool:
        return isinstance(other, OneHot) and self.size == other.size


def is_discrete(space: gymnasium.Space) -> TypeGuard[OneHot]:
    """Whether actions of this space are one-hot vectors."""
    return isinstance(space, OneHot)


def space_to_json(space: gymnasium.spaces.Box) -> dict:
    """Kind, shape, dtype and bounds of a Box or one-hot space, as plain values."""
    return {
        "one_hot": is_discrete(space),
        "shape": list(space.shape),
        "dtype": str(space.dtype),
        "low": float(np.min(space.low)),
        "high": float(np.max(space.high)),
    }


def space_from_json(data: dict) -> gymnasium.spaces.Box:
    """The space that `space_to_json` described; all its elements share the widest bounds."""
    if data["one_hot"]:
        return OneHot(data["shape"][0])
    dtype = np.dtype(data["dtype"])
    low, high = (np.full(data["shape"], data[key]).astype(dtype) for key in ("low", "high"))
    return gymnasium.spaces.Box(low, high, tuple(data["shape"]), dtype)
