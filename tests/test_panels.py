"""Panels show what they are given."""

import numpy as np
import pytest

from common.log import paint
from dreamerv2.film import panels
from dreamerv2.film.insight import Forecast, Opinion


def draw(panel, row, size=128):
    area = np.zeros((size, size, 3), np.uint8)
    area[:] = paint.BACKGROUND
    panel.draw(area, row)
    return area


def count(area, color):
    return int((area == color).all(-1).sum())


def test_the_latent_shows_every_class_that_was_drawn():
    drawn = np.random.default_rng(0).integers(0, 32, (2, 32))
    latents = {"stoch": np.eye(32)[drawn], "logit": np.zeros((2, 32, 32))}
    panel = panels.Latent(latents)
    area = draw(panel, 1)
    assert panel.titles(1)[0] == "latent 32x32"
    for variable, index in enumerate(drawn[1]):
        cell = area[4 * variable : 4 * variable + 4, 4 * index : 4 * index + 4]
        assert (cell == paint.GOLD).all()
    assert count(area, paint.GOLD) == 32 * 16


def test_bars_are_as_long_as_probabilities_and_the_chosen_action_is_named():
    policy = np.array([[0.5, 0.25, 0.25], [1, 0, 0]], np.float32)
    action = np.eye(3, dtype=np.float32)[[1, 0]]
    panel = panels.Policy(policy, action, ["NOOP", "LEFT", "RIGHT"], 11)
    assert panel.titles(0) == ("policy: LEFT", "LEFT") and panel.titles(1)[0] == "policy: NOOP"
    area = draw(panel, 0)
    lengths = []
    for middle, color in ((21, paint.BLUE), (63, paint.GREEN), (105, paint.BLUE)):
        left = np.flatnonzero((area[21] == paint.BLUE).all(-1))[0]
        lengths.append(count(area[middle : middle + 1, left:], color))
    width = 128 - left
    assert lengths == pytest.approx([width / 2, width / 4, width / 4], abs=1)


@pytest.mark.parametrize("count_of_actions", [1, 4, 18, 60, 300])
def test_policies_of_any_size_can_be_drawn(count_of_actions):
    policy = np.full((1, count_of_actions), 1 / count_of_actions, np.float32)
    action = np.eye(count_of_actions, dtype=np.float32)[:1]
    names = [f"DOWNRIGHTFIRE{i}" for i in range(count_of_actions)]
    for size in (64, 128):
        assert count(draw(panels.Policy(policy, action, names, 11), 0, size), paint.GREEN)


def test_a_dream_is_marked_while_nothing_is_observed():
    forecast = forecast_of([0, 0, 1, 2])
    panel = panels.Prediction(forecast, dream=True)
    assert [panel.titles(row)[0] for row in range(4)] == [
        "dream: watching",
        "dream: watching",
        "DREAM  t+1",
        "DREAM  t+2",
    ]
    assert [panel.signal(row) for row in range(4)] == [None, None, *[paint.MAGENTA] * 2]
    panel = panels.Prediction(forecast, dream=False)
    assert panel.titles(3)[0] == "open loop, 2 steps" and panel.signal(3) is None


def forecast_of(age):
    return Forecast(np.zeros((len(age), 64, 64, 1), np.uint8), np.array(age))


def test_images_of_any_number_of_channels_are_shown():
    image = np.random.default_rng(0).integers(0, 256, (4, 4, 5)).astype(np.uint8)
    np.testing.assert_array_equal(paint.rgb(image[..., :3]), image[..., :3])
    for channels in (1, 2, 4, 5):
        shown = paint.rgb(image[..., :channels])
        np.testing.assert_array_equal(shown, image[..., [channels - 1] * 3])


def test_predicted_images_change_by_less_than_can_be_seen():
    levels = np.arange(256, dtype=np.uint8)
    calm = panels.calm(levels)
    assert np.abs(calm.astype(int) - levels).max() <= 4 and len(np.unique(calm)) <= 33
    assert calm[0] == 0 and calm[255] == 255


def test_many_numbers_have_one_scale_so_that_what_never_changes_keeps_its_brightness():
    seen = np.zeros((3, 400), np.float32)
    seen[:, :20] = 1  # always there, like a brick that is never hit
    seen[1:, 21] = 1
    area = draw(panels.Picture(("input",), seen, *panels.vector_limits(seen)), 2, size=100)
    cells = area[2::5, 2::5]
    assert (cells[0] == cells[1, 1]).all() and (cells[0] != cells[1, 0]).any(-1).all()


def test_a_few_numbers_have_a_bar_and_a_scale_each():
    seen = np.array([[0, 100], [1, 300], [0.5, 200]], np.float32)
    low, high = panels.vector_limits(seen)
    np.testing.assert_array_equal(low, [0, 100])
    np.testing.assert_array_equal(high, [1, 300])


def strip_of(disagreement, width=200):
    """A strip over four rows, and what it shows at the last one."""
    zeros = np.zeros(4, np.float32)
    episode = panels.Episode(np.zeros((4, 2)), zeros, np.eye(4), {})
    opinion = Opinion(np.eye(4), zeros + 1, zeros, zeros, disagreement)
    strip = panels.Strip(episode, opinion, width, 1, 8)
    area = np.zeros((strip.height, width, 3), np.uint8)
    strip.draw(area, 3)
    return area


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("last", [99_999, -99_999])
def test_a_long_return_ends_before_the_next_number(scale, last):
    zeros, reward = np.zeros(4, np.float32), np.array([0, 0, 0, float(last)])
    episode = panels.Episode(np.zeros((4, 2)), reward, np.eye(4), {})
    opinion = Opinion(np.eye(4), zeros + 1, zeros, zeros)
    font = 7 + 2 * scale
    strip = panels.Strip(episode, opinion, 600 * scale, scale, font)
    (_, text, _, _), (_, start), (_, following) = strip._items(3)[1], *strip._slots[1:3]
    assert text == str(last)
    end = start + paint.text_width("return ", font) + paint.text_width(text, font)
    assert end < following


def test_disagreement_is_a_curve_of_its_own_below_the_value():
    area = strip_of(np.float32([0, 0.1, 0.2, 0.4]))
    plot = area[-16:]
    rows, columns = np.nonzero((plot == paint.GREEN).all(-1))
    heights = [rows[columns == column].min() for column in (10, 60, 110, 160)]
    assert heights == sorted(heights, reverse=True) and len(set(heights)) == 4, "it rises"
    assert not (plot == paint.BLUE).all(-1).any()
    above = area[:-16][-25:]
    assert (above == paint.BLUE).all(-1).any(0).all(), "the value, over the whole width"
    plain = strip_of(None)
    assert not (plain == paint.GREEN).all(-1).any() and len(plain) < len(area)
