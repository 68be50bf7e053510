"""Vectors in a film: what a bar or a board shows is the number."""

import numpy as np
import pytest

from common.log import paint
from dreamerv2.film import vectors


def lengths(bars, values, size=200):
    """Blue pixels in the line of each number, and where its zero line is."""
    area = np.zeros((size, size, 3), np.uint8)
    bars.draw(area, np.asarray(values, np.float32))
    rows = area.reshape(len(values), -1, size, 3)[:, 5]
    blue = [(row == paint.BLUE).all(-1).sum() for row in rows]
    field = [(row == paint.FIELD).all(-1).sum() for row in rows]
    return np.array(blue), np.array(field)


def test_bars_start_at_zero_and_input_and_prediction_have_one_scale():
    bars = vectors.Bars(np.array([[-1, 2], [1, 4]], np.float32), ("a", "b"), 11)
    blue, field = lengths(bars, [0.5, 2])
    width = blue + field
    assert blue[0] == pytest.approx(width[0] / 4, abs=2)  # a quarter of -1 to 1, from the middle
    assert blue[1] == pytest.approx(width[1] / 2, abs=2)  # half of 0 to 4
    assert lengths(bars, [0.5, 99])[0][1] == pytest.approx(width[1], abs=2)
    assert (lengths(bars, [-0.5, 0])[0] <= [blue[0] + 1, 0]).all()


def test_numbers_have_the_names_of_their_environment():
    assert vectors.number_names("gym_CartPole-v1", {"vector": 4})[2] == "angle"
    assert vectors.number_names("own_CartPole-v1", {"vector": 4})[2] == "angle"
    assert vectors.number_names("gym_CartPole-v1", {"vector": 3}) == ("0", "1", "2")
    assert vectors.number_names("gym_Unknown-v0", {"vector": 2}) == ("0", "1")
    several = vectors.number_names("dmc_walker_walk", {"height": 1, "velocity": 2})
    assert several == ("height", "velocity 0", "velocity 1")


def test_a_board_is_shown_as_the_game_shows_it():
    shape = vectors.board_shape("minatar_breakout", 400)
    assert shape == (10, 10, 4) and vectors.board_shape("gym_CartPole-v1", 400) is None
    board = np.zeros((1, 10, 10, 4), np.float32)
    board[0, 9, 3, 0] = board[0, 4, 5, 1] = 1
    seen = vectors.boards(board.reshape(1, -1), shape)
    assert seen.shape == (1, 10, 10, 3)
    others = np.unique(seen[0].reshape(-1, 3), axis=0)
    assert len(others) == 3 and (seen[0, 9, 3] != seen[0, 4, 5]).any()
    np.testing.assert_array_equal(seen[0, 0, 0], seen[0, 9, 9])
