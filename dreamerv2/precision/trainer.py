"""Makes the runs of a comparison, several at a time, and keeps its report up to date."""

import contextlib
import ctypes
import functools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from common.config import Config, ConfigError
from common.data.replay import machine_memory
from common.interrupt import SIGNALS
from common.log.progress import duration
from dreamerv2.precision import comparison, comparison_report
from dreamerv2.run import blocks, lock, snapshot
from dreamerv2.run.lock import Holder

SHOW_EVERY = 30.0  # seconds between lines about the runs under way
POLL = 0.2  # seconds


def report(directory: Path, runs: Sequence[comparison.Run], command: str) -> int:
    """Writes the report about runs in any state, says where it is, and returns the exit code."""
    directory.mkdir(parents=True, exist_ok=True)
    content = comparison_report.write(directory, runs, command)
    print("\n".join(comparison_report.verdict(content)))
    print(f"\nReport: {directory / 'report.md'}", flush=True)
    return 0 if any(run.finished for run in runs) else 1


# Training


class Job(NamedTuple):
    """One run to make."""

    logdir: Path
    command: tuple[str, ...]
    config: Config

    @property
    def name(self) -> str:
        return self.logdir.name

    def read(self) -> comparison.Run:
        """The run as far as it has come."""
        return comparison.read_run(self.logdir, self.config)

    @property
    def finished(self) -> bool:
        """Whether it has made the steps that are asked for now."""
        run = self.read()
        return run.finished and run.config.steps >= self.config.steps


def make_jobs(
    directory: Path,
    precisions: Sequence[str],
    seeds: Sequence[int],
    flags: Sequence[str],
    limit: int = 1,
) -> list[Job]:
    """One job per precision and seed, checked as train checks it; seeds outside, so that whatever
    else the machine does in the meantime meets all precisions alike.

    limit: runs at the same time, which share the memory that one run would take for its replay.
    """
    jobs = []
    for seed in dict.fromkeys(seeds):
        for precision in dict.fromkeys(precisions):
            logdir = directory / f"{precision}-{seed}"
            words = [*flags, "--logdir", str(logdir), "--precision", precision, "--seed", str(seed)]
            config = blocks.parse_args(words).config
            if limit > 1 and not config.replay.memory_gib:
                share = machine_memory() / 2 / limit / 2**30
                words += ["--replay.memory_gib", f"{share:.2f}"]
                config = blocks.parse_args(words).config
            command = (sys.executable, "-u", "-m", "dreamerv2.train", *words)
            jobs.append(Job(logdir, command, config))
            check_same(jobs[-1])
    directory.mkdir(parents=True, exist_ok=True)
    return jobs


def check_same(job: Job) -> None:
    """ConfigError where the logdir has a run of other settings; more steps are no other setting,
    and where episodes are held is none."""
    saved = job.read().config
    same = {key: saved[key] for key in ("steps", "replay.memory_gib")}
    planned = job.config.update(same)
    changes = snapshot.config_changes(saved.nested(), planned.nested())
    if changes:
        raise ConfigError(
            f"{job.logdir} holds a run with other settings ({'; '.join(changes[:3])}); "
            "give the same flags, or another --logdir"
        )


class Elsewhere:
    """A run under way that this command did not start: what a process of ours offers."""

    def __init__(self, logdir: Path, holder: Holder):
        self._logdir, self._holder = logdir, holder

    def poll(self) -> int | None:
        return None if lock.holder(self._logdir) else 0

    def send_signal(self, number: int) -> None:
        if self._holder.host == socket.gethostname() and self._holder.pid:
            with contextlib.suppress(OSError):
                os.kill(self._holder.pid, number)


class Started(NamedTuple):
    """A run under way."""

    job: Job
    process: subprocess.Popen | Elsewhere
    since: float


