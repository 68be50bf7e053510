"""That each name of `precision_overrides` lowers its own operations in the graph, no others."""

import functools
import math

import pytest
import tensorflow as tf
import tiny

from common.nn.draws import Modes
from dreamerv2.agent.precision import MODULES

OBS = {"image": tiny.IMAGE, "vector": tiny.VECTOR}
# Sizes that tell the layers of the RSSM and of the GRU apart.
SIZES = {"rssm__hidden": 10, "rssm__deter": 7, r".*\.norm": "layer"}
GRU_UNITS = 3 * 7
MIXED = (16, "bfloat16", 16, 32, 16, "bfloat16", 16, 16, "bfloat16")  # one for each module


def dtypes(function, *args, kinds, where=lambda output: True):
    """Dtypes of the operations of some kinds in the graph of a function, loops included."""
    graph = tf.function(function, autograph=False).get_concrete_function(*args).graph
    operations = [op for op in all_operations(graph) if op.type in kinds]
    found = {op.outputs[0].dtype for op in operations if where(op.outputs[0])}
    assert found, f"no {kinds} in the graph"
    return found


def all_operations(graph):
    """Those of the graph and of the bodies of its loops."""
    for op in graph.get_operations():
        yield op
        for attribute in ("body", "f"):
            if attribute in op.node_def.attr:
                name = op.get_attr(attribute).name
                yield from all_operations(graph._get_function(name).graph)


def probes(agent):
    """By module: the dtypes that its own operations have."""
    wm, behavior = agent.wm, agent.behavior
    data = wm.preprocess(tiny.tensors(tiny.batch(agent)))
    feat = tf.zeros([2, 4, wm.feat_size])
    embed = tf.zeros([2, 4, wm.encoder.embed_size])
    products = functools.partial(dtypes, kinds=("MatMul", "Conv2D"))

    def observe(data):
        return wm.rssm.observe(embed, data["action"], data["is_first"], None, Modes())

    def of_gru(output):
        return output.shape[-1] == GRU_UNITS

    def likelihood(data):
        return wm.decoder(feat)["image"].log_prob(data["image"])

    return {
        "encoder": products(lambda: wm.encoder(data)),
        "rssm": products(observe, data, where=lambda output: not of_gru(output)),
        "rssm/gru": products(observe, data, where=of_gru),
        "decoder": products(lambda: wm.decoder(feat)["image"].mode()),
        "heads": products(lambda: [head(feat).mean() for head in wm.heads.values()]),
        "actor": products(lambda: behavior.actor(feat, Modes()).logits),
        "critic": products(lambda: behavior.critic(feat).mode())
        | products(lambda: behavior.slow_critic(feat).mode()),
        "image_likelihood": dtypes(likelihood, data, kinds=("Sum",)),
        "layernorm": dtypes(lambda: behavior.critic(feat).mode(), kinds=("Rsqrt",))
        | dtypes(lambda: wm.encoder(data), kinds=("Rsqrt",)),
    }


@pytest.mark.parametrize("module", MODULES)
def test_an_override_lowers_its_own_module_and_no_other(module):
    agent = tiny.agent(OBS, **SIZES, **{f"precision_overrides__{module}": "bfloat16"})
    for name, found in probes(agent).items():
        lowered = name == module or (name, module) == ("rssm/gru", "rssm")
        assert found == {tf.bfloat16 if lowered else tf.float32}, name


@pytest.mark.parametrize("module", ["encoder", "rssm", "rssm/gru", "critic"])
def test_an_override_keeps_its_own_module_at_float32(module):
    agent = tiny.agent(OBS, precision=16, **SIZES, **{f"precision_overrides__{module}": 32})
    for name, found in probes(agent).items():
        kept = name == module or (name, module) == ("rssm/gru", "rssm")
        kept = kept or name in ("image_likelihood", "layernorm")
        assert found == {tf.float32 if kept else tf.float16}, name


def test_all_of_them_together_train():
    overrides = {f"precision_overrides__{m}": p for m, p in zip(MODULES, MIXED, strict=True)}
    agent = tiny.agent(OBS, loss_scale=1, **SIZES, **overrides)
    _, metrics = agent.train(tiny.batch(agent))
    assert [name for name, value in metrics.items() if not math.isfinite(value)] == []
    assert metrics["model_skipped"] == 0
