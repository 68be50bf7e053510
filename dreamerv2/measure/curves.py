"""Curves of runs: what is read, how runs are grouped and binned, and the figure."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common import config as cfg
from common.log.metrics import Row, read_metrics
from common.report.figures import COLORS, DASHES, figure, plain, verbatim
from common.report.stats import FEWEST_RUNS, bootstrap_mean
from dreamerv2.measure.explain import METRIC, TERMS, with_terms
from dreamerv2.play.scores import KNOWN
from dreamerv2.run.blocks import load_block

X_LABELS = {"frames": "env frames", "updates": "updates", "hours": "hours"}
BINS = 50
RESAMPLES = 2000
# What does not make it another configuration.
IGNORED = re.compile(
    r"seed|logdir|steps|log_.*|eval_every|eval_eps|keep_checkpoints|video_frames"
    r"|replay\.memory_gib|save_every|fall_back|max_bad_episodes|wandb"
)
WIDE = 100  # returns beyond this hide what a young run does on a linear axis
MOST_DIFFERENCES = 3  # in a label; with more, it is the name of the directory


class Run(NamedTuple):
    """A run's files. `settings` are flat, `rows` those of metrics.jsonl."""

    logdir: Path
    settings: dict[str, Any]
    rows: list[Row]

    @property
    def task(self) -> str:
        return str(self.settings.get("task", "unknown task"))


class Curve(NamedTuple):
    """A group of runs, binned. NaN where a run, or any run for the mean, has no value."""

    label: str
    x: np.ndarray  # [bins], middles
    seeds: np.ndarray  # [runs, bins]
    mean: np.ndarray  # [bins]
    low: np.ndarray | None  # [bins]; None for too few seeds
    high: np.ndarray | None


# Reading


def read_run(logdir: Path) -> Run:
    """The run in a logdir.

    Raises:
        ValueError or OSError: there is none, or its config.yaml cannot be read.
    """
    rows = read_metrics(logdir / "metrics.jsonl")
    if not rows:
        raise ValueError(f"{logdir}: expected a run, found no rows in its metrics.jsonl")
    return Run(logdir, cfg.flatten(cfg.load_yaml(logdir / "config.yaml")), rows)


def series(run: Run, metric: str, x: str) -> tuple[np.ndarray, np.ndarray]:
    """(x, values) of the rows that have the metric.

    Rows of episodes have no `updates` and no `hours`: theirs are interpolated between rows that do.

    Raises:
        ValueError: no row has the metric, or no row has what x is to be.
    """
    frames, values = _column(run, metric, "--metric")
    if x == "frames":
        return frames, values
    known, amounts = _column(run, x, "--x")
    return np.interp(frames, np.append(0, known), np.append(0, amounts)), values


def _column(run: Run, name: str, flag: str) -> tuple[np.ndarray, np.ndarray]:
    points = [(row["step"], row[name]) for row in run.rows if row.get(name) is not None]
    if not points:
        found = (key for row in run.rows for key in row if row[key] is not None)
        names = {*found} - {"step"}
        hint = cfg.nearest(name, sorted(names))
        raise ValueError(f"{flag} {name}: not in {run.logdir / 'metrics.jsonl'}{hint}")
    frames, values = np.array(points, np.float64).T
    return frames, values


# Grouping


def grouped(runs: Sequence[Run]) -> dict[str, dict[str, list[Run]]]:
    """Task -> label -> runs; a label says in what its configuration differs from the others."""
    tasks: dict[str, list[list[Run]]] = {}
    for run in runs:
        groups = tasks.setdefault(run.task, [])
        same = (g for g in groups if _configuration(g[0]) == _configuration(run))
        group = next(same, None)
        if group is None:
            groups.append([run])
        else:
            group.append(run)
    return {task: dict(zip(_labels(groups), groups, strict=True)) for task, groups in tasks.items()}


def _configuration(run: Run) -> dict[str, Any]:
    """What a run learned with; an older one lacks keys that were added since."""
    settings = {**_usual(), **run.settings}
    return {key: value for key, value in settings.items() if not IGNORED.fullmatch(key)}


