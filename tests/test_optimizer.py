"""Update rules against those of Keras 2; decay, clipping, and what a loss scale does."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from common.nn.optimizer import GOOD_STEPS_TO_DOUBLE, RULES, LossScale, Optimizer

SHAPES = {"kernel": (3, 2), "bias": (2,)}
LR, EPS = 0.01, 1e-3


def variables(seed=0):
    rng = np.random.default_rng(seed)
    return {k: tf.Variable(rng.normal(size=s).astype(np.float32)) for k, s in SHAPES.items()}


def gradients(steps, seed=1):
    rng = np.random.default_rng(seed)
    return [[rng.normal(size=s).astype(np.float32) for s in SHAPES.values()] for _ in range(steps)]


def optimizer(owned, opt="adam", **settings):
    settings = {"lr": LR, "eps": EPS, "clip": 0, "wd": 0} | settings
    return Optimizer(owned, opt=opt, **settings)


def values(module):
    return {name: variable.numpy() for name, variable in module.named_variables().items()}


def tensors(grads):
    return [tf.constant(grad) for grad in grads]


legacy = tf_keras.optimizers.legacy
OF_KERAS = {
    "adam": lambda: legacy.Adam(LR, epsilon=EPS),
    "nadam": lambda: legacy.Nadam(LR, epsilon=EPS),
    "adamax": lambda: legacy.Adamax(LR, epsilon=EPS),
    "sgd": lambda: legacy.SGD(LR),
    "momentum": lambda: legacy.SGD(LR, momentum=0.9),
}


@pytest.mark.parametrize("opt", RULES)
def test_each_rule_is_that_of_keras_2(opt):
    owned, theirs = variables(), variables()
    tested, reference = optimizer(owned, opt), OF_KERAS[opt]()
    for grads in gradients(20):
        tested.apply(tensors(grads))
        reference.apply_gradients(zip(tensors(grads), theirs.values(), strict=True))
        for name in SHAPES:
            np.testing.assert_allclose(owned[name], theirs[name], rtol=0, atol=3e-6)


@pytest.mark.parametrize("opt", RULES)
def test_decay_comes_before_the_step_and_is_not_scaled_by_the_learning_rate(opt):
    plain, decayed, (grads,) = variables(), variables(), gradients(1)
    start = {name: variable.numpy() for name, variable in plain.items()}
    optimizer(plain, opt).apply(tensors(grads))
    optimizer(decayed, opt, wd=0.25).apply(tensors(grads))
    for name in SHAPES:
        np.testing.assert_allclose(decayed[name], plain[name] - 0.25 * start[name], rtol=1e-5)


def test_decay_reaches_variables_without_a_gradient():
    owned = variables()
    start = owned["bias"].numpy()
    tested = optimizer(owned, wd=0.25)
    applied = tested.apply(tested.unscale([tf.ones(SHAPES["kernel"]), None]))
    np.testing.assert_allclose(owned["bias"], 0.75 * start)
    np.testing.assert_allclose(applied.norm, np.sqrt(6))


@pytest.mark.parametrize("clip, factor", [(100.0, 1), (10.0, 1), (2.5, 0.5), (0.0, 1)])
def test_the_global_norm_is_clipped_and_reported_before(clip, factor):
    owned = variables()
    start = {name: variable.numpy() for name, variable in owned.items()}
    grads = [np.full((3, 2), 2.0, np.float32), np.array([1.0, 0.0], np.float32)]  # norm 5
    applied = optimizer(owned, "sgd", clip=clip).apply(tensors(grads))
    np.testing.assert_allclose(applied.norm, 5)
    for name, grad in zip(SHAPES, grads, strict=True):
        np.testing.assert_allclose(owned[name], start[name] - LR * factor * grad, rtol=1e-5)


def test_an_unknown_rule_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="opt: got 'lion', expected one of adam, nadam"):
        optimizer(variables(), "lion")


@pytest.mark.parametrize("opt", RULES)
def test_a_fresh_optimizer_goes_on_where_the_state_was_taken(opt):
    settings = {"loss_scale": "dynamic", "skip_nonfinite": True, "wd": 1e-3}
    owned = variables()
    tested, grads = optimizer(owned, opt, **settings), gradients(9)
    grads[2] = [grad * np.nan for grad in grads[2]]
    for step in grads[:5]:
        tested.apply(tensors(step))
    resumed_owned = variables(seed=7)
    resumed = optimizer(resumed_owned, opt, **settings)
    for name, variable in resumed_owned.items():
        variable.assign(owned[name])
    for name, variable in resumed.named_variables().items():
        variable.assign(values(tested)[name])
    for step in grads[5:]:
        tested.apply(tensors(step))
        resumed.apply(tensors(step))
    for name in SHAPES:
        np.testing.assert_array_equal(owned[name].numpy(), resumed_owned[name].numpy())
    assert_same(values(tested), values(resumed))


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], name)


# Loss scale


def overflowing(value):
    kernel = np.ones(SHAPES["kernel"], np.float32)
    kernel[1, 0] = value
    return tensors([kernel, np.ones(SHAPES["bias"], np.float32)])


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("opt", RULES)
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_an_overflow_halves_the_scale_is_counted_and_leaves_everything_else(opt, bad, graph):
    owned = variables()
    tested = optimizer(owned, opt, wd=0.1, loss_scale="dynamic", skip_nonfinite=True)
    apply = tf.function(tested.apply) if graph else tested.apply
    assert not apply(overflowing(1.0)).skipped
    before = values(tested) | {name: v.numpy() for name, v in owned.items()}
    assert before["loss_scale/scale"] == 2**15 and before["loss_scale/good_steps"] == 1
    applied = apply(overflowing(bad))
    assert applied.skipped and not np.isfinite(applied.norm)
    after = values(tested) | {name: v.numpy() for name, v in owned.items()}
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert changed == {"loss_scale/scale", "loss_scale/good_steps", "skipped"}
    assert after["loss_scale/scale"] == 2**14
    assert after["loss_scale/good_steps"] == 0 and after["skipped"] == 1


def test_an_overflow_is_applied_where_it_shall_not_be_skipped():
    owned = variables()
    optimizer(owned).apply(overflowing(np.nan))
    assert not np.isfinite(owned["kernel"]).all(), "float32 has no loss scale that could cure it"


def test_2000_good_steps_in_a_row_double_the_scale():
    scale = LossScale("dynamic")

    @tf.function
    def update(finite, times):
        for _ in tf.range(times):
            scale.update(finite)

    def good(times):
        update(tf.constant(True), tf.constant(times))

    good(GOOD_STEPS_TO_DOUBLE - 1)
    assert (scale.value, scale.good_steps) == (2**15, GOOD_STEPS_TO_DOUBLE - 1)
    good(1)
    assert (scale.value, scale.good_steps) == (2**16, 0)
    good(GOOD_STEPS_TO_DOUBLE - 1)
    update(tf.constant(False), tf.constant(1))
    assert (scale.value, scale.good_steps) == (2**15, 0)
    good(GOOD_STEPS_TO_DOUBLE - 1)
    assert scale.value == 2**15, "a bad step begins the count anew"
    good(1)
    assert scale.value == 2**16


def test_the_scale_never_leaves_the_range_of_float32():
    scale = LossScale("dynamic")
    for _ in range(40):
        scale.update(tf.constant(False))
    assert scale.value == 1
    scale.scale.assign(2.0**126)
    scale.good_steps.assign(GOOD_STEPS_TO_DOUBLE - 1)
    scale.update(tf.constant(True))
    assert np.isfinite(scale.value) and np.isfinite(scale.value * 2)


@pytest.mark.parametrize("setting, value", [("none", 1), (128, 128), ("0.5", 0.5)])
def test_a_fixed_scale_stays(setting, value):
    scale = LossScale(setting)
    scale.update(tf.constant(False))
    for _ in range(3):
        scale.update(tf.constant(True))
    assert scale.value == value
    names = [name for name in scale.named_variables()]
    assert names == ["scale", "good_steps"], "the same state at every setting"


@pytest.mark.parametrize("setting", ["static", 0, -1, float("inf"), float("nan"), None])
def test_a_scale_that_is_none_is_refused(setting):
    with pytest.raises(ValueError, match="loss_scale: got .*expected dynamic, none or a positive"):
        LossScale(setting)


@pytest.mark.parametrize("loss_scale", ["none", "dynamic"])
def test_a_step_on_a_loss_reports_its_true_gradients(loss_scale):
    owned, by_hand = variables(), variables()
    tested = optimizer(owned, loss_scale=loss_scale, skip_nonfinite=loss_scale == "dynamic")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(owned["kernel"] ** 2)
    grads, metrics = tested.minimize(loss, tape, "net")
    expected = [2 * by_hand["kernel"].numpy(), np.zeros(2)]
    for found, true in zip(grads, expected, strict=True):
        np.testing.assert_allclose(found, true, rtol=1e-6)
    optimizer(by_hand).apply(tensors(np.float32(g) for g in expected))
    np.testing.assert_allclose(owned["kernel"], by_hand["kernel"], rtol=1e-6)
    np.testing.assert_allclose(metrics.pop("net_loss"), loss)
    np.testing.assert_allclose(metrics.pop("net_grad_norm"), np.linalg.norm(expected[0]), rtol=1e-6)
    scaling = {"net_loss_scale": 2**15, "net_skipped": 0} if loss_scale == "dynamic" else {}
    assert metrics == scaling


def test_the_gradient_is_taken_of_the_scaled_loss():
    owned = {"kernel": tf.Variable(1.0)}
    tested = optimizer(owned, loss_scale=2.0**10)
    with tf.GradientTape() as tape:
        loss = 1e-8 * tf.cast(tf.cast(owned["kernel"], tf.float16), tf.float32)
    (found,), _ = tested.minimize(loss, tape, "net")
    np.testing.assert_allclose(found, 1e-8, rtol=1e-2, err_msg="float16 alone would give 0")


def test_gradients_in_half_precision_become_float32():
    tested = optimizer(variables(), loss_scale="dynamic", skip_nonfinite=True)
    halves = tested.unscale([tf.constant([1.0], tf.float16), None])
    assert halves[0].dtype == tf.float32 and float(halves[0][0]) == 2**-15
