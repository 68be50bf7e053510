"""Distributions against closed forms, and which of their arguments get a gradient."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit
from scipy.stats import truncnorm

from common.nn.dists import (
    KINDS,
    ClippedTruncatedNormal,
    Gaussian,
    OneHot,
    TanhNormal,
    make_dist,
    sample,
)
from common.nn.draws import Draws, Modes

RNG = np.random.default_rng(0)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def normal_log_prob(x, mean, std):
    return -0.5 * ((x - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)


# One-hot


def test_the_mode_is_the_class_of_the_largest_logit():
    logits = tf.constant([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]])
    np.testing.assert_array_equal(OneHot(logits).mode(), [[0, 1, 0], [1, 0, 0]])


def test_a_one_hot_sample_is_the_class_in_whose_share_of_the_unit_interval_the_number_falls():
    probs = [0.25, 0.0, 0.5, 0.25, 0.0]
    below_one = np.nextafter(np.float32(1), np.float32(0))
    for number, expected in [(0, 0), (0.24, 0), (0.26, 2), (0.74, 2), (0.76, 3), (below_one, 3)]:
        dist = OneHot(tf.math.log(tf.constant([[probs]])) - 7, event_dims=1)
        drawn = dist.sample_with(tf.constant([[number]], tf.float32))
        np.testing.assert_array_equal(drawn[0, 0], np.eye(5)[expected], f"{number}")


@pytest.mark.parametrize("noise", [None, [0.99]])
def test_the_gradient_of_a_one_hot_sample_is_that_of_the_probabilities(noise):
    logits, weights = tf.constant([[0.3, 2.0, -1.0]]), tf.constant([[1.0, -2.0, 5.0]])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        drawn = OneHot(logits).sample_with(None if noise is None else tf.constant(noise))
        through_sample = tf.reduce_sum(weights * drawn)
        through_probs = tf.reduce_sum(weights * tf.nn.softmax(logits))
    found = tape.gradient(through_sample, logits)
    assert (found.numpy() != 0).all()
    np.testing.assert_allclose(found, tape.gradient(through_probs, logits), rtol=1e-6)


def test_one_hot_samples_have_the_frequencies_of_the_probabilities():
    logits = np.log([0.5, 0.3, 0.15, 0.05])
    drawn = sample(OneHot(tf.fill([20_000, 1], 0.0) + logits), Draws([0, 0])).numpy()
    assert set(np.unique(drawn.round(6))) == {0, 1}
    np.testing.assert_allclose(drawn.mean(0), [0.5, 0.3, 0.15, 0.05], atol=0.01)


@pytest.mark.parametrize("event_dims, axes", [(0, ()), (1, (-1,))])
def test_one_hot_log_prob_entropy_and_kl(event_dims, axes):
    p_logits, q_logits = RNG.normal(size=(2, 5, 3, 4)).astype(np.float32)
    p, q = softmax(p_logits), softmax(q_logits)
    event = np.eye(4, dtype=np.float32)[RNG.integers(0, 4, (5, 3))]
    ours, other = OneHot(p_logits, event_dims), OneHot(q_logits, event_dims)
    np.testing.assert_allclose(
        ours.log_prob(event), np.log((p * event).sum(-1)).sum(axes), rtol=1e-5
    )
    np.testing.assert_allclose(ours.entropy(), -(p * np.log(p)).sum(-1).sum(axes), rtol=1e-5)
    np.testing.assert_allclose(ours.kl(other), (p * np.log(p / q)).sum(-1).sum(axes), rtol=1e-4)
    np.testing.assert_allclose(ours.kl(ours), np.zeros((5, 3)).sum(axes), atol=1e-6)


def test_one_hot_log_prob_passes_its_gradient_to_the_logits_alone():
    logits, event = tf.constant([[0.3, 2.0, -1.0]]), tf.constant([[0.0, 1.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch([logits, event])
        log_prob = OneHot(logits).log_prob(event)
    to_logits, to_event = tape.gradient(log_prob, [logits, event])
    np.testing.assert_allclose(to_logits, event - softmax(logits.numpy()), rtol=1e-5)
    assert to_event is None


# Continuous


def test_gaussian_samples_log_prob_entropy_and_kl():
    mean, other_mean = RNG.normal(size=(2, 5, 3)).astype(np.float32)
    std, other_std = RNG.uniform(0.5, 2, size=(2, 5, 3)).astype(np.float32)
    ours, other = Gaussian(mean, std), Gaussian(other_mean, other_std)
    noise = RNG.normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_allclose(ours.mode(), mean)
    np.testing.assert_allclose(ours.sample_with(None), mean)
    np.testing.assert_allclose(ours.sample_with(noise), mean + std * noise, rtol=1e-6)
    log_prob = normal_log_prob(noise, mean, std).sum(-1)
    np.testing.assert_allclose(ours.log_prob(noise), log_prob, rtol=1e-5)
    entropy = (0.5 * np.log(2 * np.pi * np.e) + np.log(std)).sum(-1)
    np.testing.assert_allclose(ours.entropy(), entropy, rtol=1e-5)
    ratio = (std / other_std) ** 2
    kl = 0.5 * (ratio - 1 - np.log(ratio) + ((mean - other_mean) / other_std) ** 2).sum(-1)
    np.testing.assert_allclose(ours.kl(other), kl, rtol=1e-4)


def test_gaussian_samples_pass_gradients_to_mean_and_std():
    mean, std = tf.constant([[1.0, 2.0]]), tf.constant([[0.5, 0.25]])
    noise = tf.constant([[3.0, -4.0]])
    with tf.GradientTape() as tape:
        tape.watch([mean, std])
        drawn = Gaussian(mean, std).sample_with(noise)
    to_mean, to_std = tape.gradient(drawn, [mean, std])
    np.testing.assert_array_equal(to_mean, [[1, 1]])
    np.testing.assert_array_equal(to_std, noise)


def test_truncated_samples_stay_inside_and_keep_their_gradient():
    mean = tf.fill([1000, 2], 0.999)
    dist = ClippedTruncatedNormal(mean, tf.ones_like(mean), margin=0.01)
    drawn = dist.sample(Draws([0, 0]).seed())
    assert abs(drawn.numpy()).max() <= 0.99 + 1e-6 and drawn.numpy().std() > 0.3
    with tf.GradientTape() as tape:
        tape.watch(mean)
        mode = ClippedTruncatedNormal(mean, tf.ones_like(mean), margin=0.01).mode()
    np.testing.assert_allclose(mode, np.full((1000, 2), 0.99), rtol=1e-6)
    np.testing.assert_array_equal(tape.gradient(mode, mean), np.ones((1000, 2)))


def test_a_truncated_normal_is_that_of_scipy():
    mean, std = np.float32([[0.7, -0.2, 0.0]]), np.float32([[0.4, 1.0, 3.0]])
    dist = ClippedTruncatedNormal(mean, std)
    reference = truncnorm((-1 - mean) / std, (1 - mean) / std, mean, std)
    for event in np.float32([[[0.9, -0.9, 0.3]], [[-0.5, 0.0, 0.99]]]):
        expected = reference.logpdf(event).sum(-1)
        np.testing.assert_allclose(dist.log_prob(event), expected, rtol=1e-4)
    np.testing.assert_allclose(dist.entropy(), reference.entropy().sum(-1), rtol=1e-3)
    many = ClippedTruncatedNormal(np.tile(mean, [20_000, 1]), np.tile(std, [20_000, 1]))
    drawn = many.sample(Draws([0, 0]).seed()).numpy()
    for statistic in (np.mean, np.std):
        expected = {np.mean: reference.mean, np.std: reference.std}[statistic]()[0]
        np.testing.assert_allclose(statistic(drawn, 0), expected, atol=0.01)


def test_a_squashed_normal_has_density_one_in_total_and_the_entropy_of_it():
    dist = TanhNormal(tf.constant([[0.4]]), tf.constant([[0.6]]), Draws([0, 0]), samples=20_000)
    grid = np.linspace(-1, 1, 20_001)[1:-1]
    log_prob = np.asarray(dist.log_prob(tf.constant(grid[:, None], tf.float32)))
    spacing = grid[1] - grid[0]
    np.testing.assert_allclose(np.exp(log_prob).sum() * spacing, 1, rtol=1e-3)
    entropy = -(np.exp(log_prob) * log_prob).sum() * spacing
    np.testing.assert_allclose(dist.entropy(), [entropy], atol=0.02)
    most_likely = grid[log_prob.argmax()]
    np.testing.assert_allclose(dist.mode(), [[most_likely]], atol=0.02)
    drawn = TanhNormal(tf.fill([5000, 1], 0.4), tf.fill([5000, 1], 0.6), None).sample([1, 2])
    mean = (np.exp(log_prob) * grid).sum() * spacing
    np.testing.assert_allclose(np.mean(drawn), mean, atol=0.02)


def test_a_squashed_normal_is_finite_at_its_ends():
    dist = TanhNormal(tf.zeros([1, 2]), tf.ones([1, 2]), None)
    assert np.isfinite(dist.log_prob(tf.constant([[1.0, -1.0]]))).all()


# Heads


def test_each_kind_reads_its_parameters_as_item_22_says():
    out, std = np.float32([[0.5, -2.0]]), np.float32([[0.3, -0.7]])
    event = np.float32([[0.2, -0.4]])

    def found(kind):
        return make_dist(kind, tf.constant(out), tf.constant(std), 1, Modes(), 0.1)

    def softplus(x):
        return np.log1p(np.exp(x))

    mse = normal_log_prob(event, out, 1).sum(-1)
    np.testing.assert_allclose(found("mse").log_prob(event), mse, rtol=1e-5)
    np.testing.assert_allclose(found("mse").mode(), out)
    wide = softplus(std) + 0.1
    normal = normal_log_prob(event, out, wide).sum(-1)
    np.testing.assert_allclose(found("normal").log_prob(event), normal, rtol=1e-5)
    mean = 5 * np.tanh(out / 5)
    squashed = normal_log_prob(np.arctanh(event), mean, wide) - np.log(1 - event**2)
    np.testing.assert_allclose(found("tanh_normal").log_prob(event), squashed.sum(-1), rtol=1e-4)
    np.testing.assert_allclose(found("tanh_normal").mode(), np.tanh(mean), rtol=1e-6)
    loc, scale = np.tanh(out), 2 * expit(std / 2) + 0.1
    truncated = truncnorm((-1 - loc) / scale, (1 - loc) / scale, loc, scale).logpdf(event)
    np.testing.assert_allclose(found("trunc_normal").log_prob(event), truncated.sum(-1), rtol=1e-4)
    np.testing.assert_allclose(found("trunc_normal").mode(), np.tanh(out), rtol=1e-6)
    np.testing.assert_array_equal(found("onehot").mode(), [[1, 0]])


def test_a_binary_head_takes_a_soft_target():
    logit, target = np.float32([0.3, -2.0]), np.float32([0.997, 0.0])
    dist = make_dist("binary", tf.constant(logit), None, 0, None, 0.1)
    p = 1 / (1 + np.exp(-logit))
    np.testing.assert_allclose(dist.mean(), p, rtol=1e-6)
    cross_entropy = target * np.log(p) + (1 - target) * np.log(1 - p)
    np.testing.assert_allclose(dist.log_prob(target), cross_entropy, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_distributions_are_float32_whatever_the_network_computes_in(kind):
    half = tf.constant([[0.5, -0.25]], tf.float16)
    dist = make_dist(kind, half, half, 1, Modes(), 0.1)
    mode = dist.mode()
    assert mode.dtype == tf.float32
    assert dist.log_prob(mode).dtype == tf.float32
    assert dist.entropy().dtype == tf.float32


@pytest.mark.parametrize("kind", KINDS)
def test_modes_replace_every_draw(kind):
    out = tf.constant(RNG.normal(size=(50, 3)), tf.float32)

    def dist(draws):
        return make_dist(kind, out, out, 1, draws, 0.1)

    np.testing.assert_array_equal(sample(dist(Modes()), Modes()), dist(Modes()).mode())
    draws = Draws([0, 0])
    drawn, again = sample(dist(draws), draws).numpy(), sample(dist(draws), draws).numpy()
    assert (drawn != dist(Modes()).mode().numpy()).any()
    assert (drawn != again).any()


def test_an_unknown_kind_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="got 'cauchy', expected one of mse, binary"):
        make_dist("cauchy", tf.zeros([1, 2]), None, 1, None, 0.1)
