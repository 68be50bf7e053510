"""Which step of an imagined sequence meets which in the losses, and who gets a gradient."""

import numpy as np
import pytest
import tensorflow as tf
import tiny

from common.nn.draws import Modes
from dreamerv2.agent.behavior import RewardNorm, Targets
from dreamerv2.agent.imagined import Imagined

H = 4  # horizon of the hand-made sequences


class FakeDist:
    """Its log-probability tells which feature met which event; its entropy is the feature."""

    def __init__(self, feat):
        self._feat = feat[..., 0]

    def log_prob(self, event):
        event = event[..., 0] if event.shape.rank > self._feat.shape.rank else event
        return 1000 * self._feat + event

    def entropy(self):
        return self._feat

    def mode(self):
        return self._feat


class FakeNetwork:
    def __call__(self, feat, draws=None):
        return FakeDist(feat)


def fake_networks(behavior):
    behavior.actor = behavior.critic = behavior.slow_critic = FakeNetwork()
    return behavior


def hand_made():
    """One sequence in which feature t is t, action t is 10 t, and so on."""
    t = np.arange(H + 1, dtype=np.float32)
    seq = {
        "feat": t[:, None, None],
        "action": 10 * t[:, None, None],
        "reward": 3 + t[:, None],
        "discount": 0.9 - 0.1 * t[:, None],
        "weight": 0.5 ** t[:, None],
    }
    seq = Imagined({key: tf.constant(value, tf.float32) for key, value in seq.items()})
    returns = tf.constant(100 * t[:H, None])
    return seq, Targets(returns=returns, slow_value=tf.constant(7 * t[:, None]))


def agent(act_space=None, **settings):
    return tiny.agent(act_space=act_space, **settings)


# Alignment


def test_an_action_meets_the_feature_that_it_was_drawn_at_and_the_return_that_followed():
    behavior = fake_networks(agent(actor_grad="reinforce", actor_ent=0.0).behavior)
    seq, targets = hand_made()
    loss, _ = behavior.actor_loss(seq, targets, tf.constant(0), Modes())
    expected = []
    for t in range(H - 1):  # the action drawn at feature t is row t + 1
        log_prob = 1000 * t + 10 * (t + 1)
        advantage = 100 * (t + 1) - 7 * t
        expected.append(0.5**t * log_prob * advantage)
    np.testing.assert_allclose(loss, -np.mean(expected), rtol=1e-6)


def test_the_entropy_is_weighted_by_its_schedule_and_the_reach_of_its_step():
    behavior = fake_networks(agent(actor_grad="dynamics", actor_ent="linear(0,1,100)").behavior)
    seq, targets = hand_made()
    loss, metrics = behavior.actor_loss(seq, targets, tf.constant(25), Modes())
    expected = [0.5**t * (100 * (t + 1) + 0.25 * t) for t in range(H - 1)]
    np.testing.assert_allclose(loss, -np.mean(expected), rtol=1e-6)
    np.testing.assert_allclose(metrics["actor_ent_scale"], 0.25)
    np.testing.assert_allclose(metrics["actor_ent"], np.mean(range(H - 1)))


def test_both_mixes_returns_and_log_probabilities():
    settings = {"actor_grad": "both", "actor_grad_mix": "linear(0.2,1,80)", "actor_ent": 0.0}
    behavior = fake_networks(agent(**settings).behavior)
    seq, targets = hand_made()
    loss, metrics = behavior.actor_loss(seq, targets, tf.constant(10), Modes())
    expected = []
    for t in range(H - 1):
        reinforce = (1000 * t + 10 * (t + 1)) * (100 * (t + 1) - 7 * t)
        expected.append(0.5**t * (0.3 * 100 * (t + 1) + 0.7 * reinforce))
    np.testing.assert_allclose(loss, -np.mean(expected), rtol=1e-6)
    np.testing.assert_allclose(metrics["actor_grad_mix"], 0.3)


def test_the_critic_learns_the_return_of_its_own_step():
    behavior = fake_networks(agent().behavior)
    seq, targets = hand_made()
    loss, metrics = behavior.critic_loss(seq, targets)
    expected = [0.5**t * (1000 * t + 100 * t) for t in range(H)]
    np.testing.assert_allclose(loss, -np.mean(expected), rtol=1e-6)
    np.testing.assert_allclose(metrics["critic"], np.mean(range(H)))


def test_returns_take_rewards_on_arrival_and_bootstrap_from_the_last_slow_value():
    behavior = fake_networks(agent(discount_lambda=0.75).behavior)
    seq, _ = hand_made()
    found = behavior.targets(seq)
    expected, following = np.zeros(H), float(H)  # the slow value of the last feature
    for t in reversed(range(H)):
        value = t + 1
        discount = 0.9 - 0.1 * t
        following = (3 + t) + discount * (0.25 * value + 0.75 * following)
        expected[t] = following
    np.testing.assert_allclose(found.returns[:, 0], expected, rtol=1e-5)
    np.testing.assert_array_equal(found.slow_value[:, 0], np.arange(H + 1))


