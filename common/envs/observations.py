"""From what an environment observes to what the networks read: images and flat vectors by key.

Spaces are told apart by their names, so that those of the old gym do too.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from common.data.spaces import OneHots
from common.envs.base import Obs
from common.envs.resize import resize_by_area

RESERVED = (
    *("reward", "is_first", "is_last", "is_terminal", "action"),
    # What the agent adds to a batch, and losses and parts of its own under these names.
    *("discount", "kl", "model", "actor", "critic"),
    *("file", "allow_pickle", "reason"),  # which NumPy's files and ours do not take
)
ACCEPTED = "Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of them"


class Observations:
    """Converts the observations of a space.

    space: a Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of them, nested as well.
    size: height and width to which images are resized, by area.

    A uint8 Box of rank 3 [height, width, channels] or rank 2 is an image, uint8 [*size, channels].
    Any other Box becomes a flat vector, float32, or uint8 where it was that; whole numbers of
    Discrete and MultiDiscrete become one-hot vectors side by side, float32; MultiBinary float32.

    A lone space gets the key `image` or `vector`; those of a Dict keep their keys, those of a Tuple
    get `part0`, `part1`, ...; inner keys follow outer ones and `_`.

    Raises ValueError for a space of another kind, and for a name that is taken.
    """

    def __init__(self, space: Any, size: tuple[int, int]):
        self._space = space
        self._lone = _parts(space) is None
        leaves = list(_leaves(space))
        names = [key for key, _ in leaves]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"observation key {twice!r}: two have this name; rename one")
        self._readers = {key: _reader(key, leaf, size) for key, leaf in leaves}
        self.spaces: dict[str, spaces.Box] = {k: r.space for k, r in self._readers.items()}
        self._images = [key for key, reader in self._readers.items() if reader.is_image]

    def __call__(self, obs: Any) -> tuple[Obs, np.ndarray | None]:
        """The observation by key, and its last image as it was; ValueError if it is another one."""
        values = dict(_values(self._space, obs))
        converted = {key: read(values[key]) for key, read in self._readers.items()}
        return converted, np.asarray(values[self._images[-1]]) if self._images else None


def as_row(obs_space: Mapping[str, Space], result: Any, first: bool) -> Obs:
    """What Gymnasium's `reset` or `step` returned as a row with the keys of `obs_space`.

    result: a row already (then it is returned), an observation, or the whole tuple. first: what
    `is_first` is for an observation alone.

    Raises ValueError where the observation does not have the shape that the space asks for.
    """
    if isinstance(result, tuple) and len(result) in (2, 4, 5) and isinstance(result[-1], dict):
        first, result = len(result) == 2, result[0]
    if isinstance(result, Mapping) and "is_first" in result:
        return dict(result)
    keys = [key for key in obs_space if key not in RESERVED]
    if isinstance(result, Mapping | tuple):
        values = dict(_flat(result))
    elif len(keys) == 1:
        values = {keys[0]: result}
    else:
        raise ValueError(f"observation: expected the keys {keys}, got {type(result).__name__}")
    missing = [key for key in keys if key not in values]
    if missing:
        raise ValueError(f"observation: expected the keys {keys}, got {list(values)}")
    return {**{key: _fit(key, obs_space[key], values[key]) for key in keys}, "is_first": first}


def _fit(key: str, space: Space, value: Any) -> np.ndarray:
    """A value as one of `space`, which is one that `Observations` made."""
    value = np.asarray(value)
    shape = tuple(space.shape or ())
    if isinstance(space, OneHots) and value.shape != shape:
        return space.encode(value)
    if len(shape) == 3 and value.ndim in (2, 3) and value.shape[:2] != shape[:2]:
        value = resize_by_area(value, (shape[0], shape[1]))
    if value.size != np.prod(shape, dtype=int):
        raise ValueError(
            f"observation key {key!r}: expected {space.dtype} {list(shape)}, "
            f"got {value.dtype} {list(value.shape)}"
        )
    return value.reshape(shape).astype(space.dtype)


# Structure


def _parts(space: Any) -> dict[str, Any] | None:
    """The spaces inside a Dict or Tuple by key; None for any other space."""
    if is_a(space, "Dict"):
        return dict(space.spaces)
    if is_a(space, "Tuple"):
        return {f"part{i}": inner for i, inner in enumerate(space.spaces)}
    return None


def _leaves(space: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(key, space) of every space that holds no other."""
    parts = _parts(space)
    if parts is None:
        if not prefix:
            image = is_a(space, "Box") and space.dtype == np.uint8 and len(space.shape) > 1
            prefix = "image" if image else "vector"
        yield prefix, space
        return
    if not parts:
        raise ValueError(f"observation space: expected {ACCEPTED}, got {space}")
    for key, inner in parts.items():
        name = f"{prefix}_{key}" if prefix else key
        if name in RESERVED:
            raise ValueError(f"observation key {name!r}: this name is taken; rename it")
        yield from _leaves(inner, name)


