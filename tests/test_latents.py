"""On latents and decoders whose right answer is known, and the command on a checkpoint."""

import contextlib
import json
import re

import imageio.v3 as iio
import numpy as np
import pytest
import tensorflow as tf
import tiny
from matplotlib.figure import Figure

from common.checkpoint import Checkpoints
from common.envs.minatar import PALETTE
from common.nn.draws import Modes
from dreamerv2 import latents
from dreamerv2.agent.agent import Agent
from dreamerv2.latent import SECTIONS, figures, interpolate, probe, sweep, usage
from dreamerv2.latent import report as written
from dreamerv2.latent.collect import collect
from dreamerv2.latent.model import LatentModel, Latents, Response
from dreamerv2.run import blocks, snapshot
from dreamerv2.run.environments import configured_env

SIZE = 4  # classes


def states(classes, deter=None):
    classes = np.array(classes, np.int32)
    return Latents(classes, np.zeros((len(classes), 1), np.float32) if deter is None else deter)


def decode_pixel(latents):
    """8x8 images: variable 0 is the column of a white pixel in row 0, variable 1 does nothing,
    variable 2 lights row 7 a little."""
    images = np.zeros((len(latents.classes), 8, 8, 1), np.float32)
    images[np.arange(len(images)), 0, latents.classes[:, 0], 0] = 1
    images[:, 7, :, 0] = 0.02 * latents.classes[:, 2, None]
    return images


def respond_pixel(latents):
    """The value is ten times variable 0, and variable 2 chooses between two actions."""
    action = latents.classes[:, 2] % 2
    value = 10.0 * latents.classes[:, 0]
    return Response(value, np.zeros_like(value), np.eye(2)[action])


# Usage


def test_usage_of_an_even_an_uneven_and_a_dead_variable():
    classes = np.array([[0, 0, 2, 0], [1, 0, 2, 1], [2, 0, 2, 2], [3, 1, 2, 2]])
    result = usage.measure(classes, SIZE)
    numbers = usage.summarize(result, result, np.zeros((4, 4), int))
    uneven = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))
    np.testing.assert_allclose(numbers["entropy_bits"], [2, uneven, 0, 1.5], atol=1e-4)
    np.testing.assert_allclose(numbers["effective_classes"], [4, 2**uneven, 1, 2**1.5], atol=1e-3)
    assert numbers["classes_used"] == [4, 2, 1, 3]
    assert numbers["dead_variables"] == [2]
    assert numbers["never_used_fraction"] == 6 / 16
    assert numbers["never_most_likely_fraction"] == 12 / 16
    assert numbers["cells_used_once"] == 7
    assert numbers["rows"] == 4 and numbers["cells"] == 16


def test_share_of_never_used_cells_falls_as_rows_are_seen():
    result = usage.measure(np.array([[0], [0], [1], [3]]), SIZE)
    assert dict(zip(result.seen, result.never_used, strict=True)) == {
        1: 3 / 4,
        2: 3 / 4,
        3: 2 / 4,
        4: 1 / 4,
    }


# Sweep


def test_sweep_finds_the_variable_that_moves_a_pixel_and_where():
    counts = np.ones((3, SIZE), int)
    result = sweep.sweep(decode_pixel, respond_pixel, states([[1, 0, 0], [2, 3, 0]]), counts)
    two_pixels = 255 * 2 / 64
    pixel = sweep.per_variable(result.pixel, sweep.others_in_use(result.current, counts))
    np.testing.assert_allclose(pixel[:2], [two_pixels, 0], atol=1e-4)
    assert 0 < pixel[2] < two_pixels
    # From column 1 to 0, 2 or 3 and from 2 to 0, 1 or 3: how often each column changes.
    np.testing.assert_allclose(result.maps[0, 0, :5], 255 * np.array([2, 4, 4, 2, 0]) / 6)
    assert not result.maps[0, 1:].any() and not result.maps[1].any()
    np.testing.assert_array_equal(result.tiles[0, 3], decode_pixel(states([[3, 0, 0]]))[0])


def test_sweep_of_value_and_policy():
    counts = np.ones((3, SIZE), int)
    result = sweep.sweep(decode_pixel, respond_pixel, states([[1, 0, 0]]), counts)
    np.testing.assert_allclose(result.value[0, 0], [10, 0, 10, 20])
    np.testing.assert_allclose(result.policy[0, 2], [0, 1, 0, 1])
    assert not result.value[0, 1:].any() and not result.policy[0, :2].any()


