"""Sweeps on a real Ray cluster: two nodes on this machine, of which one dies."""

import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

from common.log.metrics import read_metrics
from dreamerv2.jobs import record

pytestmark = [pytest.mark.slow]
ray = pytest.importorskip("ray")
STEPS, LOG_EVERY = 1500, 60
# What compiles sooner.
SHORT = "--dataset.length 4 --replay.maxlen 4 --imag_horizon 2 --xla False"
TRAIN = f"--configs minatar debug --steps {STEPS} --save_every 1 --eval_every {STEPS} {SHORT}"


@pytest.fixture
def cluster(monkeypatch):
    """Two nodes with room for one run each."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_worker_niceness", "0")  # what else the machine does is as important
    node = {"num_cpus": 1, "include_dashboard": False, "include_log_monitor": False}
    made = Cluster(initialize_head=True, head_node_args=node)
    made.add_node(**node)
    yield made
    made.shutdown()


@pytest.fixture
def sweep(tmp_path, project, cluster):
    """Starts sweeps into `tmp_path / "root"`; what is left at the end is ended."""
    started = []

    def start(*words):
        command = [sys.executable, "-m", "dreamerv2.sweep", "--logdir", str(tmp_path / "root")]
        out = tmp_path / f"out{len(started)}"
        with out.open("w") as file:
            process = subprocess.Popen(
                [*command, *TRAIN.split(), "--ray", cluster.address, *words],
                cwd=project,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        return process, out

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for(condition, seconds=900):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def trainings(place):
    """Processes that train below a directory."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "dreamerv2.train" in words and any(word.startswith(str(place)) for word in words):
            found.append(process)
    return found


def kill_node(node, place):
    """As if its power was cut: the raylet and all that it started; the names of the runs there."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    below = raylet.children(recursive=True)
    mine = [process for process in trainings(place) if process in below]
    names = [re.search(r"seed=\d", " ".join(process.cmdline()))[0] for process in mine]
    for process in (raylet, *below):
        process.send_signal(signal.SIGKILL)
    return names


@pytest.mark.parametrize("stored", [False, True], ids=["shared", "stored"])
def test_a_node_dies_and_all_runs_finish_none_twice_without_a_gap(tmp_path, cluster, sweep, stored):
    root, store = tmp_path / "root", tmp_path / "store"
    words = ["--grid", "seed=0:3", *(["--storage", f"file://{store}"] if stored else [])]
    process, out = sweep(*words)
    place = store if stored else root
    node = max(cluster.worker_nodes, key=lambda node: node.unique_id)

    def saved():
        """Agent steps of the latest checkpoints, while both nodes are in the middle of a run."""
        kept = {path.parents[1].name: int(path.stem) for path in place.glob("*/checkpoints/*.npz")}
        return len(kept) == len(trainings(root)) == 2 and min(kept.values()) > STEPS / 5 and kept

    kept = wait_for(saved)
    (killed,) = kill_node(node, root)
    assert process.wait(timeout=1800) == 0, out.read_text()
    table = [line.split("|") for line in out.read_text().splitlines()[-3:]]
    assert [row[1].strip() for row in table] == ["seed=0", "seed=1", "seed=2"]
    assert all(row[3].strip() == "finished" for row in table)
    assert trainings(tmp_path) == []
    for number in range(3):
        name = f"seed={number}"
        log = record.log_path(root / name).read_text()
        assert log.count("Device: ") == (2 if name == killed else 1)
        assert log.count("Done: ") == 1
        resumed = re.search(r"Resuming at agent step ([\d,]+)", log)
        assert bool(resumed) == (name == killed)
        if resumed:
            assert int(resumed[1].replace(",", "")) >= kept[killed] > 0
        rows = [row for row in read_metrics(root / name / "metrics.jsonl") if "updates" in row]
        steps = [row["step"] for row in rows]
        assert {b - a for a, b in zip(steps, steps[1:], strict=False)} == {LOG_EVERY}
        assert steps[-1] > STEPS - LOG_EVERY
        assert (place / name / "checkpoints" / f"{STEPS:012d}.npz").exists()
        assert any((place / name / "train_episodes").iterdir())
    if stored:
        assert not any(path.is_file() for path in place.rglob(".*"))

    again, out = sweep(*words)
    assert again.wait(timeout=300) == 0
    assert "3 of 3 runs are finished already" in out.read_text()


def test_a_driver_that_is_killed_leaves_nothing_and_the_next_one_goes_on(tmp_path, sweep):
    root = tmp_path / "root"
    first, _ = sweep("--grid", "seed=0:1")
    wait_for(lambda: list(root.glob("seed=0/checkpoints/*.npz")))
    (training,) = trainings(root)
    second, out = sweep("--grid", "seed=0:1")
    wait_for(lambda: "waiting for it" in out.read_text())
    os.kill(first.pid, signal.SIGKILL)
    wait_for(lambda: not training.is_running())
    assert second.wait(timeout=1800) == 0
    assert "ended after" in out.read_text() and "it goes on" in out.read_text()
    log = record.log_path(root / "seed=0").read_text()
    assert log.count("Done: ") == 1 and log.count("Resuming at agent step") == 1


def test_a_signal_lets_the_runs_save_and_a_broken_run_is_not_tried_again(tmp_path, sweep):
    root = tmp_path / "root"
    process, out = sweep("--grid", "seed=0:1 task=minatar_breakout,minatar_nothing")
    wait_for(lambda: list(root.glob("*breakout/checkpoints/*.npz")))
    wait_for(lambda: "FAILED after" in out.read_text())
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == 128 + signal.SIGTERM
    logs = {path.name: path.read_text() for path in root.glob("*.log")}
    assert "Saved at agent step" in logs["seed=0,task=minatar_breakout.log"]
    broken = logs["seed=0,task=minatar_nothing.log"]
    assert broken.count("error: ") == 2  # its own line, and the one that ends the log
    assert trainings(tmp_path) == []