class Trainer:
    """Makes the runs of a comparison, `limit` at a time, and keeps its report up to date."""

    def __init__(self, directory: Path, jobs: Sequence[Job], limit: int, command: str):
        self._directory, self._jobs, self._limit = directory, jobs, limit
        self._command = command
        self._waiting = [job for job in jobs if not job.finished]
        self._running: list[Started] = []
        self._shown = time.monotonic()
        self._stopped_by: int | None = None

    def run(self) -> int:
        """Until all jobs have ended or a signal came; returns the exit code."""
        done = len(self._jobs) - len(self._waiting)
        if done:
            print(f"{done} of {len(self._jobs)} runs are finished already", flush=True)
        with caught_signals() as signals:
            try:
                while self._running or self._waiting and not self._stopped_by:
                    self._start()
                    time.sleep(POLL)
                    self._pass_on(signals)
                    self._collect()
                    self._show()
            finally:
                self._end_runs()
        code = report(self._directory, [job.read() for job in self._jobs], self._command)
        return 128 + self._stopped_by if self._stopped_by else code

    def _end_runs(self) -> None:
        """After an exception here, a closed standard output for one, the runs save and end."""
        for started in self._running:
            started.process.send_signal(signal.SIGTERM)
        for started in self._running:
            while started.process.poll() is None:
                time.sleep(POLL)

    def _start(self) -> None:
        while self._waiting and len(self._running) < self._limit and not self._stopped_by:
            job = self._waiting.pop(0)
            holder = lock.holder(job.logdir)
            if holder:
                elsewhere = Elsewhere(job.logdir, holder)
                self._running.append(Started(job, elsewhere, time.monotonic()))
                self._say(job, f"still runs ({holder}); waiting for it")
                continue
            with comparison.log_path(job.logdir).open("a") as log:
                # A session of its own, so that each signal reaches it through us and only once.
                process = subprocess.Popen(
                    job.command,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=functools.partial(end_with_parent, os.getpid()),
                )
            self._running.append(Started(job, process, time.monotonic()))
            self._say(job, f"started, log in {comparison.log_path(job.logdir)}")

    def _pass_on(self, signals: list[int]) -> None:
        while signals:
            self._stopped_by = signals.pop(0)
            print(f"{signal.Signals(self._stopped_by).name}: the runs under way save", flush=True)
            for started in self._running:
                started.process.send_signal(self._stopped_by)

    def _collect(self) -> None:
        for started in list(self._running):
            job, code = started.job, started.process.poll()
            if code is None:
                continue
            self._running.remove(started)
            spent = duration(time.monotonic() - started.since)
            if isinstance(started.process, Elsewhere) and not job.finished and not self._stopped_by:
                self._waiting.insert(0, job)
                self._say(job, f"ended after {spent} without being finished; it goes on")
            elif code and not self._stopped_by:
                self._say(job, f"FAILED after {spent}: {note_failure(job.logdir, code)}")
            else:
                self._say(job, f"{'finished' if job.finished else 'stopped'} after {spent}")
            self._report_so_far()

    def _report_so_far(self) -> None:
        if self._waiting:
            runs = [job.read() for job in self._jobs]
            comparison_report.write(self._directory, runs, self._command)

    def _show(self) -> None:
        if time.monotonic() - self._shown < SHOW_EVERY:
            return
        self._shown = time.monotonic()
        for job, *_ in self._running:
            lines = comparison.read_log(job.logdir)
            self._say(job, lines[-1] if lines else "starting")

    def _say(self, job: Job, text: str) -> None:
        print(f"[{self._jobs.index(job) + 1}/{len(self._jobs)}] {job.name}: {text}", flush=True)


def end_with_parent(parent: int) -> None:
    """In a new process on Linux: SIGTERM, which saves, when the process that started it dies."""
    if sys.platform == "linux":
        set_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)
        if os.getppid() != parent:  # it died before that
            os._exit(128 + signal.SIGTERM)


def note_failure(logdir: Path, code: int) -> str:
    """Ends the log of a run that broke with one line that says so, and returns what it says."""
    lines = comparison.read_log(logdir) or ["no output"]
    text = lines[-1].removeprefix("error: ")
    if code < 0:
        text = f"killed by {signal.Signals(-code).name}; last line: {text}"
    with comparison.log_path(logdir).open("a") as log:
        log.write(f"\nerror: {text}\n")
    return text


@contextlib.contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Within `with`, `SIGNALS` are appended to the list instead of ending the process."""
    received: list[int] = []

    def note(number, _):
        received.append(number)

    caught = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, note) for number in caught}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