def test_a_faint_change_is_invisible_and_classes_out_of_use_count_only_for_all():
    counts = np.ones((3, SIZE), int)
    counts[0, 3] = counts[2, 3] = 0
    result = sweep.sweep(decode_pixel, respond_pixel, states([[1, 0, 0]]), counts)
    numbers = sweep.summarize(result, counts)
    # Variable 0: two visible swaps; variable 1: three without effect; variable 2: two faint ones.
    assert numbers["invisible_fraction"] == pytest.approx(5 / 7)
    assert numbers["invisible_fraction_all"] == pytest.approx(6 / 9)
    np.testing.assert_allclose(numbers["value_change"], [10, 0, 0])


def test_sweep_leaves_the_states_alone():
    given = states([[1, 0, 0]])
    sweep.sweep(decode_pixel, respond_pixel, given, np.ones((3, SIZE), int))
    np.testing.assert_array_equal(given.classes, [[1, 0, 0]])


def test_halves_of_the_state_tell_latent_and_deter_apart():
    def decode(latents):
        images = decode_pixel(latents)
        images[:, 4] = latents.deter[:, None, None, 0]
        return images

    first = states([[0, 0, 0]], np.array([[0.0]]))
    other = states([[1, 0, 0]], np.array([[0.5]]))
    halves = sweep.halves_of_state(decode, first, other)
    assert halves["classes"] == pytest.approx(255 * 2 / 64)
    assert halves["deter"] == pytest.approx(255 * 8 * 0.5 / 64)
    assert halves["both"] == pytest.approx(255 * 6 / 64)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn, instead of files."""
    found = []

    @contextlib.contextmanager
    def keep(path, width, height):
        found.append(Figure(figsize=(width, height)))
        yield found[-1]

    monkeypatch.setattr(figures, "figure", keep)
    return found


HALVES = {"image_change_by_half": {"classes": 1.0, "deter": 1.0, "both": 1.0}}


def test_continuous_actions_move_and_have_no_probability_that_does(drawn):
    def respond(latents):
        value = np.zeros(len(latents.classes))
        return Response(value, value, np.stack([latents.classes[:, 2] / 2 - 0.5, value], -1))

    counts, start = np.ones((3, SIZE), int), states([[1, 0, 0]])
    result = sweep.sweep(decode_pixel, respond, start, counts, discrete=False)
    np.testing.assert_allclose(result.policy[0, 2], [0, 0.25, 0.5, 0.75])
    numbers = sweep.summarize(result, counts) | HALVES
    assert numbers["policy_flips_fraction"] is None
    assert "probability" not in written.sweep({"features": "full"}, numbers)
    figures.sweep_effects("sweep_effects.png", result, counts)
    assert drawn[0].axes[3].get_ylabel() == "most likely action [moved]"
    chosen = sweep.sweep(decode_pixel, respond_pixel, start, counts)
    text = written.sweep({"features": "full"}, sweep.summarize(chosen, counts) | HALVES)
    assert "- 22.2 % of the swaps to a class in use move more than half of the action" in text
    box = tiny.agent(act_space=tiny.ACTION)
    assert not LatentModel(box).discrete_actions and LatentModel(tiny.agent()).discrete_actions


@pytest.mark.parametrize("channels", [2, 3, 4, 12])
def test_images_of_any_shape_are_shown(drawn, channels):
    def decode(latents):
        images = np.zeros((len(latents.classes), 48, 64, channels), np.float32)
        images[:, 4:, :9, -1] = 0.2 * latents.classes[:, :1, None]
        return images

    counts = np.ones((3, SIZE), int)
    result = sweep.sweep(decode, respond_pixel, states([[1, 0, 0]]), counts)
    figures.sweep_grid("sweep.png", result, counts)
    canvas = drawn[0].axes[0].images[0].get_array()
    assert canvas.shape == (6 * (48 + 12), SIZE * (64 + 12), 3)
    column = canvas[6:54, 3 * 76 + 6 : 3 * 76 + 70]  # the strongest variable at class 3
    shown = 0.6 * np.array([channels != 3, channels != 3, 1])
    np.testing.assert_allclose(column[4:, :9], np.broadcast_to(shown, (44, 9, 3)), atol=1e-6)
    assert not column[:4].any() and not column[:, 9:].any()
    images = np.repeat(decode(states([[3, 0, 0]])), 5, 0)
    example = interpolate.Example({"given": images}, images, images, images)
    figures.interpolate_strip("interpolate.png", example)
    assert figures.interpolate_frames(example, steps=1).shape[3] == 3


def test_a_board_is_shown_in_the_colours_of_the_game(drawn):
    boards = np.zeros((5, 10, 10, 4), np.float32)
    boards[:, 9, 4, 1] = 1
    example = interpolate.Example({"given": boards}, boards, boards, boards)
    figures.interpolate_strip("interpolate.png", example)
    shown = drawn[0].axes[0].images[0].get_array()
    np.testing.assert_allclose(255 * shown[9, 4], PALETTE[2], atol=0.01)


# Interpolate


def test_walk_changes_one_variable_at_a_time():
    start, end = np.array([0, 1, 2, 3]), np.array([1, 1, 3, 0])
    order = interpolate.differing(start, end)
    np.testing.assert_array_equal(order, [0, 2, 3])
    steps = interpolate.walk(start, end, order[::-1])
    np.testing.assert_array_equal(steps, [[0, 1, 2, 3], [0, 1, 2, 0], [0, 1, 3, 0], [1, 1, 3, 0]])


def test_greedy_order_takes_the_smallest_change_first():
    def decode(latents):  # every variable lights a pixel of its own
        brightness = latents.classes * np.array([0.3, 0.1, 0.2])
        return brightness[:, None, :, None]

    start, end = states([[0, 0, 0]]), np.array([1, 1, 1])
    rng = np.random.default_rng(0)
    orders = {k: interpolate.walk_order(k, decode, start, end, rng) for k in interpolate.ORDERS}
    np.testing.assert_array_equal(orders["given"], [0, 1, 2])
    np.testing.assert_array_equal(orders["greedy"], [1, 2, 0])
    assert sorted(orders["random"]) == [0, 1, 2]


def decode_bars(latents):
    """Every variable lights as many pixels of its own row as its class says, or none."""
    columns = np.arange(SIZE)
    return np.float32(columns < latents.classes[..., None])[..., None]


def test_distance_of_images_and_hamming_distance_by_hand():
    some = states([[0, 0], [1, 0], [3, 3]])
    pairs = interpolate.Pairs(np.array([0, 0, 1]), np.array([1, 2, 2]))
    hamming, distance = interpolate.distances(decode_bars, some, pairs)
    np.testing.assert_array_equal(hamming, [1, 2, 2])
    np.testing.assert_allclose(distance, 255 * np.array([1, 6, 5]) / 8)
    assert interpolate.rank_correlation(hamming, distance) == pytest.approx(0.866, abs=1e-3)


def test_rank_correlation_is_one_for_a_smooth_code_and_none_for_a_blind_decoder():
    rng = np.random.default_rng(0)
    some = states(rng.integers(0, 2, (200, 6)))
    counts = usage.cell_counts(some.classes, SIZE)
    found = interpolate.changed_distances(decode_bars, some, counts, rng)
    assert found[0].min() >= 1 and found[0].max() == 6
    assert interpolate.rank_correlation(*found) == pytest.approx(1)
    blind = interpolate.changed_distances(lambda x: np.zeros((200, 2, 2, 1)), some, counts, rng)
    assert interpolate.rank_correlation(*blind) is None


def test_changes_keep_to_classes_in_use():
    some = states([[0, 1], [1, 1]])
    seen = []
    counts = usage.cell_counts(some.classes, SIZE)
    for seed in range(20):
        interpolate.changed_distances(
            lambda x: seen.append(x.classes) or np.zeros((2, 2, 2, 1)),
            some,
            counts,
            np.random.default_rng(seed),
        )
    assert {tuple(row) for classes in seen for row in classes} == {(0, 1), (1, 1)}


def test_near_pairs_stay_in_their_episode_and_no_row_meets_itself():
    episode = np.repeat([0, 1, 2], 100)
    pairs = interpolate.near_and_far_pairs(episode, 1000, np.random.default_rng(0))
    assert (pairs.first != pairs.second).all()
    close = np.abs(pairs.first - pairs.second) <= 5
    assert close.mean() > 0.1  # far pairs alone would have 3%
    assert (episode[pairs.first] != episode[pairs.second]).mean() > 0.2


def test_walks_start_where_the_same_episode_goes_on_and_something_changes():
    episode = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    classes = np.array([[0, 0], [0, 0], [1, 0], [0, 0], [1, 1], [1, 1], [0, 1], [0, 1]])
    np.testing.assert_array_equal(interpolate.walk_starts(classes, episode), [0, 4, 5])


def test_log_probabilities_by_hand():
    probabilities = np.array([[[0.5, 0.5], [0.9, 0.1]], [[0.2, 0.8], [0.4, 0.6]]], np.float32)
    classes = np.array([[0, 0], [1, 1]])
    cross = interpolate.cross_log_probs(classes, np.log(probabilities))
    np.testing.assert_allclose(np.exp(cross), [[0.45, 0.08], [0.05, 0.48]], rtol=1e-5)
    best = interpolate.best_log_prob(classes, np.log(probabilities))
    np.testing.assert_allclose(np.exp(best), [0.45, 0.48], rtol=1e-5)
    own = interpolate.own_log_prob(classes, np.log(probabilities))
    np.testing.assert_allclose(np.exp(own), [0.45, 0.48], rtol=1e-5)


def test_shuffled_latents_keep_each_variable_and_break_their_ties():
    classes = np.repeat(np.arange(SIZE), 50)[:, None].repeat(2, 1)
    result = interpolate.shuffled(classes, np.random.default_rng(0))
    for column, before in zip(result.T, classes.T, strict=True):
        np.testing.assert_array_equal(np.sort(column), before)
    assert (result[:, 0] != result[:, 1]).mean() > 0.5


def test_nearest_image_by_hand():
    images = np.array([0.0, 0.5])[:, None, None, None] * np.ones((2, 2, 2, 1))
    known = np.array([0.1, 0.9])[:, None, None, None] * np.ones((2, 2, 2, 1))
    found = interpolate.nearest_distance(images, known)
    np.testing.assert_allclose(found, [25.5, 102])


def agreeing_rows(count=400):
    """Rows whose four variables always have the same class, and a prior that knows it."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, SIZE, count)[:, None].repeat(4, 1).astype(np.int32)
    sure = np.full((count, 4, SIZE), np.log(0.001), np.float32)
    np.put_along_axis(sure, classes[..., None], np.float32(np.log(0.997)), -1)
    return states(classes), sure, np.repeat(np.arange(4), count // 4)


def test_a_model_that_knows_what_goes_together_finds_walks_implausible():
    some, log_probs, episode = agreeing_rows()
    frames = np.uint8(255 * decode_bars(some))
    found = interpolate.interpolate(
        decode_bars, some, log_probs, frames, episode, seed=0, known=100
    )
    numbers = interpolate.summarize(found)
    likely = 4 * np.log(0.997)
    assert numbers["log_prob"]["real"] == pytest.approx(likely, abs=1e-3)
    assert numbers["log_prob"]["real_own_prior"] == pytest.approx(likely, abs=1e-3)
    for order in interpolate.ORDERS:  # half way two variables agree, and two others
        assert numbers["log_prob"][order] == pytest.approx(2 * np.log(0.001 * 0.997), abs=1e-2)
        assert numbers["implausible_fraction"][order] == 1
        assert numbers["nearest_image"][order] > numbers["nearest_image"]["real"] == 0
    assert numbers["log_prob"]["shuffled"] < likely - 5
    example = found.examples[0]
    np.testing.assert_allclose(example.mix[[0, -1]], example.real[[0, -1]], atol=1e-6)
    for images in example.walks.values():
        np.testing.assert_allclose(images[0], example.real[0], atol=1e-2)


# Probe


def coded_rows(episodes=10, rows=80):
    """A latent that encodes x linearly, and in pairs of variables a y that is not linear in it."""
    rng = np.random.default_rng(0)
    count = episodes * rows
    classes = rng.integers(0, [SIZE, SIZE, SIZE, 2, 2], (count, 5))
    x = classes[:, :3] @ np.array([16, 4, 1.0])
    y = 20.0 * (classes[:, 3] ^ classes[:, 4])
    onehot = np.eye(SIZE)[classes].reshape(count, -1)
    return onehot, np.stack([x, y], -1), np.repeat(np.arange(episodes), rows)


def test_probes_read_what_is_linear_linearly_and_the_rest_with_layers():
    onehot, targets, episode = coded_rows()
    noise = np.random.default_rng(1).normal(size=(len(onehot), 2))
    split = probe.split_by_episode(episode, seed=0)
    errors = probe.probe(
        {"code": onehot, "noise": noise}, targets, split, seed=0, show=lambda text: None
    )
    mean = errors["mean"]["mean"]
    assert mean[0] > 10 and mean[1] == pytest.approx(10, abs=0.5)
    assert errors["code"]["linear"][0] < 0.05 * mean[0]
    assert errors["code"]["linear"][1] > 0.9 * mean[1]
    assert errors["code"]["mlp"][1] < 0.2 * mean[1]
    assert (errors["noise"]["linear"] > 0.9 * mean).all()


def test_the_deep_probe_is_that_of_its_best_epoch(monkeypatch):
    onehot, targets, episode = coded_rows(rows=20)
    errors, seen = iter([3.0, 1.0] + 100 * [2.0]), []

    def validate(model, x, y, split):
        seen.append(model.predict(x))
        return next(errors)

    monkeypatch.setattr(probe, "_validation_error", validate)
    split = probe.split_by_episode(episode, seed=0)
    predict = probe.fit_mlp(onehot, targets, split, 0, show=print)
    np.testing.assert_array_equal(predict(onehot), seen[1])
    assert len(seen) < 20


def test_no_episode_is_twice_in_a_split():
    episode = np.repeat(np.arange(10), 30)
    split = probe.split_by_episode(episode, seed=0)
    parts = [set(episode[part]) for part in split]
    assert [len(part) for part in parts] == [5, 2, 3]
    assert len(set.union(*parts)) == 10
    assert probe.split_by_episode(episode[:60], seed=0) is None
    assert probe.split_by_episode(episode[::10], seed=0) is None


def test_velocities_and_rows_without_a_ball():
    x = [50, 53, 56, 110, 120, 117, 60, 62, 64]
    y = [90, 92, 94, 0, 15, 16, 80, 82, 84]
    episode = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1])
    ram = np.zeros((9, 128), np.uint8)
    ram[:, 99], ram[:, 101], ram[:, 72] = x, y, 7
    variables, valid = probe.game_variables(ram, episode, "breakout", action_repeat=4)
    # Invalid: first rows of episodes, no ball, a ball that has just come, a jump to a new ball.
    np.testing.assert_array_equal(np.flatnonzero(valid), [1, 2, 5, 8])
    np.testing.assert_array_equal(variables["ball_vx"][valid], [3, 3, -3, 2])
    np.testing.assert_array_equal(variables["ball_vy"][valid], [2, 2, 1, 2])
    np.testing.assert_array_equal(variables["ball_x"], x)
    assert list(variables) == ["ball_x", "ball_y", "paddle_x", "ball_vx", "ball_vy"]


