"""Makes many runs: starts them, watches them, and lets them save when it is stopped."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from common.interrupt import SIGNALS
from common.log.progress import duration
from dreamerv2.jobs import record
from dreamerv2.jobs.job import Job
from dreamerv2.run import lock

SHOW_EVERY = 30.0  # seconds between lines about the runs under way
POLL = 0.2  # seconds


class Running(Protocol):
    """A run under way."""

    elsewhere: bool  # whether it was not started here, and is only waited for
    note: str  # what is said at its start

    @property
    def node(self) -> str:
        """Where it runs; empty while it waits for a place."""

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""

    def send_signal(self, number: int) -> None:
        """Asks it to save and end."""

    def failure(self, code: int) -> str:
        """What went wrong, noted in its log, after it has ended with a code other than 0."""

    def progress(self) -> record.Progress:
        """How far it has come."""


class Started(NamedTuple):
    """A run under way, and since when."""

    job: Job
    run: Running
    since: float


class Trainings:
    """Makes runs until all have ended or a signal came.

    start: begins a run, or finds one that is under way. limit: runs at the same time; None where
      whoever starts them decides that. finished: whether a run needs no more work.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        start: Callable[[Job], Running],
        limit: int | None = None,
        finished: Callable[[Job], bool] = lambda job: job.finished,
    ):
        self._jobs, self._start_run, self._finished = list(jobs), start, finished
        self._limit = limit or len(self._jobs)
        self._waiting = [job for job in jobs if not finished(job)]
        self._running: list[Started] = []
        self._ends: dict[str, str] = {}  # by name: finished, stopped, or FAILED and why
        self._shown = time.monotonic()
        self._stopped_by: int | None = None

    def run(self) -> int | None:
        """Until all jobs have ended or a signal came; returns the number of the signal."""
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
                    if time.monotonic() - self._shown > SHOW_EVERY:
                        self._shown = time.monotonic()
                        self._show()
            finally:
                self._end_runs()
        return self._stopped_by

    def _end_runs(self) -> None:
        """After an exception here, a closed standard output for one, the runs save and end."""
        for started in self._running:
            started.run.send_signal(signal.SIGTERM)
        for started in self._running:
            while started.run.poll() is None:
                time.sleep(POLL)

    def _start(self) -> None:
        while self._waiting and len(self._running) < self._limit and not self._stopped_by:
            job = self._waiting.pop(0)
            job.logdir.parent.mkdir(parents=True, exist_ok=True)
            run = self._start_run(job)
            self._running.append(Started(job, run, time.monotonic()))
            self._say(job, run.note)

    def _pass_on(self, signals: list[int]) -> None:
        while signals:
            self._stopped_by = signals.pop(0)
            print(f"{signal.Signals(self._stopped_by).name}: the runs under way save", flush=True)
            for started in self._running:
                started.run.send_signal(self._stopped_by)

    def _collect(self) -> None:
        for started in list(self._running):
            code = started.run.poll()
            if code is not None:
                self._running.remove(started)
                self._end(started, code)
                self._ended()

    def _end(self, started: Started, code: int) -> None:
        job, run, since = started
        spent = f"after {duration(time.monotonic() - since)}"
        if run.elsewhere and not self._finished(job) and not self._stopped_by:
            self._waiting.insert(0, job)
            self._say(job, f"ended {spent} without being finished; it goes on")
            return
        if code and not self._stopped_by and lock.holder(job.logdir):
            self._waiting.insert(0, job)
            self._say(job, "another command was quicker to start it")
            return
        if code and not self._stopped_by and not self._finished(job):
            word, spent = "FAILED", f"{spent}: {run.failure(code)}"
        else:
            word = "finished" if self._finished(job) else "stopped"
        self._ends[job.name] = word
        self._say(job, f"{word} {spent}")

    def _ended(self) -> None:
        """Called after a run has ended."""

    def _show(self) -> None:
        """Called from time to time: the last line of each run under way."""
        for job, run, _ in self._running:
            lines = record.read_log(job.logdir)
            silent = "starting" if run.node else "waits for a place on the cluster"
            self._say(job, lines[-1] if lines else silent)

    def _say(self, job: Job, text: str) -> None:
        print(f"[{self._jobs.index(job) + 1}/{len(self._jobs)}] {job.name}: {text}", flush=True)


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
