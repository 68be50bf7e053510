"""Stored episodes of a run, as places where a dream may start."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.checkpoint import DAMAGE

LISTED = 40  # the newest episodes of each kind
THUMBNAILS = 24  # per episode


class Stored(NamedTuple):
    """An episode on disk."""

    name: str  # folder and file, such as eval_episodes/20261125T201224-ab12-84
    rows: int
    path: Path


class Episodes:
    """The stored episodes of `logdir`, of which a running training may remove some at any time."""

    def __init__(self, logdir: Path, shapes: Mapping[str, tuple[int, ...]]):
        """shapes: the keys that are read, and the shape of a row of each."""
        self._logdir, self._shapes = logdir, dict(shapes)

    def listed(self) -> list[Stored]:
        """The newest episodes, newest first, those of evaluations before those of training."""
        found = []
        for folder in ("eval_episodes", "train_episodes"):
            paths = sorted((self._logdir / folder).glob("*-*-*.npz"), reverse=True)
            for path in paths[:LISTED]:
                length = path.stem.rpartition("-")[2]
                if length.isdigit():
                    found.append(Stored(f"{folder}/{path.stem}", int(length) + 1, path))
        return found

    def read(self, name: str) -> dict[str, np.ndarray]:
        """Observations, `action` and `is_first` of a listed episode, each `[rows, ...]`.

        Raises ValueError when it is not there (any more), is damaged, or is of another task.
        """
        path = next((e.path for e in self.listed() if e.name == name), None)
        if path is None:
            raise ValueError(f"episode {name[:80]!r} is not there, or not any more")
        try:
            with np.load(path, allow_pickle=False) as file:
                rows = {key: file[key] for key in self._shapes}
        except DAMAGE as error:
            raise ValueError(f"episode {name!r} cannot be read: {error}") from None
        for key, shape in self._shapes.items():
            if rows[key].shape[1:] != shape:
                raise ValueError(f"episode {name!r}: {key} is not what this agent sees")
        return rows


def thumbnail_rows(rows: int) -> list[int]:
    """The rows that stand for an episode, evenly spread, its first and its last among them."""
    count = min(rows, THUMBNAILS)
    return [round(i) for i in np.linspace(0, rows - 1, count)]


def context(rows: dict[str, np.ndarray], row: int, most: int) -> Iterator[dict[str, np.ndarray]]:
    """The last `most` rows up to `row`, the first of which starts a sequence."""
    for index in range(max(0, row + 1 - most), row + 1):
        first = index == max(0, row + 1 - most)
        yield {key: value[index] for key, value in rows.items()} | {"is_first": np.bool_(first)}
