"""Spaces as the agent sees them: actions one-hot or continuous, whole numbers as one-hots."""

import re
from collections.abc import Mapping, Sequence
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


class OneHots(gymnasium.spaces.Box):
    """Whole numbers as one-hot vectors side by side: one per number, of the length of its range.

    sizes: how many values each number can have. starts: the least value of each; None: 0.
    """

    def __init__(self, sizes: Sequence[int], starts: Sequence[int] | None = None):
        self.sizes = [int(size) for size in sizes]
        starts = [0] * len(self.sizes) if starts is None else starts
        self.starts = [int(start) for start in starts]
        super().__init__(0.0, 1.0, (sum(self.sizes),), np.float32)

    def encode(self, numbers: np.ndarray) -> np.ndarray:
        """The vector, float32 `[sum(sizes)]`, of the numbers; ValueError for one out of range."""
        indices = np.ravel(numbers).astype(np.int64) - self.starts
        if (indices < 0).any() or (indices >= self.sizes).any():
            raise ValueError(
                f"{np.ravel(numbers).tolist()} is out of range: each number has {self.sizes} "
                f"values from {self.starts} on"
            )
        vector = np.zeros(self.shape, np.float32)
        vector[np.cumsum([0, *self.sizes[:-1]]) + indices] = 1.0
        return vector

    def __repr__(self) -> str:
        return f"OneHots({self.sizes})"

    def __eq__(self, other) -> bool:
        return isinstance(other, OneHots) and (self.sizes, self.starts) == (
            other.sizes,
            other.starts,
        )


def is_discrete(space: gymnasium.Space) -> TypeGuard[OneHot]:
    """Whether actions of this space are one-hot vectors."""
    return isinstance(space, OneHot)


def space_to_json(space: gymnasium.spaces.Box) -> dict:
    """Kind, shape, dtype and bounds of a Box or one-hot space, as plain values."""
    numbers = {}
    if isinstance(space, OneHots):
        numbers = {"sizes": space.sizes, "starts": space.starts}
    return {
        **numbers,
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
    if "sizes" in data:
        return OneHots(data["sizes"], data["starts"])
    dtype = np.dtype(data["dtype"])
    low, high = (np.full(data["shape"], data[key]).astype(dtype) for key in ("low", "high"))
    return gymnasium.spaces.Box(low, high, tuple(data["shape"]), dtype)


def matching_keys(
    obs_space: Mapping[str, gymnasium.spaces.Box], pattern: str, rank: int
) -> dict[str, tuple[int, ...]]:
    """Keys of rank `rank` that match `pattern`, with their shapes, in the order of the space.

    Those that begin with `log_` are for the log: they are stored, and no batch has them.
    """
    return {
        key: tuple(space.shape)
        for key, space in obs_space.items()
        if re.match(pattern, key) and len(space.shape) == rank and not key.startswith("log_")
    }
