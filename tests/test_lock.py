"""One run, one process."""

import re
import signal
import subprocess
import sys
import threading

import pytest

from dreamerv2.run import lock
from dreamerv2.run.lock import LockedError, RunLock

# Takes the lock, says so, and waits for the end of its standard input.
HOLD = """
import pathlib, sys
from dreamerv2.run.lock import RunLock
held = RunLock(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
if len(sys.argv) > 2:
    held.release()
"""


@pytest.fixture
def hold():
    """Starts processes that hold a lock; ends them all."""
    started = []

    def start(logdir, *words):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(logdir), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_second_process_is_refused_with_host_process_and_time(tmp_path, hold):
    process = hold(tmp_path)
    expected = rf"has a run already: process {process.pid} on \S+ since \d{{4}}-\d\d-\d\d [\d:]+; "
    with pytest.raises(LockedError, match=expected):
        RunLock(tmp_path)
    assert lock.holder(tmp_path).pid == process.pid


@pytest.mark.parametrize("end", ["release", "exit", "kill"])
def test_the_lock_ends_with_the_process_however_that_ends(tmp_path, hold, end):
    process = hold(tmp_path, *(["release"] if end == "release" else []))
    if end == "kill":
        process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert lock.holder(tmp_path) is None
    RunLock(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_a_child_that_outlives_its_parent_does_not_keep_the_lock(tmp_path):
    code = (
        "import os, pathlib, sys, time\n"
        "from dreamerv2.run.lock import RunLock\n"
        "held = RunLock(pathlib.Path(sys.argv[1]))\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    sys.stdin.read()\n"
        "    os._exit(0)\n"
        "print(child, flush=True)\n"
        "os._exit(0)\n"
    )
    argv = [sys.executable, "-c", code, str(tmp_path)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    process.wait(timeout=30)
    assert lock.holder(tmp_path) is None
    process.stdin.close()


def test_one_process_does_not_get_it_twice_and_keeps_it_while_it_asks(tmp_path, hold):
    held = RunLock(tmp_path)
    with pytest.raises(LockedError, match="this process"):
        RunLock(tmp_path / ".." / tmp_path.name)
    argv = [sys.executable, "-c", HOLD, str(tmp_path)]
    second = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert re.search("LockedError: .* has a run already", second.stderr)
    held.release()
    RunLock(tmp_path).release()


def test_of_many_that_start_at_once_one_has_it(tmp_path):
    code = (
        "import pathlib, sys\n"
        "from dreamerv2.run.lock import LockedError, RunLock\n"
        "sys.stdin.readline()\n"
        "won = 0\n"
        "for _ in range(200):\n"
        "    try: held = RunLock(pathlib.Path(sys.argv[1]))\n"
        "    except LockedError: continue\n"
        "    with open(sys.argv[2], 'x'): pass\n"  # fails if another one is inside
        "    import os; os.unlink(sys.argv[2])\n"
        "    held.release(); won += 1\n"
        "print(won)\n"
    )
    argv = [sys.executable, "-c", code, str(tmp_path / "run"), str(tmp_path / "inside")]
    processes = [
        subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    ends = []
    threads = [
        threading.Thread(target=lambda p=p: ends.append(p.communicate("\n"))) for p in processes
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [err for _, err in ends] == [""] * 3
    assert sum(int(out) for out, _ in ends) > 0


def test_a_mistake_leaves_no_directory_behind(tmp_path):
    RunLock(tmp_path / "a" / "b").release(leave_nothing=True)
    assert list(tmp_path.iterdir()) == []
    RunLock(tmp_path / "a").release()
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]
