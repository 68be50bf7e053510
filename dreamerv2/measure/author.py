"""Times a checkout of the author's TF2 code: `author.py PATH`, the configuration as JSON on stdin.

It is run as a script, in a process of its own: the author's packages are called `common` and
`agent` as well. It prints one line of JSON: `update_seconds` and `policy_ms`, medians, and
`version`, that of TensorFlow.
"""

import importlib
import json
import pathlib
import statistics
import sys
import time
import types

import numpy as np

POLICIES = {16: "mixed_float16", "bfloat16": "mixed_bfloat16"}


def main(path: str) -> None:
    """Measures the checkout whose `agent.py` is in `path`."""
    # A script's own folder comes first in sys.path; nothing of ours may be found there.
    sys.path[0] = path
    flat = json.load(sys.stdin)
    import tensorflow as tf

    policy = POLICIES.get(flat["precision"])
    if policy:
        tf.keras.mixed_precision.set_global_policy(policy)
    from ruamel.yaml import YAML

    author, common = importlib.import_module("agent"), importlib.import_module("common")
    blocks = YAML(typ="safe").load(pathlib.Path(path, "configs.yaml"))
    config = common.Config(blocks["defaults"])
    config = config.update({k: v for k, v in flat.items() if k in config.flat and k != "precision"})
    size, actions = (*flat["render_size"], 1), 4
    space = types.SimpleNamespace  # of a space, the author's agent reads these attributes only
    obs_space = {"image": space(shape=size, dtype=np.uint8)}
    agent = author.Agent(
        config, obs_space, {"action": space(shape=(actions,), n=actions)}, common.Counter(0)
    )
    batch = rows(size, actions, (config.dataset.batch, config.dataset.length))
    first = {k: v[:1, 0] for k, v in batch.items() if k != "action"}
    carried = {"train": None, "policy": None}

    def update():
        carried["train"], metrics = agent.train(batch, carried["train"])
        return metrics["model_loss"].numpy()

    def act():
        out, carried["policy"] = agent.policy(first, carried["policy"], mode="train")
        return out["action"].numpy()

    result = {"update_seconds": median(update, 5), "policy_ms": median(act, 200) * 1e3}
    print(json.dumps(result | {"version": tf.__version__}))


def rows(size, actions, lead):
    """A batch of rows with the shapes that the author's replay gives."""
    rng = np.random.default_rng(0)
    zeros = {k: np.zeros(lead, bool) for k in ("is_first", "is_last", "is_terminal")}
    return zeros | {
        "image": rng.integers(0, 256, (*lead, *size), np.uint8),
        "action": np.eye(actions, dtype=np.float32)[rng.integers(0, actions, lead)],
        "reward": np.zeros(lead, np.float32),
    }


def median(function, repeats):
    """Seconds of a call, after two that trace the graphs: without a state and with one."""
    function(), function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main(sys.argv[1])