# The words of the report


def test_numbers_of_the_report_are_whole_and_what_is_not_known_is_said(tmp_path):
    run = {"task": "maze", "features": "full", "deter": 8, "variables": 1, "classes": 6}
    run |= {"agent_steps": 9, "env_frames": 9, "action_repeat": 1, "rows": 4, "episodes": 1}
    run |= {"mean_return": 12345.0, "episodes_cut": 0}
    classes = np.array([[0], [0], [1], [3]])
    found = usage.measure(classes, 6)
    used = usage.summarize(found, found, classes)
    written.write(tmp_path, run, {"usage": used})
    text = (tmp_path / "report.md").read_text()
    assert "mean return 12,345 |" in text
    assert "of at most 2.58 bits" in text and "**50 % of the\ncells were never on**" in text
    # One class in use: there is nothing to swap.
    counts = np.array([[5, 0, 0, 0]] * 3)
    result = sweep.sweep(decode_pixel, respond_pixel, states([[0, 0, 0]]), counts)
    text = written.sweep(run, sweep.summarize(result, counts) | HALVES)
    assert "**- of all swaps to a class in use" in text and "probability" not in text


# The agent


def test_prior_is_that_of_the_model_and_starts_over_where_an_episode_does():
    agent = tiny.agent()
    model = LatentModel(agent)
    data = agent.wm.preprocess(tiny.tensors(tiny.batch(agent, steps=2)))
    embed = agent.wm.encoder(data)
    post, prior = agent.wm.rssm.observe(embed, data["action"], data["is_first"], None, Modes())
    classes, deter = np.argmax(post["stoch"], -1).astype(np.int32), post["deter"].numpy()
    for last, step, is_first in ((0, 1, False), (1, 0, True)):
        before = Latents(classes[:, last], deter[:, last])
        found = model.prior(before, data["action"][:, step].numpy(), np.full(2, is_first), seed=0)
        expected = tf.nn.log_softmax(prior["logit"][:, step])
        np.testing.assert_allclose(found.log_probs, expected, atol=1e-5)
        assert found.classes.shape == (2, 3) and found.classes.max() < 3


