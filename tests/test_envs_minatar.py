"""MinAtar: observations, randomness, pictures."""

import sys

import numpy as np
import pytest

from common.envs import make_env
from common.envs.minatar import CELL, PALETTE, MinAtar

minatar = pytest.importorskip("minatar", reason="the package minatar is not installed")

GAMES = {"asterix": 5, "breakout": 3, "freeway": 3, "seaquest": 6, "space_invaders": 4}


def board_of(env):
    return env._game.state()


@pytest.mark.parametrize("game, actions", GAMES.items())
@pytest.mark.parametrize("image", [False, True])
def test_every_game_runs_with_its_minimal_actions(game, actions, image):
    env = make_env(f"minatar_{game}", minatar_render=image, time_limit=500)
    assert env.act_space.shape == (actions,) and len(env.action_names) == actions
    obs = env.reset()
    assert ("image" in obs) == ("image" in env.obs_space) == image
    steps = 0
    while not obs["is_last"]:
        obs = env.step(env.act_space.sample())
        steps += 1
    assert obs["is_terminal"] == (steps < 500)


def test_vector_is_the_flattened_board():
    env = MinAtar("breakout")
    for step in range(3):
        obs = env.step(step) if step else env.reset()
        board = board_of(env)
        assert obs["vector"].dtype == np.float32
        np.testing.assert_array_equal(obs["vector"].reshape(10, 10, 4), board)
    assert board.any((0, 1)).all()


def test_package_defaults_hold():
    game = MinAtar("asterix")._game
    assert game.sticky_action_prob == 0.1
    assert game.env.ramping


def test_game_over_is_terminal_and_reward_is_the_games():
    env = MinAtar("breakout", seed=0)
    env.reset()
    rewards, steps = 0, 0
    for episode in range(20):
        obs = env.step(episode % 3)
        while not obs["is_last"]:
            rewards += obs["reward"]
            steps += 1
            obs = env.step(steps % 3)
        assert obs["is_terminal"]
        env.reset()
    assert rewards > 0


def test_actions_do_what_their_names_say():
    """Breakout leaves out UP, so that the index of RIGHT is not the package's number for it."""
    env = MinAtar("breakout")
    env._game.sticky_action_prob = 0
    env.reset()
    assert env.action_names == ("NOOP", "LEFT", "RIGHT")
    columns = [board_of(env)[9, :, 0].argmax()]
    for action in (2, 0, 1, 1):
        env.step(action)
        columns.append(board_of(env)[9, :, 0].argmax())
    assert np.diff(columns).tolist() == [1, 0, -1, -1]


def test_seed_decides_the_play():
    def boards(seed):
        env = MinAtar("space_invaders", seed=seed)
        rows = [env.reset()["vector"]] + [env.step(i % 4)["vector"] for i in range(25)]
        return np.array(rows)

    assert (boards(3) == boards(3)).all()
    assert (boards(3) != boards(4)).any()


def test_picture_shows_the_board_in_distinct_colours():
    env = make_env("minatar_breakout", minatar_render=True, render_size=(64, 64), seed=1)
    env.reset()
    for _ in range(2):
        image = env.step(np.array([0, 1, 0], np.float32))["image"]
    inner = env.env.env
    screen = inner.render()
    assert screen.shape == (10 * CELL, 10 * CELL, 3) and screen.dtype == np.uint8
    cells = screen[CELL // 2 :: CELL, CELL // 2 :: CELL]
    assert (screen == cells.repeat(CELL, 0).repeat(CELL, 1)).all()
    board = board_of(inner)
    assert (cells[~board.any(2)] == PALETTE[0]).all()
    for channel in range(4):
        alone = board[..., channel] & (board.sum(2) == 1)
        assert alone.any()
        assert (cells[alone] == PALETTE[channel + 1]).all()
    rows = np.arange(64) * 10 // 64
    np.testing.assert_array_equal(image, cells[rows][:, rows])
    assert len(np.unique(PALETTE, axis=0)) == len(PALETTE) == 11


def test_unknown_game_is_named_with_the_nearest():
    with pytest.raises(ValueError, match="unknown MinAtar game 'break_out'; nearest: breakout"):
        make_env("minatar_break_out")


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "minatar", None)
    with pytest.raises(ValueError, match="need the package minatar"):
        make_env("minatar_breakout")
