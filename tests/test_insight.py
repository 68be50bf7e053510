"""Open loop and dreams start where they should, on a model whose states are plain numbers."""

import numpy as np
import pytest
import tensorflow as tf

from dreamerv2.film.insight import Insight


class Countable:
    """A model whose latent is one number, to which every action adds its value; decoded as it is.

    The policy adds 100. `calls`: how many imagined steps there were.
    """

    keys = image_keys = ()

    def __init__(self):
        self.wm = self.behavior = self.rssm = self
        self.decoder = Decoder()
        self.encoder = Decoder()
        self.calls = 0

    def img_step(self, state, action, draws):
        self.calls += 1
        return {"deter": state["deter"] + action}

    def feat(self, state):
        return state["deter"]

    def actor(self, feat, draws):
        return Constant(tf.fill(feat.shape, 100.0))


class Decoder:
    keys = ["number"]
    image_keys = []

    def __call__(self, feat):
        return {"number": Constant(feat)}


class Constant:
    def __init__(self, value):
        self._value = value

    def mode(self):
        return self._value

    def sample(self, seed):
        return self._value + 1


def latents(values):
    return {"deter": np.array(values, np.float32)[:, None]}


def brute_force_open_loop(z, actions, ahead):
    starts = np.maximum(0, np.arange(len(z)) - ahead)
    return [z[start] + actions[start:t].sum() for t, start in enumerate(starts)]


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 9])
def test_open_loop_adds_the_actions_taken_since_the_row_it_starts_from(rows):
    rng = np.random.default_rng(0)
    z, actions = rng.integers(0, 1000, (2, rows)).astype(np.float32)
    forecast = Insight(Countable(), True, 0).open_loop(latents(z), actions[:, None], 3)
    np.testing.assert_array_equal(forecast.age, np.minimum(np.arange(rows), 3))
    np.testing.assert_array_equal(forecast.seen[:, 0], brute_force_open_loop(z, actions, 3))


def test_open_loop_of_all_rows_takes_as_many_steps_as_it_looks_ahead():
    model = Countable()
    Insight(model, True, 0).open_loop(latents(range(50)), np.zeros((50, 1), np.float32), 4)
    assert model.calls == 4


@pytest.mark.parametrize(("greedy", "action"), [(True, 100), (False, 101)])
def test_a_dream_sees_its_context_and_then_follows_the_policy_alone(greedy, action):
    z = np.arange(12) * 1000
    forecast = Insight(Countable(), greedy, 0).dream(latents(z), context=2, steps=3)
    assert forecast.age.tolist() == [0, 0, 1, 2, 3, 0, 0, 1, 2, 3, 0, 0]
    expected = [0, 1000, *(1000 + action * np.arange(1, 4))]
    expected += [5000, 6000, *(6000 + action * np.arange(1, 4)), 10000, 11000]
    np.testing.assert_array_equal(forecast.seen[:, 0], expected)


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_an_episode_may_end_within_a_dream(rows):
    forecast = Insight(Countable(), True, 0).dream(latents(np.zeros(rows)), context=2, steps=3)
    expected = [0, 0, 100, 200, 300, 0, 0][:rows]
    np.testing.assert_array_equal(forecast.seen[:, 0], expected)


def test_vectors_are_shown_side_by_side_and_an_image_alone():
    model = Countable()
    model.wm.decoder = Pair()
    both = Insight(model, True, 0)
    assert both.keys == ["number", "double"]
    np.testing.assert_array_equal(both.reconstruct(latents([1, 4])), [[1, 2], [4, 8]])
    model.wm.decoder.image_keys = ["double"]
    assert Insight(model, True, 0).keys == ["double"]


class Pair(Decoder):
    keys = ["number", "double"]

    def __call__(self, feat):
        return {"number": Constant(feat), "double": Constant(2 * feat)}
