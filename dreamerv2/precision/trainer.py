"""Makes the runs of a comparison, several at a time, and keeps its report up to date."""

from collections.abc import Callable, Sequence
from pathlib import Path

from dreamerv2.jobs import processes
from dreamerv2.jobs.job import Job, make_job
from dreamerv2.jobs.record import Run
from dreamerv2.jobs.trainings import Running, Trainings
from dreamerv2.precision import comparison_report, games


def report(directory: Path, runs: Sequence[Run], command: str, greedy: int = 0) -> int:
    """Writes the report about runs in any state, says where it is, and returns the exit code.

    greedy: games that each finished run plays first, unless it has.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if missing := games.missing(runs, greedy):
        comparison_report.write(directory, runs, command)  # in case that they are not played
        games.play(missing, greedy)
    content = comparison_report.write(directory, runs, command)
    print("\n".join(comparison_report.verdict(content)))
    print(f"\nReport: {directory / 'report.md'}", flush=True)
    return 0 if any(run.finished for run in runs) else 1


def make_jobs(
    directory: Path,
    precisions: Sequence[str],
    seeds: Sequence[int],
    flags: Sequence[str],
    limit: int = 1,
) -> list[Job]:
    """One job per precision and seed, checked as train checks it; seeds outside, so that whatever
    else the machine does in the meantime meets all precisions alike. limit: as for `make_job`.
    """
    runs = [(p, str(s)) for s in dict.fromkeys(seeds) for p in dict.fromkeys(precisions)]
    return [
        make_job(
            directory / f"{precision}-{seed}",
            [*flags, "--precision", precision, "--seed", seed],
            min(limit, len(runs)),
        )
        for precision, seed in runs
    ]


class Trainer(Trainings):
    """Makes the runs of a comparison, `limit` at a time, and keeps its report up to date.

    start: begins a run; by default as a process of this machine. greedy: games that each plays when
    all have ended. The rest as for `Trainings`.
    """

    def __init__(
        self,
        directory: Path,
        jobs: Sequence[Job],
        limit: int | None,
        command: str,
        start: Callable[[Job], Running] = processes.start,
        greedy: int = 0,
    ):
        super().__init__(jobs, start, limit)
        self._directory, self._command, self._greedy = directory, command, greedy

    def make(self) -> int:
        """Until all jobs have ended or a signal came; returns the exit code."""
        stopped_by = self.run()
        runs = [job.read() for job in self._jobs]
        greedy = 0 if stopped_by else self._greedy
        code = report(self._directory, runs, self._command, greedy)
        return 128 + stopped_by if stopped_by else code

    def _ended(self) -> None:
        if self._waiting or self._running:
            runs = [job.read() for job in self._jobs]
            comparison_report.write(self._directory, runs, self._command)
