"""Random numbers are a function of seed and call; modes are the absence of randomness."""

import numpy as np
import tensorflow as tf

from common.nn.draws import Draws, Modes


def several(draws):
    return [
        draws.seed().numpy(),
        draws.uniform([2, 3]).numpy(),
        draws.normal([4]).numpy(),
        draws.index([50], 7).numpy(),
        draws.normal([4]).numpy(),
    ]


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others():
    first, again, other = (several(Draws([seed, 3])) for seed in (1, 1, 2))
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()


def test_every_call_draws_anew():
    draws = Draws([0, 0])
    assert (draws.normal([5]).numpy() != draws.normal([5]).numpy()).all()
    assert (draws.uniform([5]).numpy() != draws.uniform([5]).numpy()).all()
    assert (draws.seed().numpy() != draws.seed().numpy()).any()


def test_a_graph_draws_what_eager_code_draws_from_a_seed_known_at_run_time():
    graph = tf.function(lambda seed: Draws([7, seed]).normal([3]))
    for seed in (0, 1):
        np.testing.assert_array_equal(
            graph(tf.constant(seed, tf.int64)), Draws([7, seed]).normal([3])
        )


def test_the_numbers_have_the_distribution_that_they_are_named_after():
    draws = Draws([0, 1])
    uniform, normal = draws.uniform([20_000]).numpy(), draws.normal([20_000]).numpy()
    assert uniform.min() >= 0 and uniform.max() < 1
    np.testing.assert_allclose([uniform.mean(), uniform.std()], [0.5, 12**-0.5], atol=0.01)
    np.testing.assert_allclose([normal.mean(), normal.std()], [0, 1], atol=0.03)
    counts = np.bincount(draws.index([7000], 7), minlength=7)
    assert len(counts) == 7 and (abs(counts - 1000) < 150).all()


def test_modes_add_nothing_and_choose_the_first():
    modes = Modes()
    assert not modes.random and Draws([0, 0]).random
    assert not modes.normal([2, 3]).numpy().any()
    assert modes.index([4], 9).numpy().tolist() == [0, 0, 0, 0]