def test_the_advantage_is_reported():
    behavior = fake_networks(agent(actor_grad="reinforce").behavior)
    _, metrics = behavior.actor_loss(*hand_made(), tf.constant(0), Modes())
    advantage = [100 * (t + 1) - 7 * t for t in range(H - 1)]
    np.testing.assert_allclose(metrics["advantage_mean"], np.mean(advantage))
    np.testing.assert_allclose(metrics["advantage_std"], np.std(advantage))


def test_the_terms_of_the_actor_loss_sum_to_it_and_are_what_they_are_called():
    behavior = fake_networks(agent(actor_grad="reinforce", actor_ent=0.25).behavior)
    seq, targets = hand_made()
    loss, metrics = behavior.actor_loss(seq, targets, tf.constant(0), Modes())
    names = ("actor_loss_advantage", "actor_loss_covariance", "actor_loss_entropy")
    np.testing.assert_allclose(sum(metrics[name] for name in names), loss, rtol=1e-5)
    t = np.arange(H - 1)
    weight, log_prob, advantage = 0.5**t, 1000 * t + 10 * (t + 1), 100 * (t + 1) - 7 * t
    covariance = np.cov(log_prob, advantage, aweights=weight, bias=True)[0, 1]
    np.testing.assert_allclose(metrics[names[1]], -weight.mean() * covariance, rtol=1e-5)
    means = [np.average(x, weights=weight) for x in (log_prob, advantage)]
    np.testing.assert_allclose(metrics[names[0]], -weight.mean() * np.prod(means), rtol=1e-5)
    np.testing.assert_allclose(metrics[names[2]], -0.25 * np.mean(weight * t), rtol=1e-5)


@pytest.mark.parametrize(
    "act_space, of_uniform",
    [(None, np.log(4)), (tiny.ACTION, 2 * np.log(2))],
    ids=["discrete", "continuous"],
)
def test_the_entropy_is_reported_as_a_fraction_of_the_uniform_distributions(act_space, of_uniform):
    behavior = fake_networks(agent(act_space, actor_grad="reinforce").behavior)
    _, metrics = behavior.actor_loss(*hand_made(), tf.constant(0), Modes())
    np.testing.assert_allclose(metrics["actor_ent_fraction"], 1 / of_uniform, rtol=1e-6)


# Gradients


def actor_gradients(actor_grad, act_space=None, **settings):
    """Whether the actor, the actions and the returns get a gradient of the actor's loss."""
    tested = agent(act_space, actor_grad=actor_grad, actor_ent=0.0, **settings)
    rng, size = np.random.default_rng(0), tested.act_space.shape[0]
    feat = tf.constant(rng.normal(size=(H + 1, 2, tested.wm.feat_size)), tf.float32)
    action = rng.uniform(-0.9, 0.9, (H + 1, 2, size))
    if act_space is None:
        action = np.eye(size)[rng.integers(0, size, (H + 1, 2))]
    action = tf.constant(action, tf.float32)
    returns, slow = (tf.constant(rng.normal(size=(n, 2)), tf.float32) for n in (H, H + 1))
    seq = Imagined({"feat": feat, "action": action, "weight": tf.ones([H + 1, 2])})
    sources = {
        "actor": tested.behavior.actor.layers["dense0"].kernel,
        "feat": feat,
        "action": action,
        "returns": returns,
        "slow_value": slow,
    }
    with tf.GradientTape() as tape:
        tape.watch([feat, action, returns, slow])
        targets = Targets(returns=returns, slow_value=slow)
        loss, _ = tested.behavior.actor_loss(seq, targets, tf.constant(0), Modes())
    found = tape.gradient(loss, sources, unconnected_gradients="zero")
    return {name for name, gradient in found.items() if np.any(gradient)}


@pytest.mark.parametrize(
    "actor_grad, act_space, expected",
    [
        ("reinforce", None, {"actor"}),
        ("reinforce", tiny.ACTION, {"actor"}),
        ("dynamics", None, {"returns"}),
        ("dynamics", tiny.ACTION, {"returns"}),
        # A one-hot log-probability stops the gradient to its argument, a continuous one does not.
        ("both", None, {"actor", "returns"}),
        ("both", tiny.ACTION, {"actor", "returns", "action"}),
    ],
)
def test_who_gets_a_gradient_of_the_actors_loss(actor_grad, act_space, expected):
    assert actor_gradients(actor_grad, act_space) == expected


