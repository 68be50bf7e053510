"""What a node of a cluster does with a run, without the cluster."""

import signal
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from common.data.replay import machine_memory
from dreamerv2.jobs import record

cluster = pytest.importorskip("dreamerv2.jobs.cluster", exc_type=ImportError)

# Stands in for training: a row, an episode and a checkpoint for every 100 steps. The first time it
# kills itself in the middle, as a machine without memory would.
TRAIN = """
import os, pathlib, sys
logdir = pathlib.Path(sys.argv[1])
for name in ("checkpoints", "train_episodes"):
    (logdir / name).mkdir(parents=True, exist_ok=True)
done = len(list((logdir / "checkpoints").iterdir()))
print("Resuming at", 100 * done, flush=True)
for number in range(done + 1, 5):
    with (logdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": %d}\\n' % (100 * number))
    (logdir / "train_episodes" / f"{number}.npz").touch()
    (logdir / "checkpoints" / f"{100 * number:012d}.npz").touch()
    if not done and number == 2:
        os.kill(os.getpid(), 9)
"""
SAVING = """
import pathlib, signal, sys, time
def save(number, _):
    print("saved", flush=True)
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(60)
"""
BROKEN = "import sys; sys.exit('error: the model gradient is not finite')"


class Died(BaseException):
    """In place of the end of a worker."""


@pytest.fixture
def training(tmp_path, monkeypatch):
    """Makes the actor of a run on a node, and in no cluster."""

    def died(code):
        raise Died

    monkeypatch.setattr(cluster.os, "_exit", died)
    monkeypatch.setattr(cluster, "POLL", 0.01)

    def make(script, node="a", *, storage="", share=False, cpus=1, gpus=0, has=None):
        here = SimpleNamespace(get_node_id=lambda: node)
        monkeypatch.setattr(cluster.ray, "get_runtime_context", lambda: here)
        found = [{"NodeID": node, "Resources": has or {"CPU": 8.0}}]
        monkeypatch.setattr(cluster.ray, "nodes", lambda: found)
        logdir = tmp_path / "root" / "seed=0"
        command = ("another python", "-c", script, str(logdir))
        task = cluster.Task(logdir, command, tmp_path, 400, share, cpus, gpus, storage)
        return cluster.Training(task)

    return make


@pytest.mark.parametrize("stored", [False, True])
def test_what_something_else_killed_goes_on_elsewhere_without_a_gap(tmp_path, training, stored):
    place = tmp_path / ("store" if stored else "root")
    storage = f"file://{place}" if stored else ""
    with pytest.raises(Died):  # and Ray starts it again
        training(TRAIN, "a", storage=storage).make()
    assert training(TRAIN, "b", storage=storage).make() == (0, "")
    lines = (place / "seed=0" / "metrics.jsonl").read_text().splitlines()
    assert lines == [f'{{"step": {step}}}' for step in (100, 200, 300, 400)]
    for name in ("checkpoints", "train_episodes"):
        assert len(list((place / "seed=0" / name).iterdir())) == 4
    assert (place / "seed=0.log").read_text() == "Resuming at 0\nResuming at 200\n"
    if stored:
        assert [path for path in (tmp_path / "root").rglob("*") if path.is_file()] == []


def test_what_a_dead_node_left_on_this_machine_is_removed(tmp_path, training):
    left = tmp_path / "root" / cluster.SCRATCH / "dead" / "seed=0"
    (left / "checkpoints").mkdir(parents=True)
    other = left.with_name("seed=1")
    other.mkdir()
    training(TRAIN.replace("2:", "9:"), storage=f"file://{tmp_path}/store").make()
    assert not left.exists() and other.exists()


def test_what_broke_by_itself_is_not_made_again(tmp_path, training):
    store = tmp_path / "store"
    expected = 1, "the model gradient is not finite"
    assert training(BROKEN, storage=f"file://{store}").make() == expected
    assert (store / "seed=0.log").read_text().count("error: ") == 2  # its own, and the last line


def test_a_run_that_is_stopped_saves_and_one_that_has_not_begun_does_not_begin(tmp_path, training):
    run = training(SAVING)
    log = record.log_path(tmp_path / "root" / "seed=0")

    def stop():
        while not (log.exists() and "ready" in log.read_text()):
            time.sleep(0.01)
        run.stop(signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    assert run.make() == (128 + signal.SIGTERM, "")
    assert log.read_text() == "ready\nsaved\n"


def test_a_run_that_is_asked_for_twice_is_not_made_twice_at_once(tmp_path, training):
    run, ends = training(TRAIN.replace("2:", "9:")), []
    threads = [threading.Thread(target=lambda: ends.append(run.make())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log = record.log_path(tmp_path / "root" / "seed=0").read_text()
    assert ends == [(0, "")] * 2 and log == "Resuming at 0\nResuming at 400\n"


@pytest.mark.parametrize(
    ("cpus", "gpus", "has", "runs"),
    [
        (2, 0, {"CPU": 8.0}, 4),
        (2, 1, {"CPU": 64.0, "GPU": 2.0}, 2),
        (1, 0.25, {"CPU": 8.0, "GPU": 1.0}, 4),
        (8, 0, {"CPU": 8.0}, 1),
    ],
)
def test_runs_share_the_memory_of_their_node(training, cpus, gpus, has, runs):
    command = training("", share=True, cpus=cpus, gpus=gpus, has=has)._command()
    assert command[0] == sys.executable and command[-2] == "--replay.memory_gib"
    assert float(command[-1]) == pytest.approx(machine_memory() / 2 / 2**30 / runs, abs=0.01)
    assert "--replay.memory_gib" not in training("", share=False)._command()