def test_recorded_rows_follow_from_each_other():
    class Spy(LatentModel):
        def prior(self, before, action, is_first, seed):
            self.seen = before, action, is_first
            return super().prior(before, action, is_first, seed)

    config = tiny.config(task="atari_pong", action_repeat=4, time_limit=12)
    env = configured_env(config, "eval", 0)
    model = Spy(tiny.agent(env.obs_space, env.act_space, encoder__mlp_keys="^$"))
    recording = collect(
        model, lambda seed: configured_env(config, "eval", seed), 3, 30, 0, lambda text: None
    )
    np.testing.assert_array_equal(np.bincount(recording.episode), [10, 10, 10])
    before, action, is_first = model.seen
    np.testing.assert_array_equal(np.flatnonzero(is_first), [0, 10, 20])
    keep = np.float32(~is_first)[:, None]
    state = {
        "stoch": tf.one_hot(before.classes, 3) * keep[..., None],
        "deter": before.deter * keep,
    }
    after = model.agent.wm.rssm.img_step(state, action * keep, Modes())
    np.testing.assert_allclose(recording.latents.deter, after["deter"], atol=1e-5)
    assert np.ptp(recording.latents.deter, 0).max() > 1e-3
    sure = recording.most_likely == recording.latents.classes
    assert 0.3 < sure.mean() < 1  # the classes that were drawn are not always the likeliest
    assert recording.images.shape == (30, 64, 64, 1) and recording.ram.shape == (30, 128)


