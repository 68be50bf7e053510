"""Which dtype each module computes in, and that float16 changes nothing but the rounding."""

import numpy as np
import pytest
import tensorflow as tf
import tiny

from common.nn.draws import Modes
from common.nn.precision import dtype_of
from dreamerv2.agent.precision import FLOAT32_MODULES, MODULES, Precision
from dreamerv2.run.blocks import defaults

HALF = {16: tf.float16, "bfloat16": tf.bfloat16}
OBS = {"image": tiny.RGB, "vector": tiny.VECTOR}


# Settings


@pytest.mark.parametrize(
    "setting, dtype",
    [(32, tf.float32), ("32", tf.float32), (16, tf.float16), ("bfloat16", tf.bfloat16)],
)
def test_settings(setting, dtype):
    assert dtype_of(setting) == dtype
    for module in MODULES:
        expected = tf.float32 if module in FLOAT32_MODULES else dtype
        assert Precision(setting).dtype(module) == expected


def test_overrides_are_for_one_module_and_default_is_none():
    precision = Precision(16, {"encoder": 32, "decoder": "bfloat16", "actor": "default"})
    found = {module: precision.dtype(module) for module in MODULES}
    assert found["encoder"] == tf.float32 and found["decoder"] == tf.bfloat16
    assert found["actor"] == found["critic"] == found["heads"] == tf.float16
    lowered = Precision(32, {"image_likelihood": 16, "layernorm": "bfloat16"})
    assert lowered.dtype("image_likelihood") == tf.float16
    assert lowered.dtype("layernorm") == tf.bfloat16


def test_the_gru_follows_the_rssm_unless_it_has_its_own():
    assert Precision(32, {"rssm": 16}).dtype("rssm/gru") == tf.float16
    assert Precision(32, {"rssm": 16, "rssm/gru": 32}).dtype("rssm/gru") == tf.float32
    assert Precision(32, {"rssm/gru": 16}).dtype("rssm") == tf.float32


@pytest.mark.parametrize(
    "compute, overrides, half",
    [(32, {}, False), ("bfloat16", {}, False), (16, {}, True), (32, {"critic": 16}, True)],
)
def test_a_loss_scale_is_wanted_where_anything_is_float16(compute, overrides, half):
    assert Precision(compute, overrides).uses_float16 == half


@pytest.mark.parametrize(
    "build, match",
    [
        (lambda: Precision(64), "precision: got 64, expected 16, 32, tf32 or bfloat16"),
        (lambda: Precision(16, {"gru": 32}), "unknown module 'gru', expected one of encoder"),
        (lambda: Precision(16, {"rssm": 8}), "got 8"),
        (lambda: Precision(16).dtype("gru"), "unknown module 'gru'"),
    ],
)
def test_what_does_not_exist_is_refused(build, match):
    with pytest.raises(ValueError, match=match):
        build()


def test_the_configuration_has_a_key_for_every_module():
    assert set(defaults().precision_overrides) == set(MODULES)


# In the agent


def update(agent, steps=1):
    """Gradients by optimiser and name, and metrics, of the last of `steps` equal updates."""
    data = tiny.tensors(tiny.batch(agent))
    for _ in range(steps):
        state = agent.wm.rssm.initial(2)
        result = agent.update(data, state, tf.constant(0, tf.int64), Modes())
    return result.grads, result.metrics


@pytest.mark.parametrize(
    "precision, tolerance", [(16, 0.01), ("bfloat16", 0.06)], ids=["16", "bfloat16"]
)
@pytest.mark.parametrize("actor_grad", ["reinforce", "dynamics"])
def test_gradients_are_those_of_float32_up_to_the_rounding(precision, tolerance, actor_grad):
    settings = {"loss_scale": 256, "actor_grad": actor_grad, "rssm__norm": "layer"}
    exact, _ = update(tiny.agent(OBS, **settings))
    rounded, _ = update(tiny.agent(OBS, precision=precision, **settings))
    for name in exact:
        # Relative to all gradients of the optimiser: what counts after clipping by global norm.
        scale = tf.linalg.global_norm(exact[name])
        assert scale > 0
        difference = tf.linalg.global_norm(
            [a - b for a, b in zip(exact[name], rounded[name], strict=True)]
        )
        assert 0 < difference / scale < tolerance, name


def test_without_a_loss_scale_small_gradients_are_lost_in_float16():
    agent = tiny.agent(precision=16)
    kernel = agent.behavior.critic.layers["dense0"].kernel
    feat = tf.ones([1, agent.wm.feat_size])

    def gradient(scale):
        with tf.GradientTape() as tape:
            scaled = 1e-9 * scale * agent.behavior.critic(feat).mode()[0]
        return tape.gradient(scaled, kernel).numpy() / scale

    assert not gradient(1).any()
    assert gradient(2.0**15).any()


