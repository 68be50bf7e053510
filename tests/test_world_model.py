"""What the world model's loss is made of, and what an imagined step means."""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
import tiny

from common.nn import dists
from common.nn.draws import Draws, Modes
from dreamerv2.agent.world_model import latent_usage

OBS = {"image": tiny.IMAGE, "vector": tiny.VECTOR}


def prepared(agent, **settings):
    return agent.wm.preprocess(tiny.tensors(tiny.batch(agent, **settings)))


def loss_of(agent, data=None):
    return agent.wm.loss(prepared(agent) if data is None else data, None, Modes())


def gradients(agent, function):
    """Largest gradient of `function(data)` by name; 0 where none arrives."""
    data, named = prepared(agent), agent.wm.named_variables()
    with tf.GradientTape() as tape:
        value = function(data)
    found = tape.gradient(value, named, unconnected_gradients="zero")
    return {name: float(tf.reduce_max(abs(gradient))) for name, gradient in found.items()}


# Preprocessing


def test_rows_are_normalised_as_item_8_says():
    agent = tiny.agent(OBS, discount=0.9, clip_rewards="tanh")
    rows = {
        "image": tf.constant([[[0, 51, 255]]], tf.uint8),
        "vector": tf.constant([[2.0]], tf.float64),
        "reward": tf.constant([0.5, -3.0]),
        "is_terminal": tf.constant([False, True]),
        "is_first": tf.constant([True, False]),
    }
    data = agent.wm.preprocess(rows)
    np.testing.assert_allclose(data["image"], [[[-0.5, -0.3, 0.5]]], atol=1e-6)
    np.testing.assert_allclose(data["reward"], np.tanh([0.5, -3]), rtol=1e-6)
    np.testing.assert_allclose(data["discount"], [0.9, 0])
    assert data["vector"].dtype == tf.float32 and data["is_first"].dtype == tf.bool


@pytest.mark.parametrize(
    "clip, expected", [("identity", [0.5, -3, 0]), ("sign", [1, -1, 0]), ("tanh", None)]
)
def test_rewards_are_clipped(clip, expected):
    reward = np.float32([0.5, -3, 0])
    expected = np.tanh(reward) if expected is None else expected
    agent = tiny.agent(clip_rewards=clip)
    data = prepared(agent) | {"reward": tf.constant(reward), "is_terminal": tf.zeros(3, bool)}
    np.testing.assert_allclose(agent.wm.preprocess(data)["reward"], expected, rtol=1e-6)


@pytest.mark.parametrize("precision, dtype", [(16, tf.float16), (32, tf.float32)])
def test_images_have_the_compute_dtype_and_rewards_float32(precision, dtype):
    data = prepared(tiny.agent(OBS, precision=precision))
    assert data["image"].dtype == dtype
    assert data["reward"].dtype == data["discount"].dtype == data["vector"].dtype == tf.float32


# The loss


@pytest.mark.parametrize("discrete", [3, False])
def test_the_loss_is_the_sum_of_its_parts_times_their_scales(discrete):
    scales = {"kl": 0.3, "reward": 2.0, "discount": 5.0, "vector": 0.25}  # image: 1
    settings = {f"loss_scales__{key}": value for key, value in scales.items()}
    result = loss_of(tiny.agent(OBS, rssm__discrete=discrete, **settings))
    parts = {k[:-5]: v for k, v in result.metrics.items() if k.endswith("_loss")}
    assert set(parts) == {"kl", "image", "vector", "reward", "discount"}
    total = sum(scales.get(key, 1) * float(value) for key, value in parts.items())
    np.testing.assert_allclose(result.loss, total, rtol=1e-5)
    for key, like in result.likes.items():
        assert like.shape == (2, 4)
        np.testing.assert_allclose(parts[key], -np.mean(like), rtol=1e-5)
    np.testing.assert_allclose(parts["kl"], np.mean(result.kl), rtol=1e-5)


@pytest.mark.parametrize("precision", [32, 16, "bfloat16"])
def test_a_vector_of_bytes_can_be_learned_at_every_precision(precision):
    ram = gymnasium.spaces.Box(0, 255, (6,), np.uint8)
    agent = tiny.agent({"ram": ram}, precision=precision)
    data = agent.wm.preprocess(tiny.tensors(tiny.batch(agent)))
    assert data["ram"].dtype == tf.float32
    assert np.isfinite(agent.wm.loss(data, None, Modes()).loss)


