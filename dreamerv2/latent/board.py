"""Boards of MinAtar's Breakout: which of them the game can show."""

from typing import NamedTuple

import numpy as np

KINDS = ("paddle", "ball", "trail", "brick")  # channels of a board, in order
BRICK_ROWS = slice(1, 4)
# Rows in which the ball may be where it was a step before, in height: it has just met the ceiling
# (0), a brick (0 to 4) or the paddle (8).
BOUNCING_ROWS = (0, 1, 2, 3, 4, 8)
EDGES = (0, 9)  # columns in which it may be where it was, in width


class Verdict(NamedTuple):
    """What is wrong with boards, bool `[N]` each."""

    paddle: np.ndarray  # not exactly one, in the last row
    ball: np.ndarray  # not exactly one
    trail: np.ndarray  # not exactly one, or not where the ball can have come from
    brick: np.ndarray  # one outside its three rows

    @property
    def allowed(self) -> np.ndarray:
        """Whether the game can show the board."""
        return ~(self.paddle | self.ball | self.trail | self.brick)


def judge(boards: np.ndarray) -> Verdict:
    """Holds boards `[N, 10, 10, 4]` against the rules; an object is where the value is above 0.5.

    The rules are those of one board, not of a game: any set of bricks may be left.
    """
    there = boards > 0.5
    paddle, ball, trail, brick = np.moveaxis(there, -1, 0)
    one_ball, one_trail = _count(ball) == 1, _count(trail) == 1
    paddle_wrong = (_count(paddle) != 1) | (_count(paddle[:, -1:]) != 1)
    outside = brick.copy()
    outside[:, BRICK_ROWS] = False
    from_there = one_ball & one_trail
    from_there[from_there] = _can_follow(ball[from_there], trail[from_there])
    trail_wrong = ~one_trail | one_ball & ~from_there
    return Verdict(paddle_wrong, ~one_ball, trail_wrong, outside.any((1, 2)))


def _can_follow(ball: np.ndarray, trail: np.ndarray) -> np.ndarray:
    """Whether the ball can have been where the trail is a step before: bool `[M]`."""
    (y, x), (last_y, last_x) = _place(ball), _place(trail)
    columns = (np.abs(x - last_x) == 1) | (x == last_x) & np.isin(x, EDGES)
    rows = (np.abs(y - last_y) == 1) | (y == last_y) & np.isin(y, BOUNCING_ROWS)
    return columns & rows


def _count(there: np.ndarray) -> np.ndarray:
    return there.sum((1, 2))


def _place(there: np.ndarray) -> np.ndarray:
    """Row and column of the one true cell of each board, int [2, M]."""
    rows, columns = there.shape[1:]
    first = there.reshape(len(there), rows * columns).argmax(-1)
    return np.array(np.divmod(first, columns))


def flipped(boards: np.ndarray, base: np.ndarray) -> np.ndarray:
    """How many cells of each kind show something else than in `base`: int `[..., kinds]`."""
    return ((boards > 0.5) != (base > 0.5)).sum((-3, -2))


def summarize(boards: np.ndarray) -> dict[str, float | None]:
    """Shares of boards: `allowed`, and what is wrong by its kind; None of no boards."""
    if not len(boards):
        return {"boards": 0, **dict.fromkeys(("allowed", *KINDS))}
    verdict = judge(boards)
    wrong = {kind: float(share.mean()) for kind, share in verdict._asdict().items()}
    return {"boards": len(boards), "allowed": float(verdict.allowed.mean()), **wrong}
