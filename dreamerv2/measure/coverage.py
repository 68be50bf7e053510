"""How much of an observation space runs have seen: cells of a grid over a vector observation."""

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from common import config as cfg
from common.checkpoint import DAMAGE
from common.data.rows import problem
from common.log.metrics import read_metrics
from common.report.figures import COLORS, figure, plain, verbatim
from common.report.stats import FEWEST_RUNS, bootstrap_mean
from common.report.tables import number, table, with_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 50  # of a curve
MOST_FRAMES = 1000  # of an agent step


class Seen(NamedTuple):
    """The training episodes of one run that are still stored, in their order."""

    task: str
    behavior: str  # `expl_behavior`
    start: int  # env frames before the first of them, which replay has deleted
    frames: np.ndarray  # int [E], env frames at the end of each episode
    rows: list[np.ndarray]  # E times float [T, D]


class Grid(NamedTuple):
    """Cells over a vector observation, the same number along each of its numbers."""

    low: np.ndarray  # float [D]
    high: np.ndarray  # float [D]
    cells: int
    reachable: int  # cells that can be entered; 0: not known

    def of(self, rows: np.ndarray) -> np.ndarray:
        """The cell of each row, int `[T, D]`; what lies outside counts for the cell at the edge."""
        width = np.maximum(self.high - self.low, 1e-9) / self.cells
        # As floats first: what lies far outside is more than an int holds.
        return np.clip(np.floor((rows - self.low) / width), 0, self.cells - 1).astype(int)

    @property
    def unit(self) -> str:
        """What is counted."""
        return f"% of {self.reachable} cells" if self.reachable else "cells"

    def counted(self, cells: np.ndarray) -> np.ndarray:
        """Numbers of cells in that unit."""
        return 100 * cells / self.reachable if self.reachable else cells


class Group(NamedTuple):
    """Runs of one behaviour on one task, as far as all runs of the task have come."""

    behavior: str
    frames: np.ndarray  # float [POINTS]
    seen: np.ndarray  # float [R, POINTS], cells
    visits: np.ndarray | None  # float [cells, cells], share of the runs that saw it; D = 2 only


def read(logdir: Path, key: str) -> Seen:
    """The observations `key` in a run's training episodes.

    Says so on stderr where `replay.capacity` has deleted the oldest ones.

    Raises:
        ValueError or OSError: there is no run, no episode, or no vector called `key`.
    """
    settings = cfg.flatten(cfg.load_yaml(logdir / "config.yaml"))
    lengths, rows = [], []
    for path in sorted((logdir / "train_episodes").glob("*.npz")):
        rows.append(_vector(path, key))
        lengths.append(len(rows[-1]) - 1)
    if not rows:
        raise ValueError(f"--logdirs {logdir}: expected a run with episodes, found none")
    repeat = settings.get("action_repeat", 1)
    if not isinstance(repeat, int) or not 1 <= repeat <= MOST_FRAMES:
        raise ValueError(
            f"{logdir}/config.yaml: action_repeat {repeat!r}: expected a whole number from 1 to "
            f"{MOST_FRAMES}"
        )
    start = _deleted_steps(logdir, sum(lengths)) * repeat
    if start:
        sys.stderr.write(
            f"note: {logdir}: the episodes of its first {start:,} env frames are no longer in "
            "replay (replay.capacity); cells that only they entered are missing\n"
        )
    frames = start + np.cumsum(lengths) * repeat
    behavior = str(settings.get("expl_behavior", "greedy"))
    return Seen(str(settings.get("task", "unknown task")), behavior, start, frames, rows)


def _deleted_steps(logdir: Path, stored: int) -> int:
    """Agent steps that the run has played and no longer stores."""
    played = [row.get("train_total_steps") for row in read_metrics(logdir / "metrics.jsonl")]
    return max(0, int(max(filter(None, played), default=0)) - stored)