@pytest.mark.parametrize("features, same", [("discrete", True), ("full", False)])
def test_heads_of_a_discretized_agent_do_not_see_deter(features, same):
    agent = tiny.agent({"image": tiny.IMAGE}, features=features)
    model = LatentModel(agent)
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, (4, 3)).astype(np.int32)
    one, other = (Latents(classes, rng.normal(size=(4, 8)).astype(np.float32)) for _ in "ab")
    assert np.array_equal(model.decode(one), model.decode(other)) == same
    for a, b in zip(model.respond(one), model.respond(other), strict=True):
        assert np.array_equal(a, b) == same


def test_a_long_fit_says_how_far_it_is(monkeypatch):
    monkeypatch.setattr(probe, "SAY_EVERY", 0.0)
    rng, lines = np.random.default_rng(0), list[str]()
    x, episode = np.float32(rng.normal(size=(200, 3))), np.repeat(np.arange(5), 40)
    split = probe.split_by_episode(episode, seed=0)
    probe.probe({"x": x}, x[:, :2], split, 0, lines.append)
    assert lines[0] == "probe x linear: done" and lines[-1] == "probe x mlp: done"
    assert lines[1].startswith("probe x mlp: epoch 1 of at most 100, validation error ")


def test_a_probe_takes_all_rows_or_as_many_as_it_can_evenly_spread(monkeypatch):
    assert np.array_equal(probe.thinned(np.arange(7, 6_007)), np.arange(7, 6_007))
    monkeypatch.setattr(probe, "MAX_ROWS", 100)
    rows = probe.thinned(np.arange(1_000))
    assert len(rows) == 100 and (rows[0], rows[-1]) == (0, 999)
    assert set(np.diff(rows)) == {10, 11}


