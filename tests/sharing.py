"""Compares updates that replicas share with those of one agent; prints JSON.

python tests/sharing.py                    two logical CPU devices in this process
python tests/sharing.py INDEX PORT PORT    one of two workers on this machine
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import tensorflow as tf
import tiny

from common import cluster
from common.nn.draws import Modes
from dreamerv2.agent import agent as agent_module
from dreamerv2.agent.parallel import ParallelAgent

ROWS = 4
OBS = {"image": tiny.IMAGE, "vector": tiny.VECTOR}
# Every running statistic is on.
SETTINGS = {
    "encoder__image_net": "mlp",
    "decoder__image_net": "mlp",
    "encoder__image_stats": True,
    "decoder__image_dist": "contrast",
    "reward_norm__momentum": 0.9,
    "expl_behavior": "Plan2Explore",
    "expl_reward_norm__momentum": 0.9,
    "disag_models": 2,
    "slow_target_update": 2,
    r"(model|actor|critic|expl)_opt\.clip": 0.1,
}


def connect(argv):
    """The strategy, and which worker this is."""
    if not argv:
        cpu = tf.config.list_physical_devices("CPU")[0]
        half = tf.config.LogicalDeviceConfiguration()
        tf.config.set_logical_device_configuration(cpu, [half, half])
        workers = cluster.ALONE
    else:
        index, *ports = map(int, argv)
        workers = cluster.Cluster(tuple(f"127.0.0.1:{port}" for port in ports), index)
    kind, count = cluster.count_devices("all")
    return cluster.make_strategy(kind, count, workers, show=lambda text: None), workers


def share_of(batch, workers):
    """The rows of this worker."""
    return {k: np.split(v, workers.size)[workers.index] for k, v in batch.items()}


def between_the_shares():
    """Free nats that one half of the first batch does not exceed, while the whole does."""
    agent = tiny.agent(OBS, **SETTINGS)
    data = agent.wm.preprocess(tiny.tensors(tiny.batch(agent, ROWS)))
    agent.wm.encoder.update_stats(data)  # as an update does before its loss
    agent.wm.decoder.update_bounds(data)
    halves = np.split(agent.wm.loss(data, None, Modes()).kl.numpy(), 2)
    means = sorted(half.mean() for half in halves)
    return float(0.7 * means[0] + 0.3 * means[1])


def compare(strategy, workers):
    """Three updates of one agent on whole batches, and of replicas on their shares."""
    one = tiny.agent(OBS, **SETTINGS, kl__free=between_the_shares())
    config = one.config.update({"jit": True})  # as runs are; the other needs no graph
    shared = ParallelAgent(config, one.obs_space, one.act_space, strategy, workers.index)
    start = one.state_dict()
    states, metrics = [None, None], []
    for number in range(3):
        batch = tiny.batch(one, ROWS, seed=number)
        states[0], theirs = one.train(batch, states[0], number)
        states[1], ours = shared.train(share_of(batch, workers), states[1], number)
        metrics += [
            abs(float(ours[k]) / float(v) - 1)
            for k, v in theirs.items()
            if k.endswith(("_loss", "_grad_norm"))
        ]
    ours, theirs = shared.state_dict(), one.state_dict()
    learned = [k for k, v in theirs.items() if v.dtype.kind == "f" and (v != start[k]).any()]
    changes = {k: np.linalg.norm(theirs[k] - start[k]) for k in learned}
    return {
        "learned": len(learned),
        "difference": max(float(np.abs(ours[k] - theirs[k]).max()) for k in theirs),
        "relative": float(max(np.linalg.norm(ours[k] - theirs[k]) / changes[k] for k in learned)),
        "metrics": max(metrics),
        "equal": all(
            (a.numpy() == b.numpy()).all()
            for copy in shared._replicas
            for a, b in zip(copy.variables, shared.variables, strict=True)
        ),
        "checksum": float(sum(np.abs(v.astype(np.float64)).sum() for v in ours.values())),
        "seeds": [copy._seeds["train"] for copy in shared._replicas],
    }


def overflow(strategy, workers):
    """At precision 16, an update in which the gradients of the last share alone overflow."""
    config = tiny.config(precision=16)
    one = tiny.agent()
    agent = ParallelAgent(config, one.obs_space, one.act_space, strategy, workers.index)
    start = agent.state_dict()
    batch = tiny.batch(agent, ROWS)
    batch["vector"][-1, -1] = 5e3
    _, metrics = agent.train(share_of(batch, workers))
    after = agent.state_dict()
    optimizers = [copy.optimizers["model_opt"] for copy in agent._replicas]
    return {
        "changed": [k for k in after if k.startswith("wm/") and (after[k] != start[k]).any()],
        "scales": [float(optimizer.loss_scale.scale) for optimizer in optimizers],
        "skipped": [int(optimizer.skipped) for optimizer in optimizers],
        "metric": float(metrics["model_skipped"]),
    }


if __name__ == "__main__":
    agent_module.Draws = lambda seed: Modes()
    found = connect(sys.argv[1:])
    print(json.dumps(compare(*found) | {"overflow": overflow(*found)}))
