"""How long an update and everything around it takes, and what the machine could do."""

import itertools
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common import config as cfg
from common.config import Config
from common.device import gpu_name, import_tensorflow, processor
from common.files import write_json
from common.report.tables import table
from dreamerv2.measure.apart import apart
from dreamerv2.run.blocks import defaults, make_config

SIZES = {"full": ("atari",), "small": ("atari", "small")}
EPISODE_STEPS = 500
# Keys that decide what an update computes.
NETWORKS = re.compile(r"(encoder|decoder|rssm|reward_head|discount_head|actor|critic)\.|features$")
# Keys that decide how much it computes.
WORK = re.compile(rf"{NETWORKS.pattern}|dataset\.|imag_horizon$|expl_behavior$|pred_discount$")
MATRIX = 4096  # rows and columns of the large matrix product


class Job(NamedTuple):
    """What one process measures."""

    size: str
    precision: str
    config: Config


def make_jobs(sizes: Sequence[str], precisions: Sequence[str], flags: Sequence[str]) -> list[Job]:
    """One job per size and precision; ConfigError for what is not accepted.

    sizes: keys of `SIZES`, or blocks joined by `+`. flags: of train.
    """
    changes = cfg.split_flags(flags)
    jobs = []
    for size, precision in itertools.product(sizes, precisions):
        config = make_config(SIZES.get(size) or size.split("+"))
        config = config.update_flags([*changes, ("precision", [precision])])
        jobs.append(Job(size, precision, config))
    return jobs


def check_jobs(jobs: Sequence[Job]) -> None:
    """ValueError where a job's environment cannot be made, or its values do not fit that."""
    from dreamerv2.run.check import check
    from dreamerv2.run.environments import configured_env

    for job in jobs:
        env = configured_env(job.config, "train", job.config.seed)
        try:
            check(job.config, env.act_space, env.obs_space)
        finally:
            env.close()


def measure_all(
    jobs: Sequence[Job], path: Path | None, against: Path | None = None
) -> list[dict[str, Any]]:
    """Measures each job in a process of its own, and says what it found before the next begins.

    path: gets the results so far as JSON.
    against: a checkout of the author's code (see `author_folder`), which is timed after each job.
    """
    results = []
    for number, (size, precision, config) in enumerate(jobs, 1):
        what = f"{size}, precision {precision}"
        print(f"[{number}/{len(jobs)}] {what} ...", flush=True)
        start = time.perf_counter()
        results.append(apart(what, measure, size, config.flat))
        print(found(what, results[-1], time.perf_counter() - start), flush=True)
        if against:
            results[-1] |= measure_author(against, config, results[-1])
        if path:
            write_json(path, {"machine": machine(), "results": results})
    return results


def found(what: str, result: Mapping[str, Any], seconds: float) -> str:
    """The main figures of one job; they stay on the screen if a later job is stopped or fails."""
    return (
        f"{what}: an update takes {result['update_seconds']:.3f} s, "
        f"a policy step {result['policy_ms']:.2f} ms, "
        f"training {result['frames_per_second']:.0f} env frames/s (measured in {seconds:.0f} s)"
    )


class AuthorCodeError(Exception):
    """The author's code cannot be timed."""


def author_folder(path: Path) -> Path:
    """Where `agent.py` of the author's code is in its checkout; ValueError where it is not."""
    for folder in (path, path / "dreamerv2"):
        if all((folder / name).is_file() for name in ("agent.py", "configs.yaml")):
            if not isinstance(cfg.load_yaml(folder / "configs.yaml").get("defaults"), dict):
                raise ValueError(f"--against: {folder / 'configs.yaml'} has no block defaults")
            return folder
    raise ValueError(f"--against {path}: expected agent.py and configs.yaml of the author's code")


def unknown_to(path: Path, config: Config) -> list[str]:
    """Keys of networks that differ from our defaults and are not among the author's keys."""
    theirs = cfg.flatten(cfg.load_yaml(path / "configs.yaml")["defaults"])
    ours, usual = config.flat, defaults().flat
    return [k for k in ours if NETWORKS.match(k) and k not in theirs and ours[k] != usual[k]]