# The command


def write_checkpoint(logdir, *names, **overrides):
    """An untrained agent as a run would save it."""
    config = blocks.make_config(names, overrides)
    env = configured_env(config, "eval", 0)
    agent = Agent(config, env.obs_space, env.act_space)
    meta = snapshot.agent_meta(4, 0, config, env.obs_space, env.act_space, env.action_names)
    arrays = snapshot.under("agent", agent.state_dict())
    Checkpoints(logdir / "checkpoints", keep=1).save(4, arrays, meta)


def fails(capsys, *argv):
    """The line on stderr of a command that must end with exit code 2."""
    with pytest.raises(SystemExit) as stopped:
        latents.main([str(word) for word in argv])
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The folder that the command leaves for an untrained `debug` agent of both kinds of parts."""
    logdir = tmp_path_factory.mktemp("pong")
    write_checkpoint(logdir, "atari", "debug", "discretized", task="atari_pong")
    assert latents.main(["--logdir", str(logdir), "--episodes", "4", "--steps", "320"]) == 0
    return logdir / "latents"


def test_all_sections_end_in_one_report(report):
    numbers = json.loads((report / "report.json").read_text())
    assert numbers["run"]["env_frames"] == 16 and numbers["run"]["features"] == "discrete"
    assert list(numbers) == ["run", *SECTIONS]
    assert 0 <= numbers["usage"]["never_used_fraction"] <= 1
    assert len(numbers["usage"]["entropy_bits"]) == 4
    assert len(numbers["sweep"]["pixel_change"]) == 4
    assert -1 <= numbers["interpolate"]["rank_correlation"] <= 1
    errors = numbers["probe"]["errors"]
    assert list(errors) == ["mean", "discrete", "deter", "full", "pixels"]
    assert list(errors["pixels"]["mlp"]) == numbers["probe"]["variables"]
    assert numbers["information"]["variables"] == numbers["probe"]["variables"]
    assert len(numbers["fix"]["loss"]) == 4 and numbers["fix"]["games"] == 4
    # A random latent knows nothing of the game, the pixels do.
    mean = errors["mean"]["mean"]["own_y"]
    assert errors["pixels"]["linear"]["own_y"] < 0.7 * mean
    assert errors["discrete"]["linear"]["own_y"] > 0.7 * mean


def test_every_picture_of_the_report_is_there_and_shows_something(report):
    text = (report / "report.md").read_text()
    names = re.findall(r"!\[.*\]\((.*)\)", text)
    assert sorted(names) == sorted(
        path.name for path in report.iterdir() if path.suffix in (".png", ".gif")
    )
    for name in names:
        assert np.ptp(iio.imread(report / name)) > 100, name
    assert not re.search(r"\{\w*\}|nan|None", text)


def test_what_is_not_known_of_a_task_is_said_and_is_an_error_when_it_is_asked_for(tmp_path, capsys):
    write_checkpoint(tmp_path, "debug", task="gym_CartPole-v1", time_limit=40)
    fast = ["--logdir", tmp_path, "--episodes", "1", "--steps", "40"]
    assert "variables, which are not known of gym_CartPole-v1" in fails(capsys, *fast, "probe")
    assert "decodes images or MinAtar's board" in fails(capsys, *fast, "sweep")
    assert latents.main([str(word) for word in fast]) == 0
    text = (tmp_path / "latents" / "report.md").read_text()
    assert "## Probe\n\nNot available: " in text and "## Usage: " in text


def test_the_report_of_an_agents_file_stands_in_a_folder_of_its_name(tmp_path):
    write_checkpoint(tmp_path, "debug", task="gym_CartPole-v1", time_limit=40)
    (tmp_path / "checkpoints" / "000000000004.npz").rename(tmp_path / "pole.npz")
    words = ["usage", "--logdir", str(tmp_path / "pole.npz"), "--episodes", "1", "--steps", "40"]
    assert latents.main(words) == 0
    assert (tmp_path / "pole" / "latents" / "report.md").is_file()


def test_too_few_rows_with_a_ball_are_an_error_of_the_probe(tmp_path, capsys):
    write_checkpoint(tmp_path, "atari", "debug", task="atari_pong")
    line = fails(capsys, "--logdir", tmp_path, "--episodes", 2, "--steps", 10, "probe")
    assert "ball in play" in line


def test_gaussian_latents_are_an_error(tmp_path, capsys):
    write_checkpoint(tmp_path, "atari", "debug", **{"rssm.discrete": False})
    line = fails(capsys, "--logdir", tmp_path)
    assert line.startswith("error: rssm.discrete: got False")


@pytest.mark.parametrize(
    "argv, expected",
    [
        (
            ["usages"],
            "got 'usages', expected some of usage, sweep, interpolate, probe, ",
        ),
        (["--episodes", "0"], "argument --episodes: got 0"),
        ([], "no checkpoint here"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, argv, expected):
    assert expected in fails(capsys, "--logdir", tmp_path, *argv)


def test_a_variable_of_unequal_size_still_makes_pictures(tmp_path):
    classes = np.random.default_rng(0).integers(0, 3, (50, 5))
    result = usage.measure(classes, 7)
    figures.usage_heatmap(tmp_path / "usage.png", result, result)
    assert iio.imread(tmp_path / "usage.png").shape[2] == 4