@functools.cache
def _usual() -> dict[str, Any]:
    """Every key of today with its default, as written."""
    return cfg.flatten(load_block("defaults"))


def _labels(groups: Sequence[Sequence[Run]]) -> list[str]:
    settings = [_configuration(group[0]) for group in groups]
    keys = dict.fromkeys(key for each in settings for key in each)
    differing = [key for key in keys if any(s.get(key) != settings[0].get(key) for s in settings)]
    names = shortest_names([group[0].logdir.resolve() for group in groups])
    labels = []
    for group, each, name in zip(groups, settings, names, strict=True):
        parts = [f"{key} {each.get(key, 'absent')}" for key in differing]
        if not 0 < len(parts) <= MOST_DIFFERENCES:
            # Alone, several seeds need no name.
            several = len(group) > 1 and not parts
            parts = [] if several else [name]
        labels.append(", ".join(parts + [f"{len(group)} seeds"] * (len(group) > 1)))
    return labels


def shortest_names(paths: Sequence[Path]) -> list[str]:
    """The ends of different paths, as many parts of each as it takes to tell them apart."""
    for count in range(1, max(len(path.parts) for path in paths)):
        names = [str(Path(*path.parts[-count:])) for path in paths]
        if len({*names}) == len(paths):
            return names
    return [str(path) for path in paths]


# Statistics


