"""That the agent learns, through the real run: 600 steps, under half a minute of CPU."""

import numpy as np
from corridor import Corridor

from common.log.metrics import read_metrics
from dreamerv2 import api
from dreamerv2.run.blocks import make_config

SETTINGS = {
    "steps": 600,
    "prefill": 200,
    "pretrain": 100,
    "train_every": 2,
    "log_every": 200,
    "replay": {"capacity": 10_000, "minlen": 2, "maxlen": 0},
    "dataset": {"batch": 16, "length": 8},
    "clip_rewards": "identity",
    "rssm": {"hidden": 32, "deter": 32, "stoch": 4, "discrete": 4},
    r"(encoder|decoder)\.mlp_layers": [32],
    r".*\.layers": 1,
    r".*\.units": 32,
    "loss_scales": {"vector": 50.0, "reward": 10.0, "discount": 5.0},
    "model_opt.lr": 3e-3,
    "actor_opt.lr": 1e-3,
    "critic_opt.lr": 2e-3,
    "actor_ent": 1e-2,
    "discount": 0.9,
    "imag_horizon": 6,
    "slow_target_update": 20,
}


def test_an_agent_learns_to_walk_to_the_right_end_of_a_corridor(tmp_path):
    """The mean of the last 50 returns is 1.0 with seeds 0 and 1.

    It is 0.0 with random rewards at the ends, and -1.0 with the actions of a batch one row early.
    """
    api.train(Corridor(), make_config([], {"logdir": str(tmp_path), **SETTINGS}))
    rows = read_metrics(tmp_path / "metrics.jsonl")
    returns = [row["train_return"] for row in rows if "train_return" in row]
    assert np.mean(returns[:25]) < 0.5, "random walks reach either end"
    assert np.mean(returns[-50:]) > 0.9