def _vector(path: Path, key: str) -> np.ndarray:
    """What an episode holds under `key`, float `[T, D]`; ValueError where that is no vector."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if key in file.files and file[key].ndim == 2:
                found = file[key].astype(np.float64)
            else:
                vectors = [name for name in file.files if file[name].ndim == 2]
                found = None
    except (*DAMAGE, TypeError) as error:
        raise ValueError(f"{path}: damaged ({error})") from error
    if found is None:
        raise ValueError(f"--key {key}: {path} has no such vector, only {', '.join(vectors)}")
    broken = problem({key: found})
    if broken or not found.size:
        raise ValueError(f"{path}: {broken or f'{key} is empty'}")
    return found


def make_grid(
    runs: Sequence[Seen], cells: int, bounds: Sequence[float] | None = None, reachable: int = 0
) -> Grid:
    """The grid over what all runs saw, or from one bound to the other along each number.

    ValueError for vectors of different sizes.
    """
    sizes = sorted({rows.shape[1] for run in runs for rows in run.rows})
    if len(sizes) > 1:
        raise ValueError(f"--logdirs: episodes of {runs[0].task} hold vectors of sizes {sizes}")
    both = np.concatenate([rows for run in runs for rows in run.rows])
    low, high = both.min(0), both.max(0)
    if bounds:
        low, high = np.full_like(low, bounds[0]), np.full_like(high, bounds[1])
    return Grid(low, high, cells, reachable)


def counts(run: Seen, grid: Grid) -> np.ndarray:
    """Cells that the run had seen after each episode, int `[E]`."""
    seen: set[tuple[int, ...]] = set()
    result = []
    for rows in run.rows:
        seen |= set(map(tuple, grid.of(rows)))
        result.append(len(seen))
    return np.array(result)


def visited(run: Seen, grid: Grid, end: int) -> np.ndarray:
    """Whether the run entered each cell of a vector of two numbers until env frame `end`."""
    result = np.zeros((grid.cells, grid.cells), bool)
    for rows, frame in zip(run.rows, run.frames, strict=True):
        if frame <= end:
            result[tuple(grid.of(rows).T)] = True
    return result


def report(
    logdirs: Sequence[Path],
    key: str,
    cells: int,
    out: Path,
    bounds: Sequence[float] | None = None,
    reachable: int = 0,
) -> str:
    """Draws the curves of all runs into `out`; returns a table of where they ended.

    Args:
        bounds: see `make_grid`.
        reachable: how many cells can be entered, to give shares of them; 0: numbers of cells.

    ValueError where a run has seen more than that.
    """
    tasks: dict[str, list[Seen]] = defaultdict(list)
    for logdir in {logdir.resolve(): logdir for logdir in logdirs}.values():
        run = read(logdir, key)
        tasks[run.task].append(run)
    grids = {task: make_grid(runs, cells, bounds, reachable) for task, runs in tasks.items()}
    groups = {task: _groups(runs, grids[task]) for task, runs in tasks.items()}
    for task, found in groups.items():
        most = max(group.seen.max() for group in found)
        if 0 < reachable < most:
            raise ValueError(f"--of {reachable}: a run of {task} has seen {most:g} cells")
    _draw(groups, grids, key, out)
    rows = [("task", "acts", "runs", "env frames", "cells seen: mean [95 % interval]")]
    for task, found in groups.items():
        for group in found:
            last = grids[task].counted(group.seen[:, -1])
            mean = with_interval(float(np.mean(last)), *_interval(last))
            if reachable:
                mean += f" {grids[task].unit}"
            frames = number(float(group.frames[-1]))
            rows.append((task, group.behavior, str(len(last)), frames, mean))
    return table(rows)


def _groups(runs: Sequence[Seen], grid: Grid) -> list[Group]:
    """The runs of one task by behaviour, in the order in which they were named."""
    end = min(run.frames[-1] for run in runs)
    at = np.linspace(0, end, POINTS)
    found: dict[str, list[Seen]] = defaultdict(list)
    for run in runs:
        found[run.behavior].append(run)
    flat = len(grid.low) == 2
    return [
        Group(
            behavior,
            at,
            np.stack([_curve(run, grid, at) for run in group]),
            np.mean([visited(run, grid, end) for run in group], axis=0) if flat else None,
        )
        for behavior, group in found.items()
    ]


def _curve(run: Seen, grid: Grid, at: np.ndarray) -> np.ndarray:
    """Cells that the run had seen at env frames `at`, float `[POINTS]`."""
    return np.interp(at, [run.start, *run.frames], [0, *counts(run, grid)])


def _draw(
    groups: Mapping[str, Sequence[Group]], grids: Mapping[str, Grid], key: str, out: Path
) -> None:
    """One row per task: the curves and, for a vector of two numbers, a map per behaviour."""
    maps = max(sum(g.visits is not None for g in found) for found in groups.values())
    with figure(out, 5.2 + 3.2 * maps, 3.6 * len(groups)) as drawing:
        panels = drawing.subplots(
            len(groups), 1 + maps, squeeze=False, width_ratios=[1.5] + [1] * maps
        )
        for (curves, *places), (task, found) in zip(panels, groups.items(), strict=True):
            _draw_curves(curves, found, grids[task])
            curves.set(title=verbatim(task), ylabel=f"{grids[task].unit} seen")
            for axes in places:
                axes.set_axis_off()
            for axes, group in zip(places, found, strict=False):
                _draw_map(axes, group, grids[task], key)


def _draw_curves(axes: "Axes", groups: Sequence[Group], grid: Grid) -> None:
    """Cells seen against env frames: each run, and the mean with its interval."""
    for group, color in zip(groups, COLORS, strict=False):
        at, values = group.frames, grid.counted(group.seen)
        axes.plot(at, values.T, color=color, lw=0.6, alpha=0.5)
        seeds = f"{len(values)} seed{'s' * (len(values) > 1)}"
        label = verbatim(f"{group.behavior}, {seeds}")
        axes.plot(at, values.mean(0), color=color, label=label)
        if len(values) >= FEWEST_RUNS:
            axes.fill_between(at, *bootstrap_mean(values, 0), color=color, alpha=0.15, lw=0)
    axes.set(xlabel="env frames", ylim=(0, None))
    axes.legend(frameon=False)
    plain(axes)


def _draw_map(axes: "Axes", group: Group, grid: Grid, key: str) -> None:
    """The cells that a behaviour saw: the darker, the more of its runs."""
    if group.visits is None:
        return
    (left, bottom), (right, top) = grid.low, grid.high
    axes.set_axis_on()
    axes.imshow(
        group.visits.T,
        cmap="Blues",
        vmin=0,
        vmax=1,
        origin="lower",
        extent=(left, right, bottom, top),
        aspect="auto",
    )
    title, x, y = map(verbatim, (f"{group.behavior}: cells seen", f"{key}[0]", f"{key}[1]"))
    axes.set(title=title, xlabel=x, ylabel=y)


def _interval(values: np.ndarray) -> tuple[float | None, float | None]:
    if len(values) < FEWEST_RUNS:
        return None, None
    low, high = bootstrap_mean(values)
    return float(low), float(high)
