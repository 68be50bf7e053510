"""The recurrent model: its cell, its two ways of rolling out, and its KL."""

import numpy as np
import pytest
import tensorflow as tf
import tiny

from common.nn.draws import Draws, Modes
from dreamerv2.agent.precision import Precision
from dreamerv2.agent.rssm import RSSM

RNG = np.random.default_rng(0)
EMBED, ACTION = 5, 4


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def rssm(precision=32, **changes):
    """A model with random biases, so that a zero state is nothing special."""
    changes = {f"rssm__{key}": value for key, value in changes.items()}
    model = RSSM(EMBED, ACTION, tiny.config(**changes).rssm, Precision(precision), RNG)
    for variable in model.variables:
        variable.assign(normal(*variable.shape))
    return model


def inputs(batch=2, steps=6, first=(0,)):
    """Embeddings, actions and flags; a sequence starts at each row in `first`."""
    is_first = np.zeros((batch, steps), bool)
    is_first[:, list(first)] = True
    return normal(batch, steps, EMBED), normal(batch, steps, ACTION), is_first


def part(values, rows):
    return tuple(tf.constant(value[:, rows]) for value in values)


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key in ours:
        np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-4, atol=1e-5, err_msg=key)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


VARIANTS = [{}, {"discrete": False}, {"norm": "layer"}, {"ensemble": 2}]
KEYS = {True: {"logit", "stoch", "deter"}, False: {"mean", "std", "stoch", "deter"}}


# One step


def norm(x, gamma, beta):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3)
    return x * gamma + beta