def binned(x: np.ndarray, values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Mean of the values in each bin; inside the run, empty bins are interpolated.

    Returns:
        `[bins]`, NaN before the first and after the last value.
    """
    bins = len(edges) - 1
    index = np.clip(np.searchsorted(edges, x, "left") - 1, 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    means = np.bincount(index, values, bins) / np.maximum(counts, 1)
    known = np.flatnonzero(counts)
    return np.interp(np.arange(bins), known, means[known], left=np.nan, right=np.nan)


def curve(label: str, runs: Sequence[tuple[np.ndarray, np.ndarray]], edges: np.ndarray) -> Curve:
    """The `(x, values)` of the seeds of one configuration, put together."""
    seeds = np.array([binned(x, values, edges) for x, values in runs])
    middles = (edges[1:] + edges[:-1]) / 2
    low = high = None
    if len(seeds) >= FEWEST_RUNS:
        low, high = bootstrap_mean(seeds, axis=0, resamples=RESAMPLES)
    return Curve(label, middles, seeds, seeds.mean(0), low, high)


def bin_edges(xs: Sequence[np.ndarray], logarithmic: bool) -> np.ndarray:
    """Edges of bins of equal width on the axis, from its origin to the end of the longest run.

    A log axis has none: there they start at the first value, or at a thousandth of the last.
    """
    last = max(x.max() for x in xs)
    if not logarithmic:
        return np.linspace(0, last, BINS + 1)
    first = max(min(x.min() for x in xs), last / 1000)
    return np.geomspace(first, last, BINS + 1)


# Drawing


def draw(
    path: Path,
    groups: dict[str, dict[str, list[Run]]],
    metrics: Sequence[str],
    x: str,
    reference: bool,
    explain: bool = False,
) -> list[str]:
    """Writes the figure; returns a line per curve that says where it ends.

    explain: the terms of the actor's loss beside it, see `dreamerv2/measure/explain.py`.
    """
    shape = len(metrics), len(groups)
    size = 1 + 6 * shape[1], 0.5 + (4 if shape[0] == 1 else 2.6) * shape[0]
    lines = []
    with figure(path, *size) as drawing:
        panels = drawing.subplots(*shape, squeeze=False, sharex="col")
        for column, (task, labelled) in enumerate(groups.items()):
            published = reference and is_published(task)
            log = published and x == "frames"
            for row, metric in enumerate(metrics):
                axes = panels[row, column]
                for i, drawn in enumerate(_curves(labelled, metric, x, log)):
                    _draw_curve(axes, drawn, COLORS[i % len(COLORS)])
                    lines.append(f"{task} {metric} {_ending(drawn, x)}")
                if explain and metric == METRIC:
                    lines += _draw_terms(axes, labelled, x, log)
                if published and metric.endswith("_return"):
                    _draw_published(axes, task, curve=log)
                    axes.legend(fontsize="small")
                axes.set(xscale="log" if log else "linear")
                # Some names are long.
                axes.set_title(verbatim(metric), loc="left", fontsize="small")
                plain(axes)
            panels[0, column].set_title(verbatim(task), loc="right")
            panels[0, column].legend(fontsize="small")
            panels[-1, column].set_xlabel(X_LABELS[x])
    return lines


def is_published(task: str) -> bool:
    """Whether the author's returns on a task are known."""
    return task in KNOWN


def _curves(labelled: dict[str, list[Run]], metric: str, x: str, log: bool) -> list[Curve]:
    found = [(label, [series(run, metric, x) for run in runs]) for label, runs in labelled.items()]
    edges = bin_edges([xs for _, runs in found for xs, _ in runs], log)
    return [curve(label, runs, edges) for label, runs in found]


def _draw_terms(axes, labelled: dict[str, list[Run]], x: str, log: bool) -> list[str]:
    """Draws the terms of the actor's loss, dashed; a line per curve that says where it ends."""
    explained = {
        label: [run._replace(rows=with_terms(run.rows)) for run in runs]
        for label, runs in labelled.items()
    }
    lines = []
    for number, (term, name) in enumerate(TERMS.items(), 1):
        for i, drawn in enumerate(_curves(explained, term, x, log)):
            # One configuration: a colour per term. Several: theirs, and the terms by their dashes.
            color = COLORS[number if len(labelled) == 1 else i % len(COLORS)]
            label = name if i == 0 else "_"
            axes.plot(drawn.x, drawn.mean, color=color, ls=DASHES[number], label=label)
            lines.append(f"  {name}: {_ending(drawn, x)}")
    axes.axhline(0, color="#444444", lw=0.6)
    axes.legend(fontsize="x-small")
    return lines


def _draw_curve(axes, drawn: Curve, color: str) -> None:
    axes.plot(drawn.x, drawn.mean, color=color, label=verbatim(drawn.label))
    dots = alone(drawn.mean)  # a line needs two points
    axes.plot(drawn.x[dots], drawn.mean[dots], "o", color=color, ms=4)
    if len(drawn.seeds) > 1:
        axes.plot(drawn.x, drawn.seeds.T, color=color, alpha=0.35, lw=0.8)
    if drawn.low is not None:
        axes.fill_between(drawn.x, drawn.low, drawn.high, color=color, alpha=0.2, lw=0)


def alone(values: np.ndarray) -> np.ndarray:
    """Where a number stands between two NaNs, or an end and a NaN; bool `[N]`."""
    known = np.pad(~np.isnan(values), 1)
    return known[1:-1] & ~known[:-2] & ~known[2:]


def _draw_published(axes, task: str, curve: bool) -> None:
    known = KNOWN[task]
    axes.axhline(known.human, color="#444444", ls="--", lw=1, label=f"human {known.human:g}")
    axes.axhline(known.random, color="#444444", ls=":", lw=1, label=f"random {known.random:g}")
    if not curve:
        return
    frames = np.array(list(known.curve)) * 1_000_000
    mean, low, high, _ = np.array(list(known.curve.values())).T
    if high.max() > WIDE:
        # Linear below 10, so that a young run is more than a line at the bottom.
        axes.set_yscale("symlog", linthresh=10)
    label = "author's release 2.2.0, mean and range over seeds"
    axes.plot(frames, mean, "o-", color="#000000", ms=3, lw=1, label=label)
    axes.fill_between(frames, low, high, color="#000000", alpha=0.12, lw=0)


def _ending(drawn: Curve, x: str) -> str:
    known = np.flatnonzero(~np.isnan(drawn.mean))
    if not len(known):
        return f"{drawn.label}: the runs have no part in common"
    last = known[-1]
    text = f"{drawn.label}: {drawn.mean[last]:.4g} at {drawn.x[last]:,.4g} {X_LABELS[x]}"
    if drawn.low is not None and drawn.high is not None:
        text += f" [{drawn.low[last]:.4g}, {drawn.high[last]:.4g}]"
    return text
