"""A winding corridor without reward, to see exploration: `--env docs.exploration.grid:snake`."""

import gymnasium
import numpy as np

SNAKE = [
    "S..........",
    "##########.",
    "...........",
    ".##########",
    "...........",
    "##########.",
    "...........",
    ".##########",
    "...........",
    "##########.",
    "...........",
]
MOVES = [(0, 1), (0, -1), (1, 0), (-1, 0)]  # right, left, down, up


class Grid(gymnasium.Env):
    """A walk over the free cells of a map, from `S`. Walls `#` and borders stop a move.

    Observations: `vector` is row and column, each one-hot. `place` is column and height over the
    lowest row; it serves to count cells and is not for the agent. The reward is always 0.

    Args:
        rows: the map. steps: after which the walk starts again.
    """

    action_space = gymnasium.spaces.Discrete(len(MOVES))

    def __init__(self, rows: list[str], steps: int = 100):
        self._map, self._steps = rows, steps
        height, width = len(rows), len(rows[0])
        self.observation_space = gymnasium.spaces.Dict(
            vector=gymnasium.spaces.Box(0, 1, (height + width,), np.float32),
            place=gymnasium.spaces.Box(0, max(height, width), (2,), np.float32),
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._row, self._taken = next((i, 0) for i, row in enumerate(self._map) if "S" in row)
        self._column = self._map[self._row].index("S")
        return self._observation(), {}

    def step(self, action):
        down, right = MOVES[action]
        row, column = self._row + down, self._column + right
        inside = 0 <= row < len(self._map) and 0 <= column < len(self._map[0])
        if inside and self._map[row][column] != "#":
            self._row, self._column = row, column
        self._taken += 1
        return self._observation(), 0.0, False, self._taken == self._steps, {}

    def _observation(self):
        rows, columns = np.eye(len(self._map)), np.eye(len(self._map[0]))
        vector = np.concatenate([rows[self._row], columns[self._column]])
        place = self._column, len(self._map) - 1 - self._row
        return {"vector": vector.astype(np.float32), "place": np.array(place, np.float32)}


def snake() -> Grid:
    """A corridor of 71 cells that turns ten times; random steps seldom come far."""
    return Grid(SNAKE)