def _values(space: Any, obs: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(key, value) of an observation, in the order of `_leaves`."""
    parts = _parts(space)
    if parts is None:
        (key, _), *_ = _leaves(space, prefix)
        yield key, obs
        return
    if isinstance(obs, tuple | list) and is_a(space, "Tuple"):
        obs = {f"part{i}": value for i, value in enumerate(obs)}
    if not isinstance(obs, Mapping) or set(obs) != set(parts):
        got = list(obs) if isinstance(obs, Mapping) else type(obs).__name__
        raise ValueError(f"observation: expected the keys {list(parts)}, got {got}")
    for key, inner in parts.items():
        yield from _values(inner, obs[key], f"{prefix}_{key}" if prefix else key)


def _flat(obs: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """As `_values`, for an observation whose space is not known."""
    if isinstance(obs, tuple):
        obs = {f"part{i}": value for i, value in enumerate(obs)}
    if not isinstance(obs, Mapping):
        yield prefix, obs
        return
    for key, value in obs.items():
        yield from _flat(value, f"{prefix}_{key}" if prefix else key)


# Single keys


class _Box:
    """Checks and converts the values of a Box."""

    def __init__(self, key: str, declared: Any, size: tuple[int, int]):
        self.key = key
        self.shape, self.dtype = tuple(declared.shape), np.dtype(declared.dtype)
        length = int(np.prod(self.shape))
        self.is_image = self.dtype == np.uint8 and len(self.shape) in (2, 3)
        if self.is_image:
            height, width, channels = (*self.shape, 1)[:3]
            if height <= 4 < min(width, channels):
                raise ValueError(
                    f"observation key {key!r}: expected an image [height, width, channels], "
                    f"got {list(self.shape)}"
                )
            self.size = None if (height, width) == tuple(size) else size
            self.space: spaces.Box = spaces.Box(0, 255, (*size, channels), np.uint8)
        elif self.dtype == np.uint8:
            self.space = spaces.Box(0, 255, (length,), np.uint8)
        else:
            self.space = spaces.Box(-np.inf, np.inf, (length,), np.float32)

    def __call__(self, value: Any) -> np.ndarray:
        value = np.asarray(value)
        if value.shape != self.shape or not _same_kind(value.dtype, self.dtype):
            raise ValueError(
                f"observation key {self.key!r}: expected {self.dtype} {list(self.shape)}, "
                f"got {value.dtype} {list(value.shape)}"
            )
        if self.is_image and self.size:
            return resize_by_area(value, self.size)
        # A copy: the environment may go on writing into its array.
        return value.reshape(self.space.shape).astype(self.space.dtype)


class _WholeNumbers:
    """Checks and converts the values of Discrete, MultiDiscrete and MultiBinary."""

    is_image = False

    def __init__(self, key: str, space: spaces.Box, shape: tuple[int, ...]):
        self.key, self.space, self.shape = key, space, shape

    def __call__(self, value: Any) -> np.ndarray:
        value = np.asarray(value)
        if value.shape != self.shape or value.dtype.kind not in "biu":
            raise ValueError(
                f"observation key {self.key!r}: expected whole numbers {list(self.shape)}, "
                f"got {value.dtype} {list(value.shape)}"
            )
        if not isinstance(self.space, OneHots):
            return value.reshape(-1).astype(np.float32)
        try:
            return self.space.encode(value)
        except ValueError as error:
            raise ValueError(f"observation key {self.key!r}: {error}") from None


def _reader(key: str, space: Any, size: tuple[int, int]) -> _Box | _WholeNumbers:
    if is_a(space, "Box"):
        return _Box(key, space, size)
    if is_a(space, "Discrete"):
        return _WholeNumbers(key, OneHots([space.n], [getattr(space, "start", 0)]), ())
    if is_a(space, "MultiDiscrete"):
        sizes = np.asarray(space.nvec)
        starts = np.broadcast_to(getattr(space, "start", 0), sizes.shape)
        return _WholeNumbers(
            key, OneHots(sizes.ravel().tolist(), starts.ravel().tolist()), sizes.shape
        )
    if is_a(space, "MultiBinary"):
        shape = tuple(space.shape)
        bits = spaces.Box(0, 1, (int(np.prod(shape)),), np.float32)
        return _WholeNumbers(key, bits, shape)
    raise ValueError(f"observation key {key!r}: expected {ACCEPTED}, got {space}")


def _same_kind(one: np.dtype, other: np.dtype) -> bool:
    """Whether both are floats or both integers of any width, or they are equal."""
    if np.uint8 in (one, other):
        return one == other
    return one.kind == other.kind


def is_a(space: Any, name: str) -> bool:
    """Whether a class of this name is among the bases: both gyms have their own `Box`."""
    return any(base.__name__ == name for base in type(space).__mro__)
