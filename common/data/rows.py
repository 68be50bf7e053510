"""What may enter replay: rows as declared, with numbers that learning can hold."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

# The square of a larger number, summed over a batch, is more than float32 holds: an environment
# that reports it is broken, and one such row would make every later update fail.
LARGEST = 1e15
FLOAT16_LARGEST = 65504.0


class BadRowError(ValueError):
    """A row that must not enter replay; the message names key and value."""


class RowCheck:
    """Checks every row of an environment against its spaces; BadRowError for the first that fails.

    obs_space: key to space; other keys may have any shape, but hold numbers, and all rows have the
    keys of the first.
    dtype_of: the dtype in which a value of a space's dtype arrives.
    float16: whether numbers that float16 cannot hold are worth a word, once per key, to `warn`.

    Costs about 3 µs per key with floats, less for others: the smallest part of a step.
    """

    def __init__(
        self,
        obs_space: Mapping[str, Any],
        dtype_of: Callable[[np.dtype], np.dtype],
        float16: bool = False,
        warn: Callable[[str], Any] = print,
    ):
        self._expected = {
            key: (dtype_of(np.dtype(space.dtype)), tuple(space.shape))
            for key, space in obs_space.items()
        }
        self._keys: frozenset[str] | None = None
        self._limit = FLOAT16_LARGEST if float16 else np.inf
        self._warn = warn
        self._warned: set[str] = set()

    def __call__(self, row: Mapping[str, np.ndarray]) -> None:
        for key, (dtype, shape) in self._expected.items():
            value = row.get(key)
            if value is None or value.dtype != dtype or value.shape != shape:
                found = "nothing" if value is None else f"{value.dtype} {list(value.shape)}"
                raise BadRowError(f"{key} is {found}, expected {dtype} {list(shape)}")
        self._keys = self._keys or frozenset(row)
        if row.keys() != self._keys:
            raise BadRowError(f"keys {sorted(row.keys() ^ self._keys)} are not in every row")
        for key, value in row.items():
            if value.dtype.kind == "f":
                peak = np.abs(value).max(initial=0)
                if not peak <= self._limit:
                    self._say(key, peak)
                if not peak <= LARGEST:  # a NaN is not either
                    raise BadRowError(f"{key} is {_first_bad(value)}")
            elif value.dtype.kind not in "biu":
                raise BadRowError(f"{key} is {value.dtype}, expected numbers")

    def _say(self, key: str, peak: float) -> None:
        if key not in self._warned and np.isfinite(peak):
            self._warn(
                f"WARNING: {key} holds {peak:g}; float16 ends at {FLOAT16_LARGEST:g}, and updates "
                "beyond are skipped; scale it in the environment, or use --precision bfloat16"
            )
            self._warned.add(key)


def problem(arrays: Mapping[str, np.ndarray]) -> str | None:
    """What is wrong with the numbers of an episode, `KEY is VALUE in row N`, or None."""
    for key, value in arrays.items():
        if value.dtype.kind == "f" and value.size and not np.abs(value).max() <= LARGEST:
            row = int(np.argmin((np.abs(value) <= LARGEST).reshape(len(value), -1).all(1)))
            return f"{key} is {_first_bad(value[row])} in row {row}"
    return None


def _first_bad(value: np.ndarray) -> str:
    bad = value[~(np.abs(value) <= LARGEST)].reshape(-1)[0]
    return f"{bad:g}"