def test_one_step_is_that_of_items_12_and_13():
    model = rssm(norm="layer", act="tanh")
    weights = {name: variable.numpy() for name, variable in model.named_variables().items()}

    def layer(name, *inputs):
        return np.concatenate(inputs, -1) @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]

    def normed(name, x):
        return norm(x, weights[f"{name}/gamma"], weights[f"{name}/beta"])

    embed, action, deter = normal(2, EMBED), normal(2, ACTION), normal(2, 8)
    stoch = np.eye(3, dtype=np.float32)[RNG.integers(0, 3, (2, 3))]
    x = np.tanh(normed("img_in_norm", layer("img_in", stoch.reshape(2, 9), action)))
    parts = normed("gru/norm", layer("gru/dense", x, deter))
    reset, candidate, update = parts[:, :8], parts[:, 8:16], parts[:, 16:]
    update = sigmoid(update - 1)
    expected = update * np.tanh(sigmoid(reset) * candidate) + (1 - update) * deter

    state = model.initial(2) | {"stoch": tf.constant(stoch), "deter": tf.constant(deter)}
    prior = model.img_step(state, tf.constant(action), Modes())
    np.testing.assert_allclose(prior["deter"], expected, rtol=1e-4, atol=1e-5)
    x = np.tanh(normed("img_out_norm_0", layer("img_out_0", expected)))
    logit = layer("img_dist_0", x).reshape(2, 3, 3)
    np.testing.assert_allclose(prior["logit"], logit, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(prior["stoch"], np.eye(3)[logit.argmax(-1)])

    inputs = (tf.constant(x) for x in (action, embed, np.zeros(2, bool)))
    post = model.obs_step(state, *inputs, Modes())
    np.testing.assert_array_equal(post["deter"], prior["deter"])
    x = np.tanh(normed("obs_out_norm", layer("obs_out", expected, embed)))
    logit = layer("obs_dist", x).reshape(2, 3, 3)
    np.testing.assert_allclose(post["logit"], logit, rtol=1e-3, atol=1e-4)


def test_the_gru_normalises_in_float32_at_every_precision():
    exact, half = rssm(), rssm(16)
    exact.gru.dense.bias.assign(normal(24) * 1000)  # the squares overflow float16
    for source, target in zip(exact.variables, half.variables, strict=True):
        target.assign(source)
    action = tf.constant(normal(2, ACTION))
    expected, found = (m.img_step(m.initial(2), action, Modes())["deter"] for m in (exact, half))
    np.testing.assert_allclose(found, expected, atol=0.01)


# Two paths that must agree


@pytest.mark.parametrize("variant", VARIANTS)
def test_acting_step_by_step_equals_observing_the_whole_sequence(variant):
    model = rssm(**variant)
    embed, action, is_first = inputs(first=(0, 4))
    whole, _ = model.observe(*part((embed, action, is_first), slice(None)), None, Modes())
    state = model.initial(2)
    for t in range(6):
        step = (tf.constant(x[:, t]) for x in (action, embed, is_first))
        state = model.obs_step(state, *step, Modes())
        assert_equal(state, {key: value[:, t] for key, value in whole.items()})


@pytest.mark.parametrize("variant", VARIANTS)
def test_is_first_in_the_middle_makes_two_sequences_of_one(variant):
    model = rssm(**variant)
    rows = inputs(first=(0, 2))
    together = model.observe(*part(rows, slice(None)), None, Modes())
    first = model.observe(*part(rows, slice(0, 2)), None, Modes())
    second = model.observe(*part(rows, slice(2, 6)), None, Modes())
    for whole, before, after in zip(together, first, second, strict=True):
        assert_equal(whole, {key: np.concatenate([before[key], after[key]], 1) for key in whole})


def test_is_first_counts_for_each_row_of_the_batch_alone():
    model = rssm()
    embed, action, is_first = inputs(first=(0,))
    is_first[1, 3] = True
    mixed, _ = model.observe(*part((embed, action, is_first), slice(None)), None, Modes())
    is_first[1, 3] = False
    plain, _ = model.observe(*part((embed, action, is_first), slice(None)), None, Modes())
    same = (mixed["deter"].numpy() == plain["deter"].numpy()).all(-1)
    assert same.tolist() == [[True] * 6, [True] * 3 + [False] * 3]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_carried_state_continues_a_sequence_unless_it_begins_anew(variant):
    model = rssm(**variant)
    rows = inputs(first=(0,))
    whole, _ = model.observe(*part(rows, slice(None)), None, Modes())
    start, _ = model.observe(*part(rows, slice(0, 3)), None, Modes())
    carried = {key: value[:, -1] for key, value in start.items()}
    rest, _ = model.observe(*part(rows, slice(3, 6)), carried, Modes())
    assert_equal(rest, {key: value[:, 3:] for key, value in whole.items()})
    again, _ = model.observe(*part(rows, slice(0, 3)), carried, Modes())
    assert_equal(again, start)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_prior_is_the_step_from_the_posterior_before(variant):
    model = rssm(**variant)
    embed, action, is_first = inputs(first=(0,))
    post, prior = model.observe(*part((embed, action, is_first), slice(None)), None, Modes())
    for t in range(1, 6):
        before = {key: value[:, t - 1] for key, value in post.items()}
        step = model.img_step(before, tf.constant(action[:, t]), Modes())
        assert_equal(step, {key: value[:, t] for key, value in prior.items()})
    np.testing.assert_array_equal(prior["deter"], post["deter"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_of_a_whole_sequence_are_those_of_its_steps(variant):
    model = rssm(**variant)
    embed, action, is_first = (tf.constant(x) for x in inputs(steps=4, first=(2,)))
    start = {k: tf.constant(normal(*v.shape)) for k, v in model.initial(2).items()}
    weights = {}

    def weighted(states, t):
        """A sum with a weight of its own for every number, the same whenever it is asked."""
        total = 0.0
        for kind, state in states.items():
            for key, value in state.items():
                weight = weights.setdefault((kind, key, t), normal(*value.shape))
                total += tf.reduce_sum(weight * tf.cast(value, tf.float32))
        return total

    def stepwise():
        state, total = start, 0.0
        for t in range(4):
            keep = 1 - tf.cast(is_first[:, t], tf.float32)
            kept = {
                k: v * tf.reshape(keep, [2] + [1] * (v.shape.rank - 1)) for k, v in state.items()
            }
            prior = model.img_step(kept, action[:, t] * keep[:, None], Modes())
            state = model.obs_step(state, action[:, t], embed[:, t], is_first[:, t], Modes())
            total += weighted({"prior": prior, "post": state}, t)
        return total

    def together():
        post, prior = model.observe(embed, action, is_first, start, Modes())
        rows = [{"prior": {k: v[:, t] for k, v in prior.items()}} for t in range(4)]
        rows = [row | {"post": {k: v[:, t] for k, v in post.items()}} for t, row in enumerate(rows)]
        return tf.add_n([weighted(row, t) for t, row in enumerate(rows)])

    sources = {**model.named_variables(), "embed": embed, "action": action, **start}
    gradients = []
    for path in (stepwise, together):
        with tf.GradientTape() as tape:
            tape.watch([embed, action, start])
            total = path()
        gradients.append(tape.gradient(total, sources, unconnected_gradients="zero"))
    for name, expected in gradients[0].items():
        found, scale = gradients[1][name].numpy(), np.abs(expected).max()
        # Modes draw the first member of the ensemble; the statistics of the start enter nothing.
        unused = "img_" in name and "_1" in name or name in ("logit", "mean", "std")
        assert (scale == 0) == unused, name
        np.testing.assert_allclose(found, expected, atol=1e-3 * scale, err_msg=name)


def test_imagining_is_one_step_after_the_other():
    model, action = rssm(), tf.constant(normal(2, 3, ACTION))
    state = model.img_step(model.initial(2), action[:, 0], Modes())
    whole = model.imagine(action, model.initial(2), Modes())
    for t in range(3):
        assert_equal(state, {key: value[:, t] for key, value in whole.items()})
        state = model.img_step(state, action[:, min(t + 1, 2)], Modes())


def test_a_graph_with_unknown_batch_size_computes_what_eager_code_does():
    model = rssm()
    rows = inputs()
    shapes = [[None, 6, EMBED], [None, 6, ACTION], [None, 6]]
    signature = [
        tf.TensorSpec(shape, dtype)
        for shape, dtype in zip(shapes, [tf.float32, tf.float32, tf.bool], strict=True)
    ]
    graph = tf.function(lambda *x: model.observe(*x, None, Modes()), input_signature=signature)
    eager = model.observe(*part(rows, slice(None)), None, Modes())
    for ours, theirs in zip(graph(*part(rows, slice(None))), eager, strict=True):
        assert_equal(ours, theirs)


# States


@pytest.mark.parametrize("discrete", [3, False])
def test_states_begin_at_zero_and_keep_their_shapes(discrete):
    model = rssm(discrete=discrete)
    initial = model.initial(2)
    assert set(initial) == KEYS[bool(discrete)]
    assert not any(value.numpy().any() for value in initial.values())
    post, prior = model.observe(*part(inputs(), slice(None)), None, Modes())
    for states in (post, prior):
        assert {k: v.shape[2:] for k, v in states.items()} == {
            k: v.shape[1:] for k, v in initial.items()
        }


@pytest.mark.parametrize("precision", [32, 16, "bfloat16"])
def test_statistics_and_samples_are_float32_and_deter_has_the_compute_dtype(precision):
    model = rssm(precision)
    post, prior = model.observe(*part(inputs(), slice(None)), None, Modes())
    for states in (post, prior, model.initial(2)):
        assert states["logit"].dtype == states["stoch"].dtype == tf.float32
        assert states["deter"].dtype == Precision(precision).compute


def test_samples_are_one_hot_and_random_where_draws_are():
    model = rssm()
    rows = part(inputs(batch=20), slice(None))
    post, prior = model.observe(*rows, None, Draws([0, 0]))
    again, _ = model.observe(*rows, None, Draws([0, 1]))
    for states in (post, prior):
        stoch = states["stoch"].numpy().round(6)
        assert set(np.unique(stoch)) == {0, 1} and (stoch.sum(-1) == 1).all()
    assert (post["stoch"].numpy() != again["stoch"].numpy()).any()
    modes = tf.one_hot(tf.argmax(post["logit"], -1), 3)
    assert (post["stoch"].numpy().round() != modes.numpy()).any()


@pytest.mark.parametrize(
    "name, function",
    [
        ("softplus", lambda x: np.log1p(np.exp(x))),
        ("sigmoid", sigmoid),
        ("sigmoid2", lambda x: 2 * sigmoid(x / 2)),
    ],
)
def test_what_makes_a_standard_deviation_positive(name, function):
    model = rssm(discrete=False, std_act=name, min_std=0.3)
    model.obs_dist.kernel.assign(np.zeros(model.obs_dist.kernel.shape))
    out = model.obs_dist.bias.numpy()
    post, _ = model.observe(*part(inputs(), slice(None)), None, Modes())
    for b, t in np.ndindex(2, 6):
        np.testing.assert_array_equal(post["mean"][b, t], out[:3])
        np.testing.assert_allclose(post["std"][b, t], function(out[3:]) + 0.3, rtol=1e-5)


@pytest.mark.parametrize("discrete", [4, False])
@pytest.mark.parametrize("jit", [False, True])
def test_a_reset_forgets_a_state_that_is_not_finite(discrete, jit):
    model = rssm(discrete=discrete)
    nan = {k: tf.fill(v.shape, np.nan) for k, v in model.initial(2).items()}
    embed, action = tf.ones([2, 3, EMBED]), tf.fill([2, 3, ACTION], np.nan)
    action = tf.where(tf.constant([[True], [False], [False]]), action, tf.ones_like(action))
    is_first = tf.constant([[True, False, False]] * 2)

    def learned():
        with tf.GradientTape() as tape:
            tape.watch(nan)
            post, prior = model.observe(embed, action, is_first, nan, Modes())
            total = tf.add_n([tf.reduce_sum(x) for x in (*post.values(), *prior.values())])
        return (post, prior), tape.gradient(total, [*model.variables, *nan.values()])

    states, gradients = tf.function(learned)() if jit else learned()
    for value in tf.nest.flatten((states, gradients)):
        assert value is None or np.isfinite(value).all()
    fresh, _ = model.observe(embed, tf.ones_like(action), is_first, None, Modes())
    for key, value in fresh.items():
        np.testing.assert_allclose(states[0][key], value, rtol=1e-4, atol=1e-5)
    step = model.obs_step(nan, action[:, 0], embed[:, 0], is_first[:, 0], Modes())
    for key, value in step.items():
        np.testing.assert_allclose(value, fresh[key][:, 0], rtol=1e-4, atol=1e-5)


def test_an_unknown_std_act_is_refused():
    with pytest.raises(ValueError, match="std_act"):
        rssm(discrete=False, std_act="exp")


def test_each_step_draws_one_member_of_the_ensemble_and_modes_take_the_first():
    model = rssm(ensemble=2)
    for k in (0, 1):  # each member says its number, whatever the state is
        model.img[f"img_dist_{k}"].kernel.assign(np.zeros([8, 9]))
        model.img[f"img_dist_{k}"].bias.assign(np.full(9, k))
    rows = part(inputs(steps=40), slice(None))
    _, prior = model.observe(*rows, None, Modes())
    assert not prior["logit"].numpy().any()
    _, prior = model.observe(*rows, None, Draws([0, 0]))
    members = prior["logit"].numpy()[0, :, 0, 0]
    assert (prior["logit"].numpy() == members[None, :, None, None]).all(), "one for all rows"
    assert 5 < members.sum() < 35 and set(members) == {0, 1}


# KL


def states(logits):
    return {"logit": tf.constant([[logits]], tf.float32), "stoch": tf.zeros([1, 1, 1, 2])}


def kl_by_hand(p, q):
    return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))


# One variable of two classes: logits (log 3, 0) are probabilities (3/4, 1/4), the other is even.
POST, PRIOR = [[np.log(3.0), 0.0]], [[0.0, 0.0]]
KL = kl_by_hand(0.75, 0.5)  # of the posterior from the prior, 0.1308 nats
REVERSED = kl_by_hand(0.5, 0.75)


def kl_and_gradients(balance, forward=False, free=0.0, free_avg=True):
    model = rssm(stoch=1, discrete=2)
    post, prior = states(POST), states(PRIOR)
    with tf.GradientTape() as tape:
        tape.watch([post["logit"], prior["logit"]])
        loss, value = model.kl_loss(post, prior, balance, free, forward, free_avg)
    gradients = tape.gradient(loss, [post["logit"], prior["logit"]])
    gradients = [0 if g is None else float(g[0, 0, 0, 0]) for g in gradients]
    return float(loss), value.numpy(), *gradients


# d KL(p || q) / d logits: of q it is q - p, of p it is p (log p/q - KL).
TO_PRIOR = 0.5 - 0.75
TO_POST = 0.75 * (np.log(0.75 / 0.5) - KL)


@pytest.mark.parametrize("balance", [0.8, 0.3, 0.0, 1.0])
def test_balancing_keeps_the_value_and_shares_the_gradient(balance):
    loss, value, to_post, to_prior = kl_and_gradients(balance)
    np.testing.assert_allclose(loss, KL, rtol=1e-5)
    np.testing.assert_allclose(value, [[KL]], rtol=1e-5)
    np.testing.assert_allclose(to_post, (1 - balance) * TO_POST, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(to_prior, balance * TO_PRIOR, rtol=1e-4, atol=1e-7)


def test_balance_one_half_is_one_kl_without_stops():
    loss, value, to_post, to_prior = kl_and_gradients(0.5)
    np.testing.assert_allclose([loss, value[0, 0]], KL, rtol=1e-5)
    np.testing.assert_allclose([to_post, to_prior], [TO_POST, TO_PRIOR], rtol=1e-4)


@pytest.mark.parametrize("balance", [0.8, 0.5])
def test_forward_swaps_the_arguments_and_the_weights(balance):
    loss, value, to_post, to_prior = kl_and_gradients(balance, forward=True)
    np.testing.assert_allclose([loss, value[0, 0]], REVERSED, rtol=1e-5)
    shares = (1 - balance, balance) if balance != 0.5 else (1, 1)
    np.testing.assert_allclose(to_post, shares[0] * (0.75 - 0.5), rtol=1e-4)
    to_second = 0.5 * (np.log(0.5 / 0.75) - REVERSED)
    np.testing.assert_allclose(to_prior, shares[1] * to_second, rtol=1e-4)


@pytest.mark.parametrize("free_avg", [True, False])
def test_below_the_free_nats_the_loss_is_flat(free_avg):
    loss, value, to_post, to_prior = kl_and_gradients(0.8, free=1.0, free_avg=free_avg)
    np.testing.assert_allclose(loss, 1)
    np.testing.assert_allclose(value, [[KL]], rtol=1e-5, err_msg="logged unclipped")
    assert to_post == to_prior == 0


def test_free_nats_are_for_the_mean_or_for_each_element():
    post = {"mean": tf.constant([[[0.0], [2.0]]]), "std": tf.ones([1, 2, 1])}
    prior = {"mean": tf.zeros([1, 2, 1]), "std": tf.ones([1, 2, 1])}
    model = rssm(discrete=False)

    def loss(**settings):
        settings = {"balance": 0.8, "free": 0.5, "forward": False, "free_avg": True} | settings
        return float(model.kl_loss(post, prior, **settings)[0])

    # The two divergences are 0 and 2 nats: 1 in the mean.
    np.testing.assert_allclose(loss(), 1)
    np.testing.assert_allclose(loss(free=1.5), 1.5)
    np.testing.assert_allclose(loss(free_avg=False), (0.5 + 2) / 2)
    np.testing.assert_allclose(loss(balance=0.5), (0.5 + 2) / 2, err_msg="per element always")


def test_the_kl_adds_up_over_the_variables_of_a_state():
    model = rssm(stoch=3, discrete=2)
    post = {"logit": tf.constant([[POST * 3]], tf.float32)}
    prior = {"logit": tf.constant([[PRIOR * 3]], tf.float32)}
    _, value = model.kl_loss(post, prior, 0.8, 0.0, False, True)
    np.testing.assert_allclose(value, [[3 * KL]], rtol=1e-5)
