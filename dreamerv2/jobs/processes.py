"""Runs as processes of this machine, which end with the command that started them."""

import contextlib
import ctypes
import functools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dreamerv2.jobs import record
from dreamerv2.jobs.job import Job
from dreamerv2.run import lock


class Process:
    """A run under way, in a process of ours."""

    elsewhere = False

    def __init__(self, job: Job, process: subprocess.Popen):
        self._job, self._process = job, process
        self.node = socket.gethostname()
        self.note = f"started, log in {record.log_path(job.logdir)}"

    def poll(self) -> int | None:
        return self._process.poll()

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def failure(self, code: int) -> str:
        return record.note_failure(self._job.logdir, code)

    def progress(self) -> record.Progress:
        return self._job.progress()


class Elsewhere:
    """A run under way that this command did not start."""

    elsewhere = True

    def __init__(self, job: Job, holder: lock.Holder):
        self._job, self._holder = job, holder
        self.node = holder.host
        self.note = f"still runs ({holder}); waiting for it"
        self._left = False

    def poll(self) -> int | None:
        return None if not self._left and lock.holder(self._job.logdir) else 0

    def send_signal(self, number: int) -> None:
        """Passes a signal on; a run on another machine is waited for no longer."""
        if self._holder.host == socket.gethostname() and self._holder.pid:
            with contextlib.suppress(OSError):
                os.kill(self._holder.pid, number)
        else:
            self._left = True

    def failure(self, code: int) -> str:
        raise AssertionError("it never fails: it is only waited for")

    def progress(self) -> record.Progress:
        return self._job.progress()


def start(job: Job, threads: int | None = None) -> Process | Elsewhere:
    """Starts a run, or finds the one that is under way. threads: see `launch`."""
    holder = lock.holder(job.logdir)
    if holder:
        return Elsewhere(job, holder)
    return Process(job, launch(job.command, record.log_path(job.logdir), threads))


def launch(
    command: Sequence[str], log: Path, threads: int | None = None, cwd: Path | None = None
) -> subprocess.Popen:
    """A process that writes to the end of `log`, and is told to save when this one dies.

    threads: on how many TensorFlow computes; None: as many as there are cores.
    """
    with log.open("a") as file:
        # A session of its own, so that each signal reaches it through us and only once.
        return subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=functools.partial(end_with_parent, os.getpid(), ctypes.CDLL(None)),
            env={**os.environ, **thread_limits(threads)},
            cwd=cwd,
        )


def thread_limits(threads: int | None) -> Mapping[str, str]:
    """Variables that TensorFlow and its libraries read when they start."""
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    return {} if threads is None else dict.fromkeys(names, str(threads))


def end_with_parent(parent: int, libc: ctypes.CDLL) -> None:
    """In a new process on Linux: SIGTERM, which saves, when the process that started it dies.

    libc: loaded before, as a process just forked must not take the loader's lock.
    """
    if sys.platform == "linux":
        set_death_signal = 1  # PR_SET_PDEATHSIG
        libc.prctl(set_death_signal, signal.SIGTERM)
        if os.getppid() != parent:  # it died before that
            os._exit(128 + signal.SIGTERM)
