"""Compare precisions: which one to use, from runs with several seeds each, or inside one update.

    python -m dreamerv2.compare --logdir DIR [--precisions 32 16 bfloat16] [--seeds 0 1 2]
                                [--jobs 1] [any flag of train]
    python -m dreamerv2.compare --logdir DIR --runs RUN [RUN ...]
    python -m dreamerv2.compare --audit RUN [--updates 20] [--precisions 16 bfloat16]
                                [any flag of train]

The first form trains each precision with each seed in DIR/PRECISION-SEED; what a run prints goes to
DIR/PRECISION-SEED.log. The same command goes on where it was stopped, and tries again what failed.
The second form takes runs that exist. Both write DIR/report.md, .png and .json. The third compares
activations and gradients with those of float32, on the weights and episodes of a run, and writes
RUN/audit/report.md, .png and .json.

Exit codes: 0 when there is a report of at least one finished run, 1 when no run finished, 2 for a
mistake in what was asked for, 128 + number of the signal (130 for Ctrl-C) when it was stopped,
which lets the runs under way save first.
"""

import argparse
import contextlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from common.commands import MISTAKES, one_line_errors
from common.config import Config, ConfigError, split_flags
from common.interrupt import SIGNALS
from common.log.progress import duration
from dreamerv2.precision import comparison, comparison_report
from dreamerv2.run import blocks, snapshot

PRECISIONS = ("32", "16", "bfloat16")
SHOW_EVERY = 30.0  # seconds between lines about the runs under way
POLL = 0.2  # seconds


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    command = shlex.join(["python", "-m", "dreamerv2.compare", *argv])
    with one_line_errors(*MISTAKES):
        args, flags = parse(argv)
        if args.audit:
            from dreamerv2.precision import audit

            precisions = args.precisions or PRECISIONS[1:]
            audit.audit(args.audit, precisions, args.updates, flags, command)
            return 0
        if args.runs:
            return report(args.logdir, [comparison.read_run(run) for run in args.runs], command)
        jobs = make_jobs(args, flags)
    return Trainer(args.logdir, jobs, args.jobs, command).run()


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our arguments, and the flags for train. Raises ConfigError, or exits with code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m dreamerv2.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--logdir", type=_directory, metavar="DIR")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS)
    parser.add_argument("--seeds", nargs="+", type=int)
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--runs", nargs="+", type=_directory, metavar="RUN")
    parser.add_argument("--audit", type=_directory, metavar="RUN")
    parser.add_argument("--updates", type=int, default=20, help="batches of the audit")
    args, flags = parser.parse_known_args(argv)
    if args.runs and args.audit:
        raise ConfigError("--runs and --audit exclude each other")
    if args.runs and (flags or args.seeds or args.precisions):
        raise ConfigError("--runs takes runs as they are: only --logdir goes with it")
    if args.logdir is None and not args.audit:
        raise ConfigError("--logdir is missing; write --logdir DIR")
    for name in ("jobs", "updates"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name} {getattr(args, name)}: expected at least 1")
    for name, _ in split_flags(flags):
        if name in ("precision", "seed"):
            raise ConfigError(f"--{name} is what this command varies; write --{name}s")
    return args, flags


def _directory(word: str) -> Path:
    return Path(word).expanduser()


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


def make_jobs(args: argparse.Namespace, flags: Sequence[str]) -> list[Job]:
    """One job per precision and seed, checked as train checks it; seeds outside, so that whatever
    else the machine does in the meantime meets all precisions alike."""
    jobs = []
    for seed in dict.fromkeys(args.seeds or (0, 1, 2)):
        for precision in dict.fromkeys(args.precisions or PRECISIONS):
            logdir = args.logdir / f"{precision}-{seed}"
            words = [*flags, "--logdir", str(logdir), "--precision", precision, "--seed", str(seed)]
            config = blocks.parse_args(words).config
            command = (sys.executable, "-u", "-m", "dreamerv2.train", *words)
            jobs.append(Job(logdir, command, config))
            check_same(jobs[-1])
    args.logdir.mkdir(parents=True, exist_ok=True)
    return jobs


def check_same(job: Job) -> None:
    """ConfigError where the logdir has a run of other settings; more steps are no other setting."""
    planned = job.config.update({"steps": (saved := job.read().config).steps})
    changes = snapshot.config_changes(saved.nested(), planned.nested())
    if changes:
        raise ConfigError(
            f"{job.logdir} holds a run with other settings ({'; '.join(changes[:3])}); "
            "give the same flags, or another --logdir"
        )


class Started(NamedTuple):
    """A run under way."""

    job: Job
    process: subprocess.Popen
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
            while self._running or self._waiting and not self._stopped_by:
                self._start()
                time.sleep(POLL)
                self._pass_on(signals)
                self._collect()
                self._show()
        code = report(self._directory, [job.read() for job in self._jobs], self._command)
        return 128 + self._stopped_by if self._stopped_by else code

    def _start(self) -> None:
        while self._waiting and len(self._running) < self._limit and not self._stopped_by:
            job = self._waiting.pop(0)
            with comparison.log_path(job.logdir).open("a") as log:
                # A session of its own, so that each signal reaches it through us and only once.
                process = subprocess.Popen(
                    job.command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
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
            if code and not self._stopped_by:
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
    """Within `with`, SIGINT and SIGTERM are appended to the list instead of ending the process."""
    received: list[int] = []

    def note(number, _):
        received.append(number)

    previous = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
