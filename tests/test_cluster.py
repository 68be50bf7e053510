"""TF_CONFIG and `devices`: what is understood, and what is said of the rest."""

import json
import socket
import subprocess
import sys

import pytest
import tensorflow as tf

from common import cluster
from common.cluster import Cluster, from_tf_config, meet
from common.device import usable_cores
from dreamerv2 import train


def config(addresses=("a:1", "b:2"), index=0, kind="worker"):
    return json.dumps(
        {"cluster": {"worker": list(addresses)}, "task": {"type": kind, "index": index}}
    )


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_tf_config_names_the_workers_and_this_one():
    found = from_tf_config(config(index=1))
    assert found == Cluster(("a:1", "b:2"), 1) and found.size == 2
    assert found.name(0) == "worker 0 (a:1)"


MISTAKES = [
    (None, "workers: TF_CONFIG is not set; expected {"),
    ("{cluster: 1}", "TF_CONFIG is not JSON (Expecting property name"),
    ("[]", "TF_CONFIG is of another form; expected {"),
    ('{"cluster": {}}', "TF_CONFIG: 'worker' is missing; expected {"),
    (config(kind="ps"), "TF_CONFIG: job 'ps', expected workers alone"),
    (config(["a:1", "b"]), "TF_CONFIG: worker 'b', expected HOST:PORT"),
    (config(["a:1", "b:65536"]), "TF_CONFIG: worker 'b:65536', expected HOST:PORT"),
    (config(["a:1", "a:1"]), "TF_CONFIG: an address is there twice"),
    (config(index=2), "TF_CONFIG: task index 2, expected 0 to 1"),
]


@pytest.mark.parametrize("text, message", MISTAKES)
def test_a_mistake_in_it_is_one_line_and_exit_code_2(tmp_path, capsys, monkeypatch, text, message):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(SystemExit) as exit_:
        train.main(["--logdir", str(tmp_path / "run"), "--configs", "vector", "debug", "--workers"])
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")
    assert list(tmp_path.iterdir()) == []


def split_mistake(flags, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        train.main(["--logdir", str(tmp_path / "run"), "--configs", "vector", "debug", *flags])
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: {message}"
    assert list(tmp_path.iterdir()) == []


def test_a_batch_that_cannot_be_split_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config(["a:1", "b:2", "c:3"]))
    message = "dataset.batch: 4 cannot be split over 3 workers; expected a multiple of 3"
    split_mistake(["--workers"], message, tmp_path, capsys)


def test_more_devices_than_there_are_is_one_line(tmp_path, capsys):
    cores = usable_cores()
    message = f"devices: {cores + 1} asked for, this machine has {cores} cores"
    split_mistake(["--devices", str(cores + 1)], message, tmp_path, capsys)


def test_a_cpu_that_computes_already_is_not_split(monkeypatch):
    monkeypatch.setattr(cluster, "usable_cores", lambda: 4)
    tf.zeros([])
    with pytest.raises(ValueError, match="devices: 2 asked for, but this process computes on one"):
        cluster.count_devices(2)


def test_a_cpu_is_split_into_devices_that_share_its_cores():
    script = """
import tensorflow as tf
from common import cluster
cluster.usable_cores = lambda: 6
print(*(cluster.count_devices(count) for count in ("all", 2, "all")))
strategy = cluster.make_strategy("CPU", 2)
print(len(strategy.extended.worker_devices), len(tf.config.list_logical_devices("CPU")))
threads = tf.config.threading
print(threads.get_intra_op_parallelism_threads(), threads.get_inter_op_parallelism_threads())
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    first, *rest = run.stdout.splitlines()
    assert first == "('CPU', 1) ('CPU', 2) ('CPU', 2)"
    assert rest == ["2 2", "3 2"]


def test_one_device_needs_no_strategy():
    assert cluster.make_strategy("CPU", 1) is None


def test_several_cpus_of_each_worker_are_refused():
    with pytest.raises(ValueError, match="2 CPUs of each worker, expected 1"):
        cluster.make_strategy("CPU", 2, Cluster(("a:1", "b:2")))


def test_workers_wait_for_each_other():
    mine, theirs = free_port(), free_port()
    said = []
    with socket.create_server(("127.0.0.1", theirs)):
        meet(Cluster((f"127.0.0.1:{mine}", f"127.0.0.1:{theirs}")), said.append, patience=0)
    assert said == [f"Worker 0 of 2 at 127.0.0.1:{mine}"]


def test_a_worker_that_does_not_come_is_named():
    mine, theirs = free_port(), free_port()
    workers = Cluster((f"127.0.0.1:{mine}", f"127.0.0.1:{theirs}"))
    with pytest.raises(ValueError) as error:
        meet(workers, print, patience=0)
    assert f"worker 1 (127.0.0.1:{theirs}) did not come in 0 s" in str(error.value)


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} of worker 0 .* cannot be used"):
            meet(Cluster((f"127.0.0.1:{port}", "127.0.0.1:1")), print, patience=0)


@pytest.mark.parametrize(
    "text, message",
    [
        ("Collective ops is aborted: /job:worker/replica:0/task:1\nhas crashed", "worker 1 (b:2)"),
        ("Collective: Deadline Exceeded RPC: /tensorflow.CoordinationService/X", "worker 0 (a:1)"),
        ("Collective ops is aborted", "another worker"),
    ],
)
def test_a_worker_that_is_lost_is_named(text, message):
    workers = Cluster(("a:1", "b:2", "c:3"), 2)
    with (
        pytest.raises(cluster.WorkerLostError) as error,
        cluster.watched(workers),
    ):
        raise tf.errors.UnavailableError(None, None, text)
    assert str(error.value) == f"{message} is gone; see what it says"


def test_other_errors_of_tensorflow_stay_what_they_are():
    with pytest.raises(tf.errors.InternalError), cluster.watched(Cluster()):
        raise tf.errors.InternalError(None, None, "Blas GEMM launch failed")
