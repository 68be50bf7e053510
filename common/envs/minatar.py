"""MinAtar: five Atari games on a 10x10 board, fast enough to learn on a laptop."""

import importlib
import pkgutil

import numpy as np
from gymnasium import spaces

from common.envs.base import Env, Obs, unknown_name, with_flags, with_transition

ACTION_NAMES = ("NOOP", "LEFT", "UP", "RIGHT", "DOWN", "FIRE")
# Background, then one colour per channel: apart from each other in hue and in brightness.
PALETTE = np.array(
    [
        [16, 18, 26],
        [86, 180, 233],
        [255, 240, 200],
        [150, 110, 60],
        [213, 94, 0],
        [0, 158, 115],
        [204, 121, 167],
        [240, 228, 66],
        [0, 114, 178],
        [160, 160, 170],
        [230, 60, 60],
    ],
    np.uint8,
)
CELL = 16  # pixels of a cell's side in `render`
BOARD = (10, 10)  # rows, columns
# Columns and rows per step of Breakout's ball, by the number that the game has for its direction.
BALL_STEPS = ((-1, -1), (1, -1), (1, 1), (-1, 1))


class MinAtar(Env):
    """One MinAtar game, with sticky actions (0.1) and rising difficulty as the package has them.

    vector  float32 [10 * 10 * channels]: the board, 1 where a channel's object is; rows, columns,
            channels in this order of significance
    image   uint8 [*size, 3], only with `image`: what `render` shows, every pixel its cell's colour

    name: breakout, asterix, freeway, seaquest or space_invaders.
    seed: of everything random in the game.

    The actions are those that do anything in the game (3 in Breakout), as for Atari: with all six,
    three in Breakout do nothing, which only makes a policy longer to learn.
    """

    def __init__(
        self, name: str, *, seed: int = 0, image: bool = False, size: tuple[int, int] = (64, 64)
    ):
        environment, games = _load()
        if name not in games:
            raise unknown_name("MinAtar game", name, games)
        self._name, self._game = name, environment(name)
        self._game.seed(seed)
        self._actions = self._game.minimal_action_set()
        rows, columns, channels = self._game.state_shape()
        # The cell under each pixel, as an open mesh; None without images.
        height, width = size
        cells = np.arange(height) * rows // height, np.arange(width) * columns // width
        self._cells = np.ix_(*cells) if image else None
        board = {"vector": spaces.Box(0, 1, (rows * columns * channels,), np.float32)}
        picture: dict = {"image": spaces.Box(0, 255, (*size, 3), np.uint8)} if image else {}
        self.obs_space = with_flags(board | picture)
        self.act_space = spaces.Discrete(len(self._actions))
        self.action_names = tuple(ACTION_NAMES[action] for action in self._actions)

    def reset(self) -> Obs:
        self._game.reset()
        return with_transition(self._obs(), is_first=True)

    def step(self, action: int) -> Obs:
        reward, over = self._game.act(self._actions[action])
        return with_transition(self._obs(), reward, is_last=over, is_terminal=over)

    def render(self) -> np.ndarray:
        """The board with a colour per kind of object, uint8 [160, 160, 3].

        Where several objects are in a cell, the one of the highest channel is seen, as in the
        package's own display.
        """
        return board_colours(self._game.state()).repeat(CELL, 0).repeat(CELL, 1)

    def variables(self) -> dict[str, float]:
        """Of Breakout: ball, paddle [cells], the ball's next step if it meets nothing, bricks."""
        if self._name != "breakout":
            return {}
        game = self._game.env
        dx, dy = BALL_STEPS[game.ball_dir]
        return {
            "ball_x": game.ball_x,
            "ball_y": game.ball_y,
            "ball_dx": dx,
            "ball_dy": dy,
            "paddle_x": game.pos,
            "bricks": np.count_nonzero(game.brick_map),
        }

    def _obs(self) -> Obs:
        obs = {"vector": self._game.state().ravel().astype(np.float32)}
        if self._cells:
            obs["image"] = board_colours(self._game.state())[self._cells]
        return obs


def board_colours(board: np.ndarray) -> np.ndarray:
    """The colour of each cell, uint8 [rows, columns, 3].

    board: [rows, columns, channels], how much of each kind of object is in a cell, from 0 to 1. A
    whole object hides those of lower channels; a part of one, as a model predicts it, shines
    through.
    """
    colours = np.broadcast_to(PALETTE[0].astype(np.float32), (*board.shape[:2], 3))
    for kind in range(board.shape[2]):
        share = np.clip(board[..., kind : kind + 1], 0, 1).astype(np.float32)
        colours = colours + share * (PALETTE[kind + 1] - colours)
    return np.round(colours).astype(np.uint8)


def _load():
    """The package's environment class and the names of its games."""
    try:
        package = importlib.import_module("minatar")
        games = importlib.import_module("minatar.environments")
    except ImportError as error:
        raise ValueError("MinAtar tasks need the package minatar (pip install minatar)") from error
    return package.Environment, [module.name for module in pkgutil.iter_modules(games.__path__)]
