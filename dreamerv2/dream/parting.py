"""Where a dream and the game that it started from part."""

from typing import NamedTuple

import numpy as np

# Both pictures come from the same decoder, so that its blur does not count as a difference.
TOLERANCE = 0.25  # of a number's range; a pixel's is from black to white
MOST_PIXELS = 4  # of an image that may differ: fewer are the flicker of single pixels
IN_A_ROW = 3  # steps; a ball that is a step late and catches up has not parted


class Parting(NamedTuple):
    """The steps since the dream started.

    They part at the first of `IN_A_ROW` steps in a row at which more than `MOST_PIXELS` pixels of
    an image (any number of a vector) differ by more than `TOLERANCE`.
    """

    steps: int = 0
    differing: int = 0  # pixels or numbers, now
    streak: int = 0  # steps in a row at which they differed
    parted_after: int | None = None  # steps that they went together, once that is known

    def after(self, game: np.ndarray, dream: np.ndarray) -> "Parting":
        """One step later, with what the decoder makes of both: numbers in units of their range."""
        apart = np.abs(game - dream) > TOLERANCE
        differing = int(apart.any(-1).sum() if apart.ndim == 3 else apart.sum())
        differs = differing > (MOST_PIXELS if apart.ndim == 3 else 0)
        steps, streak = self.steps + 1, self.streak + 1 if differs else 0
        parted = self.parted_after
        if parted is None and streak == IN_A_ROW:
            parted = steps - IN_A_ROW
        return Parting(steps, differing, streak, parted)