def test_the_scales_of_the_loss_follow_schedules_over_agent_steps():
    agent = tiny.agent(OBS, loss_scales__kl="linear(0,2,100)")
    data = prepared(agent)
    for agent_steps, scale in ((0, 0.0), (25, 0.5), (1000, 2.0)):
        result = agent.wm.loss(data, None, Modes(), agent_steps)
        parts = {k: v for k, v in result.metrics.items() if k.endswith("_loss")}
        total = sum(float(v) * (scale if k == "kl_loss" else 1) for k, v in parts.items())
        np.testing.assert_allclose(result.loss, total, rtol=1e-5)


def test_an_update_takes_the_scales_of_its_agent_step():
    scheduled, constant, other = (
        tiny.agent(OBS, loss_scales__kl=scale) for scale in ("linear(0,2,100)", 0.5, 2.0)
    )
    learned = []
    for agent in (scheduled, constant, other):
        agent.train(tiny.batch(agent), None, 25)
        weights = agent.wm.rssm.named_variables().values()
        learned.append(np.concatenate([np.ravel(value) for value in weights]))
    np.testing.assert_array_equal(learned[0], learned[1])
    assert (learned[0] != learned[2]).any()


def test_each_head_is_judged_on_its_own_row():
    agent = tiny.agent(OBS)
    data = prepared(agent)
    result = loss_of(agent, data)
    predicted = agent.wm.predictions(agent.wm.feat(result.post))
    error = 0.5 * (data["reward"] - predicted["reward"].mode()) ** 2
    np.testing.assert_allclose(result.likes["reward"], -error - 0.5 * np.log(2 * np.pi), rtol=1e-4)
    error = 0.5 * np.sum((data["vector"] - predicted["vector"].mode()) ** 2, -1)
    expected = -error - 3 * 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(result.likes["vector"], expected, rtol=1e-4)
    p, target = predicted["discount"].mean(), data["discount"]
    expected = target * np.log(p) + (1 - target) * np.log(1 - p)
    np.testing.assert_allclose(result.likes["discount"], expected, rtol=1e-4)


def test_the_logged_kl_is_not_clipped_by_the_free_nats():
    result = loss_of(tiny.agent(kl__free=50.0))
    assert result.metrics["kl_loss"] == 50
    assert 0 < result.metrics["model_kl"] < 50
    np.testing.assert_allclose(result.metrics["model_kl"], np.mean(result.kl), rtol=1e-6)


def test_entropies_are_those_of_posterior_and_prior():
    agent = tiny.agent()
    result = loss_of(agent)
    for name, state in (("post_ent", result.post), ("prior_ent", result.prior)):
        p = tf.nn.softmax(state["logit"]).numpy()
        entropy = -(p * np.log(p)).sum((-1, -2)).mean()
        np.testing.assert_allclose(result.metrics[name], entropy, rtol=1e-5)


def test_the_carried_state_is_the_one_after_the_last_row():
    result = loss_of(tiny.agent())
    for key, value in result.final_state().items():
        np.testing.assert_array_equal(value, result.post[key][:, -1])


@pytest.mark.parametrize("head", ["decoder", "reward", "discount"])
@pytest.mark.parametrize("listed", [True, False])
def test_only_heads_in_grad_heads_teach_the_state(head, listed):
    heads = {"decoder", "reward", "discount"}
    agent = tiny.agent(grad_heads=[head] if listed else sorted(heads - {head}))
    loss = {"decoder": "vector"}.get(head, head)
    found = gradients(agent, lambda data: tf.reduce_sum(loss_of(agent, data).likes[loss]))
    own = {name for name in found if name.startswith(f"{head}/")}
    assert all(found[name] > 0 for name in own)
    state = {name: value for name, value in found.items() if name.startswith("rssm/obs_dist")}
    assert all((value > 0) == listed for value in state.values())
    others = {name for name in found if name.split("/")[0] in heads - {head}}
    assert not any(found[name] for name in others)


