"""Vectors in a film: named bars, or the board of a game."""

from collections.abc import Mapping, Sequence

import numpy as np

from common.envs.minatar import board_colours
from common.log import paint

# What the numbers of an observation are called in the documentation of the environment, by its name
# without the suite: the same environment may also be one's own.
NAMES = {
    "CartPole-v1": ("position", "velocity", "angle", "turning"),
    "Pendulum-v1": ("cosine", "sine", "turning"),
    "MountainCar-v0": ("position", "velocity"),
    "MountainCarContinuous-v0": ("position", "velocity"),
    "Acrobot-v1": ("cosine 1", "sine 1", "cosine 2", "sine 2", "turning 1", "turning 2"),
}
BOARD = 10  # rows and columns of MinAtar's boards
SHADES = 8  # of a predicted cell: finer ones would be most of a GIF
SMALLEST_FONT = 8  # that can be read
MARGIN = 4  # pixels that the frame of a panel may take
GAP = 3  # pixels between a bar and its words


def number_names(task: str, sizes: Mapping[str, int]) -> tuple[str, ...]:
    """A name for each number of some observations, given how many numbers each has.

    They are the task's, where it has as many. Else they are the observation's, with an index where
    it has several numbers, or the index alone where there is one observation.
    """
    names = NAMES.get(task.partition("_")[2], ())
    if len(names) == sum(sizes.values()):
        return names
    if len(sizes) == 1:
        return tuple(map(str, range(*sizes.values())))
    return tuple(
        key if size == 1 else f"{key} {i}" for key, size in sizes.items() for i in range(size)
    )


def board_shape(task: str, size: int) -> tuple[int, int, int] | None:
    """Rows, columns and channels of a task whose vector is a board."""
    if not task.startswith("minatar_") or size % BOARD**2:
        return None
    return BOARD, BOARD, size // BOARD**2


def boards(values: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Pictures uint8 [T, rows, columns, 3] of vectors [T, D]."""
    coarse = np.round(np.clip(values, 0, 1) * SHADES) / SHADES
    return np.stack([board_colours(row.reshape(shape)) for row in coarse])


class Bars:
    """A line per number: its name, a bar from zero, its value.

    Each number has a scale of its own, from the lowest to the highest value that was observed, and
    zero. Predictions are drawn on the same one; what is beyond it ends at the edge.
    """

    def __init__(self, observed: np.ndarray, names: Sequence[str], font: int):
        self._low = np.minimum(observed.min(0), 0)
        span = np.maximum(observed.max(0), 0) - self._low
        self._span = np.maximum(span, 1e-6)
        self._names, self._font = names, font

    def draw(self, area: np.ndarray, values: np.ndarray) -> None:
        """Paint numbers `[D]` into `area` uint8 [height, width, 3], which comes empty."""
        height, width, _ = area.shape
        line = height // len(values)
        font = min(self._font, max(line + 1, SMALLEST_FONT))
        left = right = 0
        if line + 1 >= SMALLEST_FONT:
            names = max(paint.text_width(name, font) for name in self._names)
            left = min(width // 2, MARGIN + names + GAP)
            right = GAP + paint.text_width("-00.00", font)
        bars = width - left - right
        share = np.clip((values - self._low) / self._span, 0, 1)
        zeros = np.clip(-self._low / self._span, 0, 1)
        for i, name in enumerate(self._names):
            top, bottom = i * line, (i + 1) * line - max(1, line // 6)
            start, end = sorted(round(float(x) * (bars - 1)) for x in (zeros[i], share[i]))
            zero = left + round(float(zeros[i]) * (bars - 1))
            area[top:bottom, left : left + bars] = paint.FIELD
            area[top:bottom, left + start : left + end + 1] = paint.BLUE
            area[top:bottom, zero : zero + 1] = paint.TEXT
            if left:
                value = f"{round(float(values[i]), 2) + 0.0:.2f}"  # 0.00 also from below
                paint.label(area[top:bottom, MARGIN : left - GAP], name, font, paint.DIM)
                paint.label(area[top:bottom, left + bars + GAP :], value, font)
