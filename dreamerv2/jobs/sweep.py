"""A sweep: the runs of a grid, and one table of how far they have come."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.log.progress import about
from common.report.tables import number, table
from dreamerv2.jobs import grid, record
from dreamerv2.jobs.job import Job, check_same, make_job
from dreamerv2.jobs.places import needs_extra
from dreamerv2.jobs.record import Progress
from dreamerv2.jobs.trainings import Running, Trainings

if TYPE_CHECKING:
    from dreamerv2.jobs.storage import Storage

HEADER = ("run", "node", "state", "step", "return", "time left")


def make_jobs(root: Path, text: str, flags: Sequence[str], limit: int = 1) -> list[Job]:
    """One job per cell of a grid, each checked as train checks it.

    text: the grid, see `grid.cells`. flags: those of train for all runs. limit: see `make_job`.
    """
    cells = grid.cells(text)
    given = {word[2:].partition("=")[0] for word in flags if word.startswith("--")}
    for key in cells[0]:
        if key in given or key in ("logdir", "configs"):
            why = "--logdir and --configs are for all runs" if key not in given else "it is a flag"
            raise ValueError(f"--grid: {key} cannot be there; {why}")
    jobs = []
    for name, cell in zip(grid.names(cells), cells, strict=True):
        words = [word for key, value in cell.items() for word in (f"--{key}", value)]
        jobs.append(make_job(root / name, [*flags, *words], min(limit, len(cells))))
    return jobs


def open_storage(uri: str, jobs: Sequence[Job]) -> "Storage":
    """The store of a sweep; gets from there what tells how far the jobs are, and checks that.

    Raises ValueError where nothing can be stored, ConfigError for runs of other settings there.
    """
    with needs_extra(f"--storage {uri}"):
        from dreamerv2.jobs.storage import Storage
    storage = Storage(uri)
    for job in jobs:
        storage.fetch_small(job.logdir)
        check_same(job)
    return storage


class Sweep(Trainings):
    """Makes the runs of a grid and shows them in a table.

    storage: where the runs are; None: in their logdirs. The rest as for `Trainings`.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        start: Callable[[Job], Running],
        limit: int | None = None,
        storage: "Storage | None" = None,
    ):
        super().__init__(jobs, start, limit, _finished_in(storage) if storage else _is_finished)

    def make(self) -> int:
        """Until all have ended or a signal came; returns the exit code."""
        stopped_by = self.run()
        print(f"\n{self.table()}", flush=True)
        if stopped_by:
            return 128 + stopped_by
        return 0 if all(map(self._finished, self._jobs)) else 1

    def table(self) -> str:
        """Run, node, state, step [env frames], return, time left."""
        running = {started.job.name: started.run for started in self._running}
        return table([HEADER, *(self._row(job, running.get(job.name)) for job in self._jobs)])

    def _row(self, job: Job, run: Running | None) -> list[str]:
        if run:
            state, node = ("running" if run.node else "waiting"), run.node
            done = run.progress()
        else:
            waits = any(job is other for other in self._waiting)
            state = "waiting" if waits else self._ends.get(job.name, "finished")
            node, done = "", job.progress()
        return [job.name, node, state, *_cells(done, job.total_frames, state == "running")]

    def _show(self) -> None:
        print(f"\n{self.table()}\n", flush=True)


def _cells(done: Progress, total_frames: int, running: bool) -> list[str]:
    """Step, return and time left of a row."""
    frames = "-" if done.env_frames is None else f"{done.env_frames:,}"
    left = about(done.seconds_left) if running and done.seconds_left is not None else "-"
    return [f"{frames} of {total_frames:,}", number(done.score), left]


def _is_finished(job: Job) -> bool:
    return job.finished


def _finished_in(storage: "Storage") -> Callable[[Job], bool]:
    from dreamerv2.jobs.storage import patiently

    def finished(job: Job) -> bool:  # as `record.read_run`, without a checkpoint at hand
        reached = patiently(lambda: storage.steps(job.name)) >= job.config.steps
        return reached and not record.ends_with_error(record.read_log(job.logdir))

    return finished