def measure_author(path: Path, config: Config, ours: Mapping[str, Any]) -> dict[str, Any]:
    """Update and policy of the author's code at the same settings, and how many times ours.

    Raises:
        AuthorCodeError: it does not run here (the message is its last line), or the networks have
            settings that it does not know.
    """
    only_ours = unknown_to(path, config)
    if only_ours:
        raise AuthorCodeError(f"--against: the author's code does not know {', '.join(only_ours)}")
    script = Path(__file__).with_name("author.py")
    done = subprocess.run(
        [sys.executable, script, path],
        input=json.dumps(config.flat),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise AuthorCodeError(f"--against {path}: the author's code ended with: {last}")
    theirs = json.loads(done.stdout.splitlines()[-1])
    return {
        "author_update_seconds": theirs["update_seconds"],
        "author_update_ratio": theirs["update_seconds"] / ours["update_seconds"],
        "author_policy_ms": theirs["policy_ms"],
        "author_policy_ratio": theirs["policy_ms"] / ours["policy_ms"],
    }


def machine() -> str:
    """Processor, cores and TensorFlow, for the head of a table."""
    tensorflow = f"TensorFlow {import_tensorflow().__version__}"
    parts = [processor(), f"{os.cpu_count()} cores", gpu_name(), tensorflow]
    return ", ".join(filter(None, parts))


def measure(size: str, flat: Mapping[str, Any]) -> dict[str, Any]:
    """All figures of one configuration; times are medians in seconds unless the name says ms."""
    import_tensorflow()
    import dreamerv2.agent.agent  # noqa: F401  (its import is not part of the first update)
    from dreamerv2.run.environments import configured_env
    from dreamerv2.run.factory import make_agent

    config = defaults().update(flat)
    env = configured_env(config, "train", config.seed)
    start = time.perf_counter()
    agent = make_agent(config, env.obs_space, env.act_space)
    batch = random_batch(agent)
    agent.train(batch)
    result: dict[str, Any] = {"size": size, "precision": str(config.precision)}
    result["first_update_seconds"] = time.perf_counter() - start
    state, _ = agent.train(batch)
    rate = matmul_gflops(agent.precision.compute, agent.devices)

    def update():
        return agent.train(batch, state)[1]["model_loss"].numpy()

    result["update_seconds"] = _median(update)
    result["update_cpu_seconds"] = _median(update, time.process_time)
    result["matmul_gflops"] = (rate + matmul_gflops(agent.precision.compute, agent.devices)) / 2
    result["peak_memory_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    result |= _share(size, agent, batch, result)
    # Parts are traced alone, on one device and without XLA. They say nothing about an update that
    # several devices share, or that XLA compiles as one: such an update takes less than their sum.
    whole = len(agent.devices) > 1 or (config.jit and config.xla)
    result["parts_seconds"] = {} if whole else _parts(agent, batch)
    result["policy_ms"] = _policy_ms(agent, env)
    result["env_steps_per_second"] = _env_rate(env)
    result |= _replay(config, agent, env)
    result |= _end_to_end(config, result)
    return result


def matmul_gflops(dtype, devices: Sequence[str] = ("",), size: int = MATRIX) -> float:
    """The machine's rate for a large matrix product, one on each device at the same time."""
    import tensorflow as tf

    matrix = tf.cast(tf.random.normal([size, size]), dtype)

    @tf.function(autograph=False)
    def products():
        corners = []
        for device in devices:
            with tf.device(device):
                corners.append(tf.matmul(matrix, matrix)[0, 0])
        return corners

    seconds = _median(lambda: [corner.numpy() for corner in products()])
    return len(devices) * 2 * size**3 / seconds / 1e9


def _median(
    function: Callable[[], Any],
    clock: Callable[[], float] = time.perf_counter,
    repeats: int = 5,
) -> float:
    """Median time of a call after the first. clock: `time.process_time` for CPU seconds."""
    function()
    times = []
    for _ in range(repeats):
        start = clock()
        function()
        times.append(clock() - start)
    return statistics.median(times)


def random_batch(agent) -> dict[str, np.ndarray]:
    """Rows of the right shapes; what is in them makes no difference to the time."""
    config, rng = agent.config, np.random.default_rng(0)
    lead = (config.dataset.batch, config.dataset.length)
    batch = {}
    for key in agent.wm.input_keys:
        space = agent.obs_space[key]
        if space.dtype == np.uint8:
            batch[key] = rng.integers(0, 256, lead + space.shape, np.uint8)
        else:
            batch[key] = np.zeros(lead + space.shape, space.dtype)
    batch["is_first"][:, 0] = True
    shape = lead + agent.act_space.shape
    batch["action"] = np.broadcast_to(agent.act_space.sample(), shape).copy()
    return batch


def _share(size: str, agent, batch, result) -> dict[str, Any]:
    """GFLOP/s, and the fraction of the matrix-product rate."""
    from common.nn.flops import REFERENCE_GFLOP, count_gflop

    function = agent._train.get_concrete_function(*agent.train_inputs(batch))
    counted = count_gflop(function, agent.config.dataset.length)
    usual = size in SIZES and _same_work(agent.config, make_config(SIZES[size]))
    gflop = REFERENCE_GFLOP[size] if usual else counted
    gflops = gflop / result["update_seconds"]
    return {
        "gflop": gflop,
        "gflop_counted": counted,
        "gflops": gflops,
        "fraction": gflops / result["matmul_gflops"],
    }


def _same_work(config: Config, other: Config) -> bool:
    """Whether an update computes as much, whatever the precision and the devices."""
    keys = [key for key in config.flat if WORK.match(key)]
    return all(config[key] == other[key] for key in keys)


def _parts(agent, batch) -> dict[str, float]:
    """Seconds of the parts of an update, each traced alone.

    Some are differences of two times, which are 0 where noise makes them negative.
    """
    import tensorflow as tf

    from common.nn.draws import Draws
    from dreamerv2.agent.exploration import Explorer

    batch, _, agent_steps = agent.train_inputs(batch)
    wm, draws, model = agent.wm, Draws([0, 0]), agent.optimizers["model_opt"]

    def forward():
        return wm.loss(wm.preprocess(batch), None, draws)

    def gradients():
        with tf.GradientTape() as tape:
            loss = forward().loss
        return tape.gradient(loss, model.owned, unconnected_gradients="zero")

    start = tf.function(lambda: forward().post, autograph=False)()
    ones = [tf.ones_like(variable) for variable in model.owned]

    def imagination():
        seq, _ = agent.behavior.imagine(wm, start, batch["is_terminal"], draws)
        return agent.behavior.targets(seq).returns

    def behavior():
        terminal, optimizers = batch["is_terminal"], agent.optimizers
        learned = agent.behavior.learn(wm, start, terminal, agent_steps, draws, optimizers)
        return learned.metrics["critic_loss"]

    def exploration():
        model = forward()
        data = wm.preprocess(batch)
        return agent.expl.learn(wm, model, data, agent_steps, draws).metrics["expl_critic_loss"]

    def seconds(part):
        function = tf.function(part, autograph=False)
        return _median(lambda: np.sum(tf.nest.flatten(function())[0]))

    def beyond(part, before):
        return max(seconds(part) - before, 0.0)

    forward_s, imagination_s = seconds(lambda: forward().loss), seconds(imagination)
    explores = isinstance(agent.expl, Explorer)
    extra = {"exploration": beyond(exploration, forward_s)} if explores else {}
    return {
        "model forward": forward_s,
        "model backward": beyond(gradients, forward_s),
        "model optimiser": seconds(lambda: model.apply(ones).norm),
        "imagination": imagination_s,
        "actor and critic": beyond(behavior, imagination_s),
        **extra,
    }


def _policy_ms(agent, env, calls: int = 200) -> float:
    """Milliseconds from an observation to an action, as the training loop gets them."""
    obs, state = env.reset(), None
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        _, state = agent.act(obs, state, "train")
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def _env_rate(env, steps: int = 2000) -> float:
    """Agent steps per second under random actions, resets included."""
    obs = env.reset()
    actions = [env.act_space.sample() for _ in range(64)]
    start = time.perf_counter()
    for step in range(steps):
        obs = env.reset() if obs["is_last"] else env.step(actions[step % len(actions)])
    return steps / (time.perf_counter() - start)


def _replay(config: Config, agent, env, batches: int = 50) -> dict[str, float]:
    """Batches and chunks per second, and the memory of 100k stored steps."""
    from dreamerv2.run.factory import make_replay

    with tempfile.TemporaryDirectory() as directory:
        config = config.update({"logdir": directory})
        replay = make_replay(config, "train", 0, agent)
        length = max(EPISODE_STEPS, config.dataset.length, config.replay.minlen)
        row = env.reset() | {"action": np.zeros(env.act_space.shape, np.float32)}
        for step in range(4 * length):
            first, last = step % length == 0, step % length == length - 1
            row = env.step(env.act_space.sample()) | {"action": env.act_space.sample()}
            flags = {"is_first": first, "is_last": last, "is_terminal": last}
            replay.add_step(row | {k: np.asarray(v) for k, v in flags.items()})
            if row["is_last"]:
                env.reset()
        iterator = replay.batches(config.dataset.batch, config.dataset.length)
        next(iterator)
        start = time.perf_counter()
        for _ in range(batches):
            next(iterator)
        rate = batches / (time.perf_counter() - start)
        stats = replay.stats
    megabytes = stats["memory_bytes"] / stats["loaded_steps"] * 1e5 / 1e6
    return {
        "replay_batches_per_second": rate,
        "replay_chunks_per_second": rate * config.dataset.batch,
        "replay_mb_per_100k_steps": megabytes,
    }


def _end_to_end(config: Config, result: Mapping[str, Any]) -> dict[str, Any]:
    """Frames per second that the parts predict for the training loop, and what bounds them."""
    batch_seconds = 1 / result["replay_batches_per_second"]
    updates_per_step = config.train_steps / config.train_every
    step_seconds = {
        "environment": 1 / result["env_steps_per_second"],
        "policy": result["policy_ms"] / 1e3,
        "replay": batch_seconds * updates_per_step,
        "updates": result["update_seconds"] * updates_per_step,
    }
    total = sum(step_seconds.values())
    bound = max(step_seconds, key=step_seconds.__getitem__)
    return {
        "frames_per_second": config.action_repeat / total,
        "bound_by": bound,
        "bound_share": step_seconds[bound] / total,
        "step_share": {name: seconds / total for name, seconds in step_seconds.items()},
    }


_ROWS = {
    "one update [s]": ("update_seconds", ".3f"),
    "one update [CPU s, all threads]": ("update_cpu_seconds", ".3f"),
    "operations [GFLOP]": ("gflop", ".0f"),
    "rate [GFLOP/s]": ("gflops", ".0f"),
    "large matrix product [GFLOP/s]": ("matmul_gflops", ".0f"),
    "fraction": ("fraction", ".2f"),
    "first update done after [s]": ("first_update_seconds", ".1f"),
    "policy step [ms]": ("policy_ms", ".2f"),
    "environment [agent steps/s]": ("env_steps_per_second", ".0f"),
    "replay [batches/s]": ("replay_batches_per_second", ".0f"),
    "replay [chunks/s]": ("replay_chunks_per_second", ".0f"),
    "replay [MB per 100k steps]": ("replay_mb_per_100k_steps", ".0f"),
    "peak memory [GiB]": ("peak_memory_gib", ".2f"),
    "training loop [env frames/s]": ("frames_per_second", ".0f"),
    "author's code, one update [s]": ("author_update_seconds", ".3f"),
    "- update, times ours": ("author_update_ratio", ".2f"),
    "author's code, policy step [ms]": ("author_policy_ms", ".2f"),
    "- policy, times ours": ("author_policy_ratio", ".2f"),
}


def report(results: Sequence[Mapping[str, Any]]) -> str:
    """One Markdown table, a column per size and precision, and a line on what bounds each."""
    rows = [["", *(f"{r['size']}, {r['precision']}" for r in results)]]
    for name, (key, form) in _ROWS.items():
        if key in results[0]:
            rows.append([name, *(format(r[key], form) for r in results)])
    for part in dict.fromkeys(part for r in results for part in r["parts_seconds"]):
        seconds = (r["parts_seconds"].get(part) for r in results)
        rows.append([f"- {part} [s]", *("" if s is None else f"{s:.3f}" for s in seconds)])
    bounds = [
        f"{r['size']}, {r['precision']}: {r['bound_share']:.0%} of the loop is {r['bound_by']}"
        for r in results
    ]
    return "\n".join([machine(), "", table(rows), "", *bounds])
