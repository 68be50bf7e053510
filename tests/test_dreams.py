"""Dreams after an episode: what they depend on, and that they are compiled once."""

import numpy as np
import pytest
import tensorflow as tf
import tiny

from common.nn.draws import Modes
from dreamerv2.agent import dreams

IMAGE = {"image": tiny.IMAGE}


def rows(agent, count, seed=0):
    """The first rows of an episode, as arrays `[count, ...]`."""
    return {k: v[0] for k, v in tiny.batch(agent, steps=count, seed=seed).items()}


def test_a_dream_follows_from_what_was_seen():
    agent = tiny.agent(IMAGE)
    first, again = (agent.dream(rows(agent, 4), 3) for _ in range(2))
    assert first.shape == (3, 64, 64, 1) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    arrays = rows(agent, 4)
    seen = [{key: value[t] for key, value in arrays.items()} for t in range(4)]
    np.testing.assert_array_equal(agent.dream(seen, 3), first)
    np.testing.assert_array_equal(agent.dream(rows(agent, 4), 2), first[:2])


def test_a_dream_is_what_the_model_expects_under_the_actor(monkeypatch):
    monkeypatch.setattr(dreams, "Draws", lambda seed: Modes())
    agent = tiny.agent(IMAGE)
    wm, seen = agent.wm, rows(agent, 4)
    data = wm.normalize({k: tf.constant(v)[None] for k, v in seen.items()})
    post, _ = wm.rssm.observe(wm.encoder(data), data["action"], data["is_first"], None, Modes())
    last = {k: v[:, -1:] for k, v in post.items()}
    seq = wm.imagine(agent.behavior.actor, last, tf.zeros([1, 1], bool), 5, Modes())
    expected = dreams.decode(wm, seq["feat"][1:, 0], "image")
    difference = agent.dream(seen, 5).astype(int) - expected
    assert abs(difference).max() <= 1, "of 255, by rounding"


def test_dreams_of_any_length_after_any_length_are_traced_twice_at_most():
    agent = tiny.agent(IMAGE, jit=True)
    for count, steps in ((3, 2), (5, 4), (7, 1), (4, 6)):
        agent.dream(rows(agent, count), steps)
    dreamer = agent._dreamer
    assert dreamer._observe.experimental_get_tracing_count() <= 2
    assert dreamer._step.experimental_get_tracing_count() <= 2


@pytest.mark.parametrize(
    "obs, steps, drop, match",
    [
        (None, 3, "", "predicts no image"),
        (IMAGE, 0, "", "got 0 steps, expected at least 1"),
        (IMAGE, 3, "image", "observations without 'image'"),
        (IMAGE, 3, "action", "observations without 'action'"),
    ],
)
def test_what_cannot_be_dreamed_is_said(obs, steps, drop, match):
    agent = tiny.agent(obs)
    seen = {k: v for k, v in rows(agent, 3).items() if k != drop}
    with pytest.raises(ValueError, match=match):
        agent.dream(seen, steps)
