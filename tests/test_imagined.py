"""What saves time in imagination computes the same, gradients included, as what does not."""

import numpy as np
import pytest
import tensorflow as tf
import tiny

from common.nn.draws import Modes
from dreamerv2.agent.imagined import Imagined, Remembered
from dreamerv2.agent.nets import MLP

VARIANTS = {
    "discrete": {},
    "continuous actions": {"act_space": tiny.ACTION},
    "Gaussian": {"rssm__discrete": False},
    "features without deter": {"features": "discrete"},
    "layer norm": {r".*\.norm": "layer"},
}


def start_of(agent):
    data = agent.wm.preprocess(tiny.tensors(tiny.batch(agent)))
    return agent.wm.loss(data, None, Modes()).post, data["is_terminal"]


@pytest.mark.parametrize("name", VARIANTS)
def test_a_behavior_learns_the_same_with_and_without_the_savings(name):
    learned = []
    for kind in (Imagined, Remembered):
        agent = tiny.agent(actor__layers=2, **VARIANTS[name])
        agent.wm.imagined = kind
        learned.append(
            agent.behavior.learn(
                agent.wm, *start_of(agent), tf.constant(0), Modes(), agent.optimizers
            )
        )
    for key in learned[0].grads:
        for plain, saved in zip(*(each.grads[key] for each in learned), strict=True):
            np.testing.assert_allclose(saved, plain, rtol=1e-3, atol=1e-5)
        assert any(np.any(grad) for grad in learned[0].grads[key])
    for key, value in learned[0].metrics.items():
        np.testing.assert_allclose(learned[1].metrics[key], value, rtol=1e-4, atol=1e-5)


def sequence(agent, **other):
    """Imagined states, plainly and remembered, the latter with some tensors changed."""
    seq = agent.wm.imagine(agent.behavior.actor, *start_of(agent), 3, Modes())
    return Imagined(seq), Remembered({**seq, **other})


@pytest.mark.parametrize("steps", [2, 4], ids=["the first steps", "all steps"])
@pytest.mark.parametrize("beside", [False, True])
def test_a_network_gives_and_learns_the_same_at_some_steps_and_with_more_inputs(steps, beside):
    agent = tiny.agent()
    plain, saved = sequence(agent)
    assert "columns" in saved, "the shortcut is taken"
    action = plain["action"][:steps] if beside else None
    inputs = agent.wm.feat_size + (4 if beside else 0)
    rng = np.random.default_rng(0)
    network = MLP(inputs, [], tiny.config().critic, tf.float32, tf.float32, rng)
    feat = plain["feat"][:steps]
    found = []
    for seq in (plain, saved):
        with tf.GradientTape() as tape:
            tape.watch(feat)
            value = seq.evaluate(network, feat, beside=action).mode()
            total = tf.reduce_sum(tf.square(value))
        found.append([value, *tape.gradient(total, [feat, *network.variables])])
    assert found[0][0].shape == (steps, 8)
    for ours, theirs in zip(*found, strict=True):
        assert np.any(theirs)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_what_is_remembered_is_what_is_read():
    agent = tiny.agent()
    columns = tf.zeros([4, 8, 3], tf.int32)
    plain, wrong = sequence(agent, columns=columns)
    values = (seq.evaluate(agent.behavior.critic, seq["feat"]).mode() for seq in (plain, wrong))
    assert (np.not_equal(*values)).any()


def test_the_policys_loss_reads_what_its_layers_gave_and_passes_the_gradient():
    agent = tiny.agent(actor__layers=2)
    actor = agent.behavior.actor
    seq = agent.wm.imagine(actor, *start_of(agent), 3, Modes())
    feat, event = seq["feat"][:-2], seq["action"][1:-1]
    before = actor(feat).log_prob(event).numpy()
    with tf.GradientTape(persistent=True) as tape:
        plain = tf.reduce_sum(actor(feat).log_prob(event))
        reused = tf.reduce_sum(seq.evaluate(actor, feat).log_prob(event))
    for name, variable in actor.named_variables().items():
        expected = tape.gradient(plain, variable)
        assert np.any(expected), name
        np.testing.assert_allclose(tape.gradient(reused, variable), expected, atol=1e-5)
    actor.layers["dense0"].bias.assign_add(tf.ones(6))
    after = seq.evaluate(actor, feat).log_prob(event)
    np.testing.assert_allclose(after, before, atol=1e-5, err_msg="not computed again")
    assert abs(actor(feat).log_prob(event) - before).numpy().max() > 1e-3