@pytest.mark.parametrize("precision", [16, "bfloat16"])
def test_parameters_and_what_is_kept_of_them_stay_float32(precision):
    agent = tiny.agent(OBS, precision=precision)
    update(agent)
    kinds = {v.dtype for v in agent.named_variables().values() if v.dtype.is_floating}
    assert kinds == {tf.float32, tf.float64}
    assert agent.behavior.reward_norm.mag.dtype == tf.float64


@pytest.mark.parametrize("precision", [16, "bfloat16"])
def test_losses_and_metrics_are_float32_scalars(precision):
    _, metrics = update(tiny.agent(OBS, precision=precision, loss_scale=256))
    for name, value in metrics.items():
        assert value.shape == [], name
        if value.dtype.is_floating:
            assert value.dtype == tf.float32, name
            assert np.isfinite(value), name


def test_an_agent_in_float16_skips_an_overflow_and_heals():
    agent = tiny.agent(precision=16)
    scale = agent.optimizers["model_opt"].loss_scale.scale
    scale.assign(2.0**30)
    before = {k: v.numpy() for k, v in agent.wm.named_variables().items()}
    _, metrics = update(agent)
    assert metrics["model_skipped"] == 1 and metrics["model_loss_scale"] == 2**29
    assert not np.isfinite(metrics["model_grad_norm"])
    assert metrics["actor_skipped"] == metrics["critic_skipped"] == 0
    for name, variable in agent.wm.named_variables().items():
        np.testing.assert_array_equal(variable.numpy(), before[name], name)
    scale.assign(2.0**18)  # an overflow still, but near the end of it
    skipped = [int(update(agent)[1]["model_skipped"]) for _ in range(9)]
    assert skipped[0] == 2
    assert skipped[-1] == skipped[-2] < 10, "some step was good"
    assert scale == 2.0 ** (18 - skipped[-1] + 1)
    assert any((v.numpy() != before[k]).any() for k, v in agent.wm.named_variables().items())


def test_float32_reports_no_loss_scale():
    _, metrics = update(tiny.agent())
    assert not [name for name in metrics if "scale" in name and name != "actor_ent_scale"]


# Sums


REDUCTIONS = {
    *("Sum", "Mean", "Prod", "AddN", "Cumsum", "Cumprod", "EuclideanNorm", "L2Loss"),
    *("Softmax", "LogSoftmax", "SegmentSum", "UnsortedSegmentSum"),
}


def half_reductions(function, *args):
    """Operations in the traced graph, loops and functions included, that sum halves up."""
    graph = tf.function(function).get_concrete_function(*args).graph.as_graph_def()
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    halves = {dtype.as_datatype_enum for dtype in HALF.values()}
    assert any(node.attr["T"].type in halves for node in nodes), "nothing in half precision"
    return [n.name for n in nodes if n.op in REDUCTIONS and n.attr["T"].type in halves]


def world_model_loss(agent):
    data = tiny.tensors(tiny.batch(agent))

    def loss(data):
        result = agent.wm.loss(agent.wm.preprocess(data), None, Modes())
        return result.loss, result.metrics

    return half_reductions(loss, data)


def behavior_losses(agent):
    behavior, start = agent.behavior, agent.wm.rssm.initial(6)
    start = {key: value[None] for key, value in start.items()}

    def losses(start):
        seq, _ = behavior.imagine(agent.wm, start, tf.zeros([1, 6], bool), Modes())
        targets = behavior.targets(seq)
        actor = behavior.actor_loss(seq, targets, tf.constant(0), Modes())
        return actor, behavior.critic_loss(seq, targets)

    return half_reductions(losses, start)


@pytest.mark.parametrize("precision", [16, "bfloat16"])
@pytest.mark.parametrize("discrete", [3, False])
def test_no_half_precision_sum_hides_in_the_losses(precision, discrete):
    settings = {"precision": precision, "rssm__discrete": discrete, r".*\.norm": "layer"}
    agent = tiny.agent(OBS, **settings)
    assert world_model_loss(agent) == []
    assert behavior_losses(agent) == []
    continuous = tiny.agent(OBS, tiny.ACTION, **settings)
    assert behavior_losses(continuous) == []


@pytest.mark.parametrize("module", ["image_likelihood", "layernorm"])
def test_a_half_precision_sum_that_is_asked_for_is_found(module):
    overrides = {f"precision_overrides__{module}": 16}
    agent = tiny.agent(OBS, precision=16, **{r".*\.norm": "layer"}, **overrides)
    assert world_model_loss(agent)