def test_the_discrete_feature_is_the_latent_alone():
    full, discrete = tiny.agent(), tiny.agent(features="discrete")
    state = loss_of(full).post
    assert full.wm.feat(state).shape == (2, 4, 9 + 8) and full.wm.feat_size == 17
    np.testing.assert_array_equal(full.wm.feat(state)[..., 9:], state["deter"])
    assert discrete.wm.feat_size == 9
    np.testing.assert_array_equal(
        discrete.wm.feat(state), np.reshape(state["stoch"], (2, 4, 9)), "flattened"
    )


@pytest.mark.parametrize(
    "settings, match",
    [
        ({"pred_discount": False}, "grad_heads: no head 'discount'"),
        ({"loss_scales__speed": 1.0}, "loss_scales.speed: no such loss"),
        ({"encoder__mlp_keys": "$^"}, "match none of the observation keys vector"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_by_name(settings, match):
    with pytest.raises(ValueError, match=match):
        tiny.agent(**settings)


# Imagination


def imagined(agent, horizon=3, is_terminal=None, draws=None):
    """A sequence from random starts `[2, 2]`, and what the policy was fed."""
    rng = np.random.default_rng(0)
    initial = agent.wm.rssm.initial(2)
    start = {
        k: tf.constant(rng.normal(size=[2, 2, *v.shape[1:]]).astype(np.float32))
        for k, v in initial.items()
    }
    if "logit" in start:
        start["stoch"] = dists.OneHot(start["logit"]).mode()
    seen = []

    class Actor:
        def evaluate(self, feat, draws, apply):
            seen.append(feat)
            return agent.behavior.actor.evaluate(feat, draws, apply)

    terminal = tf.zeros([2, 2], bool) if is_terminal is None else tf.constant(is_terminal)
    seq = agent.wm.imagine(Actor(), start, terminal, horizon, draws or Modes())
    return seq, seen, start


@pytest.mark.parametrize("settings", [{}, {"rssm__discrete": False}, {"features": "discrete"}])
def test_imagined_steps_are_steps_of_the_model_under_the_policy(settings):
    agent = tiny.agent(**settings)
    seq, seen, start = imagined(agent)
    states = {key: seq[key] for key in start}
    for key, value in start.items():
        flat = np.reshape(value, [4, *value.shape[2:]])
        np.testing.assert_array_equal(states[key][0], flat, "every row of the batch is a start")
    assert not seq["action"][0].numpy().any()
    for t in range(3):
        here = {key: value[t] for key, value in states.items()}
        action = dists.sample(agent.behavior.actor(agent.wm.feat(here), Modes()), Modes())
        np.testing.assert_allclose(seq["action"][t + 1], action, atol=1e-5)
        following = agent.wm.rssm.img_step(here, seq["action"][t + 1], Modes())
        for key, value in following.items():
            np.testing.assert_allclose(states[key][t + 1], value, atol=1e-5, err_msg=key)
    np.testing.assert_array_equal(seq["feat"], agent.wm.feat(states))
    for t, feat in enumerate(seen[:3]):
        np.testing.assert_array_equal(feat, seq["feat"][t])


def test_the_true_discount_of_the_start_replaces_the_predicted_one():
    agent = tiny.agent(discount=0.9)
    seq, *_ = imagined(agent, is_terminal=[[False, True], [False, False]])
    predicted = agent.wm.heads["discount"](seq["feat"]).mean()
    np.testing.assert_allclose(seq["discount"][0], [0.9, 0, 0.9, 0.9])
    np.testing.assert_allclose(seq["discount"][1:], predicted[1:], rtol=1e-5)
    assert abs(predicted[0] - seq["discount"][0]).numpy().min() > 0.01
    weight = [1, 0.9, 0.9 * predicted[1, 0], 0.9 * predicted[1, 0] * predicted[2, 0]]
    np.testing.assert_allclose(seq["weight"][:, 0], weight, rtol=1e-5)
    np.testing.assert_allclose(seq["weight"][:, 1], [1, 0, 0, 0])


def test_without_a_discount_head_the_discount_is_constant():
    agent = tiny.agent(discount=0.9, pred_discount=False, grad_heads=["decoder"])
    seq, *_ = imagined(agent, is_terminal=[[False, True], [False, False]])
    np.testing.assert_allclose(seq["discount"], np.full((4, 4), 0.9))
    np.testing.assert_allclose(seq["weight"][:, 1], [1, 0.9, 0.81, 0.729], rtol=1e-6)


def test_no_gradient_reaches_the_state_through_the_input_of_the_policy():
    agent = tiny.agent(actor_grad="dynamics", act_space=tiny.ACTION)
    start = {k: tf.ones([1, 1, *v.shape[1:]]) for k, v in agent.wm.rssm.initial(1).items()}
    with tf.GradientTape() as tape:
        tape.watch(start)
        seq = agent.wm.imagine(agent.behavior.actor, start, tf.zeros([1, 1], bool), 1, Modes())
        action = tf.reduce_sum(seq["action"])
    gradients = tape.gradient(action, start)
    assert all(value is None or not np.any(value) for value in gradients.values())


def test_imagined_actions_pass_their_gradient_on():
    agent = tiny.agent(act_space=tiny.ACTION)
    kernel = agent.behavior.actor.layers["dense0"].kernel
    with tf.GradientTape() as tape:
        seq, *_ = imagined(agent)
        value = tf.reduce_sum(seq["feat"][1])
    assert np.any(tape.gradient(value, kernel))


def test_rewards_are_the_mode_of_the_head_at_the_state():
    agent = tiny.agent()
    feat = tf.random.normal([3, 2, agent.wm.feat_size])
    np.testing.assert_array_equal(
        agent.wm.reward(feat), agent.wm.heads["reward"](feat).mean(), "a Normal's mode is its mean"
    )


# Open loop


def test_open_loop_sees_the_context_and_then_the_actions_alone():
    agent = tiny.agent(OBS)
    data = prepared(agent, steps=6)

    def frames(changed):
        return agent.wm.open_loop(data | changed, "image", 3, Modes()).numpy()

    plain = frames({})
    assert plain.shape == (2, 6, 64, 64, 1)
    later = data["image"].numpy()
    later[:, 3:] += 1
    np.testing.assert_array_equal(frames({"image": tf.constant(later)}), plain)
    early = data["image"].numpy()
    early[:, 2] *= -10  # far enough for other classes than before, whatever the weights
    same = (frames({"image": tf.constant(early)}) == plain).all((0, 2, 3, 4))
    assert same.tolist() == [True, True, False, False, False, False]
    action = data["action"].numpy()
    action[:, 4] = 1 - action[:, 4]
    same = (frames({"action": tf.constant(action)}) == plain).all((0, 2, 3, 4))
    assert same.tolist() == [True, True, True, True, False, False]


def test_open_loop_frames_are_the_decoders_in_the_range_of_pixels():
    agent = tiny.agent(OBS)
    data = prepared(agent)
    post = loss_of(agent, data).post
    decoded = agent.wm.decoder(agent.wm.feat(post))["image"].mode() + 0.5
    found = agent.wm.open_loop(data, "image", 4, Modes())
    np.testing.assert_allclose(found, decoded, atol=1e-5, err_msg="no row is left to predict")


# Usage of the latent


def test_usage_of_a_latent_by_hand():
    # Two variables of four classes over four rows: the first takes two classes in equal shares, the
    # second always the same.
    first, second = np.eye(4)[[0, 0, 1, 1]], np.eye(4)[[3, 3, 3, 3]]
    stoch = np.stack([first, second], 1).astype(np.float32)[None]
    found = latent_usage({"logit": None, "stoch": tf.constant(stoch)})
    np.testing.assert_allclose(found["latent_used_fraction"], 3 / 8)
    np.testing.assert_allclose(found["latent_entropy_bits"], (1 + 0) / 2)
    assert latent_usage({"mean": 0, "stoch": 0}) == {}


def test_what_needs_a_box_of_pixels_is_not_fed_a_vector():
    agent = tiny.agent({"vector": gymnasium.spaces.Box(-1, 1, (7,), np.float32)})
    assert agent.wm.encoder.keys == agent.wm.decoder.keys == ["vector"]
    assert agent.wm.decoder.image_keys == []
    assert agent.wm.input_keys == ["vector", "reward", "is_first", "is_terminal"]


def test_random_draws_differ_and_modes_do_not():
    agent = tiny.agent()
    data = prepared(agent)
    values = [float(agent.wm.loss(data, None, Draws([0, seed])).loss) for seed in (1, 1, 2)]
    assert values[0] == values[1] != values[2]
