"""Two workers on this machine, as a user starts them; one is killed, and the run goes on."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from common.checkpoint import Checkpoints, load_meta

FLAGS = "--configs vector debug --pretrain 2 --prefill 100 --train_every 8"
FLAGS += " --eval_every 60 --save_every 1"

pytestmark = pytest.mark.slow


def free_ports(count):
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


def start(logdir, count, *flags):
    """The processes of `count` workers."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    processes = []
    for index in range(count):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": addresses}, "task": task})
        argv = [sys.executable, "-m", "dreamerv2.train", "--logdir", str(logdir), *FLAGS.split()]
        argv += [*map(str, flags), *(["--workers"] if count > 1 else [])]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(argv, env={**os.environ, "TF_CONFIG": config}, **pipes))
    return processes


def meta(logdir):
    latest = Checkpoints(logdir / "checkpoints", 2).latest()
    return load_meta(latest) if latest else {"updates": 0}


def until(condition, seconds=600):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def communicate(processes):
    """(exit code, stdout, stderr) of each."""
    outputs = [process.communicate(timeout=900) for process in processes]
    return [(p.returncode, *output) for p, output in zip(processes, outputs, strict=True)]


@pytest.mark.parametrize("killed", [1, 0])
def test_a_killed_worker_ends_the_run_and_any_number_of_workers_goes_on(tmp_path, killed):
    logdir = tmp_path / "run"
    processes = start(logdir, 2, "--steps", 100_000)
    try:
        until(lambda: meta(logdir)["updates"] > 5 or any(p.poll() is not None for p in processes))
        os.kill(processes[killed].pid, signal.SIGKILL)
        results = communicate(processes)
    finally:
        for process in processes:
            process.kill()
    code, out, err = results[1 - killed]
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 1 and len(lines) == 1, (out, err)
    assert lines[0].startswith(f"error: worker {killed} (127.0.0.1:") and "is gone" in lines[0]
    assert "Traceback" not in err
    before = meta(logdir)
    assert before["updates"] > 5
    for folder in (logdir, logdir / "worker_1"):
        assert list((folder / "train_episodes").glob("*.npz"))
    assert not (logdir / "worker_1" / "metrics.jsonl").exists()

    for count, more in ((1, 20), (2, 40)):
        steps = before["agent_steps"] + more
        for code, out, err in communicate(start(logdir, count, "--steps", steps)):
            assert code == 0, (out, err)
            assert "Resuming at agent step" in out
        assert meta(logdir)["agent_steps"] >= steps
        assert meta(logdir)["updates"] > before["updates"]
    if killed:
        return
    rows = [json.loads(line) for line in (logdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)


def test_a_signal_to_one_worker_saves_and_ends_both(tmp_path):
    logdir = tmp_path / "run"
    processes = start(logdir, 2, "--steps", 100_000)
    try:
        until(lambda: meta(logdir)["updates"] > 2 or any(p.poll() is not None for p in processes))
        processes[1].send_signal(signal.SIGTERM)
        results = communicate(processes)
    finally:
        for process in processes:
            process.kill()
    assert [code for code, *_ in results] == [143, 143], results
    steps = meta(logdir)["agent_steps"]
    for _, out, _ in results:
        assert out.splitlines()[-1] == f"Saved at agent step {steps:,}; the same command resumes."
