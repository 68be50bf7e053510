"""Rooms without reward, to see exploration: `--env docs.exploration.grid:rooms`."""

import gymnasium
import numpy as np

ROOMS = [
    "S....#.....#.....",
    ".....#.....#.....",
    ".................",
    ".....#.....#.....",
    ".....#.....#.....",
    "##.#####.#####.##",
    ".....#.....#.....",
    ".....#.....#.....",
    ".................",
    ".....#.....#.....",
    ".....#.....#.....",
    "##.#####.#####.##",
    ".....#.....#.....",
    ".....#.....#.....",
    ".................",
    ".....#.....#.....",
    ".....#.....#.....",
]
MOVES = [(0, 1), (0, -1), (1, 0), (-1, 0)]  # right, left, down, up


class Grid(gymnasium.Env):
    """A walk over the free cells of a map, from `S`. Walls `#` and borders stop a move.

    Observation: column, and height over the lowest row, each scaled to [-1, 1]. The reward is
    always 0.

    Args:
        rows: the map. steps: after which the walk starts again.
    """

    action_space = gymnasium.spaces.Discrete(len(MOVES))
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    render_mode = "rgb_array"

    def __init__(self, rows: list[str], steps: int = 100):
        self._map, self._steps = rows, steps

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._taken = 0
        self._row = next(i for i, row in enumerate(self._map) if "S" in row)
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

    def render(self):
        """The map from above, 8 pixels a cell: walls gray, the walker orange."""
        walls = np.array([[c == "#" for c in row] for row in self._map])
        picture = np.where(walls[..., None], 90, 240).repeat(3, -1).astype(np.uint8)
        picture[self._row, self._column] = 230, 120, 0
        return picture.repeat(8, 0).repeat(8, 1)

    def _observation(self):
        column = 2 * self._column / (len(self._map[0]) - 1) - 1
        return np.array([column, 1 - 2 * self._row / (len(self._map) - 1)], np.float32)


def rooms() -> Grid:
    """Nine rooms with doors between them, 237 cells."""
    return Grid(ROOMS)
