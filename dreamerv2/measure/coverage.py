"""How much of an observation space runs have seen: cells of a grid over a vector observation."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import config as cfg
from common.checkpoint import DAMAGE
from common.report.figures import COLORS, figure, plain
from common.report.stats import FEWEST_RUNS, bootstrap_mean
from common.report.tables import number, table, with_interval


class Seen(NamedTuple):
    """The training episodes of one run, in their order."""

    task: str
    behavior: str  # `expl_behavior`
    frames: np.ndarray  # int [E], env frames at the end of each episode
    rows: list[np.ndarray]  # E times float [T, D]


def read(logdir: Path, key: str) -> Seen:
    """The observations `key` in a run's training episodes.

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
    if not isinstance(repeat, int):
        raise ValueError(f"{logdir}/config.yaml: action_repeat {repeat!r}: expected a whole number")
    frames = np.cumsum(lengths) * repeat
    behavior = str(settings.get("expl_behavior", "greedy"))
    return Seen(str(settings.get("task", "unknown task")), behavior, frames, rows)


def _vector(path: Path, key: str) -> np.ndarray:
    """What an episode holds under `key`, float `[T, D]`; ValueError where that is no vector."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if key in file.files and file[key].ndim == 2:
                found = file[key].astype(np.float64)
            else:
                vectors = [name for name in file.files if file[name].ndim == 2]
                found = None
    except DAMAGE as error:
        raise ValueError(f"{path}: damaged ({error})") from error
    if found is None:
        raise ValueError(f"--key {key}: {path} has no such vector, only {', '.join(vectors)}")
    if not np.isfinite(found).all():
        raise ValueError(f"{path}: {key} is not finite")
    return found


def grid(runs: Sequence[Seen], cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the grid starts and how wide a cell is, `[D]` each: what all runs saw, in `cells`."""
    both = np.concatenate([rows for run in runs for rows in run.rows])
    low, high = both.min(0), both.max(0)
    return low, np.maximum(high - low, 1e-9) / cells


def counts(run: Seen, low: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Cells that the run had seen after each episode, int `[E]`."""
    seen: set[tuple[int, ...]] = set()
    result = []
    for rows in run.rows:
        seen |= set(map(tuple, ((rows - low) / width).astype(int)))
        result.append(len(seen))
    return np.array(result)


def report(logdirs: Sequence[Path], key: str, cells: int, out: Path) -> str:
    """Draws the curves of all runs into `out`; returns a table of where they ended."""
    tasks: dict[str, dict[str, list[Seen]]] = defaultdict(lambda: defaultdict(list))
    for logdir in logdirs:
        run = read(logdir, key)
        tasks[run.task][run.behavior].append(run)
    rows = [("task", "acts", "runs", "env frames", "cells seen: mean [95 % interval]")]
    with figure(out, 5.2 * len(tasks), 3.6) as drawing:
        for axes, (task, groups) in zip(
            drawing.subplots(1, len(tasks), squeeze=False)[0], tasks.items(), strict=True
        ):
            for (behavior, curves), color in zip(_curves(groups, cells), COLORS, strict=False):
                _draw(axes, curves, color, behavior)
                last = [values[-1] for _, values in curves]
                low, high = _interval(last)
                mean = with_interval(float(np.mean(last)), low, high)
                frames = number(float(curves[0][0][-1]))
                rows.append((task, behavior, str(len(last)), frames, mean))
            axes.set(title=task, xlabel="env frames", ylabel=f"cells of {key} seen", ylim=(0, None))
            axes.legend(frameon=False)
            plain(axes)
    return table(rows)


def _curves(groups: Mapping[str, list[Seen]], cells: int) -> Iterator:
    """(behaviour, curves): env frames and cells seen of each run, as far as all runs have come."""
    runs = [run for group in groups.values() for run in group]
    end = min(run.frames[-1] for run in runs)
    low, width = grid(runs, cells)
    at = np.linspace(0, end, 50)
    for behavior, group in groups.items():
        yield (
            behavior,
            [(at, np.interp(at, [0, *run.frames], [0, *counts(run, low, width)])) for run in group],
        )


def _draw(axes, curves: Sequence[tuple[np.ndarray, np.ndarray]], color: str, label: str) -> None:
    at, all_values = curves[0][0], np.stack([values for _, values in curves])
    axes.plot(at, all_values.T, color=color, lw=0.6, alpha=0.5)
    axes.plot(at, all_values.mean(0), color=color, label=f"{label}, {len(curves)} seeds")
    if len(curves) >= FEWEST_RUNS:
        axes.fill_between(at, *bootstrap_mean(all_values, 0), color=color, alpha=0.15, lw=0)


def _interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    if len(values) < FEWEST_RUNS:
        return None, None
    low, high = bootstrap_mean(values)
    return float(low), float(high)