def test_the_entropy_gives_the_actor_a_gradient_in_every_case():
    tested = agent(actor_grad="dynamics", actor_ent=1.0)
    feat = tf.random.normal([H + 1, 2, tested.wm.feat_size])
    weight = tf.ones([H + 1, 2])
    seq = Imagined({"feat": feat, "action": tf.zeros([H + 1, 2, 4]), "weight": weight})
    targets = Targets(returns=tf.zeros([H, 2]), slow_value=tf.zeros([H + 1, 2]))
    with tf.GradientTape() as tape:
        loss, _ = tested.behavior.actor_loss(seq, targets, tf.constant(0), Modes())
    assert np.any(tape.gradient(loss, tested.behavior.actor.layers["dense0"].kernel))


def test_the_critics_loss_teaches_the_critic_alone():
    tested = agent()
    feat = tf.random.normal([H + 1, 2, tested.wm.feat_size])
    returns, weight = tf.random.normal([H, 2]), tf.ones([H + 1, 2])
    targets = Targets(returns=returns, slow_value=tf.zeros([H + 1, 2]))
    with tf.GradientTape() as tape:
        tape.watch([feat, returns, weight])
        loss, _ = tested.behavior.critic_loss(Imagined({"feat": feat, "weight": weight}), targets)
    kernel = tested.behavior.critic.layers["dense0"].kernel
    found = tape.gradient(loss, [kernel, feat, returns, weight], unconnected_gradients="zero")
    assert [bool(np.any(gradient)) for gradient in found] == [True, False, False, False]


def test_auto_is_reinforce_for_discrete_actions_and_dynamics_for_continuous():
    discrete, continuous = agent().behavior, agent(tiny.ACTION).behavior
    assert (discrete.actor_grad, discrete.needs_dynamics) == ("reinforce", False)
    assert (continuous.actor_grad, continuous.needs_dynamics) == ("dynamics", True)
    assert agent(actor_grad="both").behavior.needs_dynamics
    feat = tf.zeros([1, discrete.actor.layers["dense0"].kernel.shape[0]])
    assert type(discrete.actor(feat, Modes())).__name__ == "OneHot"
    assert type(continuous.actor(feat, Modes())).__name__ == "ClippedTruncatedNormal"


# Slow critic


def test_the_slow_critic_is_copied_at_first_and_mixed_in_on_time():
    behavior = agent(slow_target_update=3, slow_target_fraction=0.25).behavior
    update = tf.function(behavior.update_slow_critic)
    critic, slow = (list(part.variables) for part in (behavior.critic, behavior.slow_critic))
    for variable in slow:
        variable.assign(tf.fill(variable.shape, 99.0))
    expected = None
    for i in range(8):
        for variable in critic:
            variable.assign(tf.fill(variable.shape, float(i)))
        update()
        if i == 0:
            expected = 0.0
        elif i % 3 == 0:
            expected = 0.25 * i + 0.75 * expected
        for variable in slow:
            np.testing.assert_allclose(variable, np.full(variable.shape, expected), err_msg=str(i))
    assert expected == 0.25 * 6 + 0.75 * 0.75 and behavior.slow_updates == 8


def test_without_a_slow_critic_the_critic_itself_serves():
    behavior = agent(slow_target=False).behavior
    behavior.update_slow_critic()
    assert not [name for name in behavior.named_variables() if "slow" in name]
    seq, _ = hand_made()
    seq["feat"] = tf.random.normal([H + 1, 1, 17])
    expected = behavior.critic(seq["feat"]).mode()
    np.testing.assert_array_equal(behavior.targets(seq).slow_value, expected)


# Reward normalisation


def test_rewards_are_divided_by_a_running_magnitude_that_they_update_first():
    norm = RewardNorm(momentum=0.75, scale=2.0, eps=0.5)
    found = norm(tf.constant([3.0, -5.0]))
    magnitude = 0.75 * 1 + 0.25 * 4
    np.testing.assert_allclose(norm.mag, magnitude)
    np.testing.assert_allclose(found, 2 * np.array([3, -5]) / (magnitude + 0.5), rtol=1e-6)
    norm(tf.constant([0.0, 0.0]))
    np.testing.assert_allclose(norm.mag, 0.75 * magnitude)
    assert norm.mag.dtype == tf.float64 and found.dtype == tf.float32


def test_momentum_one_leaves_the_magnitude_at_one():
    norm = RewardNorm(momentum=1.0, scale=3.0, eps=0.0)
    np.testing.assert_allclose(norm(tf.constant([5.0, -2.0])), [15, -6])
    assert norm.mag == 1


def test_rewards_pass_their_gradient_through_the_normalisation():
    norm, reward = RewardNorm(momentum=0.5, scale=1.0, eps=0.0), tf.constant([2.0, 4.0])
    with tf.GradientTape() as tape:
        tape.watch(reward)
        normed = norm(reward)
    np.testing.assert_allclose(tape.gradient(normed, reward), [0.5, 0.5])  # 1 / (0.5 + 0.5 * 3)
