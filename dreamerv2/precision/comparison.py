"""What runs at different precisions say about precision: statistics of what they logged.

The returns of a run are those of its training episodes. `WINDOWS` equal parts of the run make its
curve; the final return is the mean over the episodes of the last tenth, and of five at least.
"""

import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from common.report.stats import (
    FEWEST_RUNS,
    bootstrap_interval,
    false_alarm_rate,
)
from dreamerv2.jobs.record import Run
from dreamerv2.precision import games
from dreamerv2.precision.differences import of_losses, of_returns

WINDOWS = 20
FINAL_SHARE, FINAL_EPISODES = 0.1, 5
OPTIMIZERS = ("model", "actor", "critic", "expl_expl", "expl_actor", "expl_critic")
EXPLORING = "expl_"  # begins what is logged of a behaviour that explores
# What runs that are compared may differ in; anything else is said in the report.
COMPARED = re.compile(
    r"precision|precision_overrides\..*|loss_scale|seed|logdir|replay\.memory_gib"
)
CLEARLY_FASTER = 0.95  # a ratio of times above this is not worth another precision


def labels(runs: Sequence[Run]) -> list[str]:
    """What each run is called: its precision, and those overrides that not all runs share."""
    return [
        ", ".join([precision, *(f"{k.removeprefix('precision_overrides.')} {v}" for k, v in rest)])
        for (_, precision), *rest in choices(runs)
    ]


def flags(choice: Sequence[tuple[str, str]]) -> str:
    """What to write for `choices` of a run."""
    return " ".join(f"--{key} {value}" for key, value in choice)


def choices(runs: Sequence[Run]) -> list[list[tuple[str, str]]]:
    """Of each run the keys that make its precision, with values: `precision` first, then those
    overrides that not all runs share."""
    keys = [key for key in runs[0].config.flat if re.match("precision_overrides|loss_scale$", key)]
    differing = [k for k in keys if len({str(run.config[k]) for run in runs}) > 1]
    result = []
    for run in runs:
        special = [k for k in differing if run.config[k] not in ("default", "dynamic")]
        result.append([(key, str(run.config[key])) for key in ("precision", *special)])
    return result


def check_seeds(runs: Sequence[Run]) -> None:
    """ValueError where two runs of one precision have the same seed."""
    found: dict[tuple[str, int], Run] = {}
    for label, run in zip(labels(runs), runs, strict=True):
        other = found.setdefault((label, run.config.seed), run)
        if other is not run:
            raise ValueError(
                f"{other.name} and {run.name} both have precision {label} and seed "
                f"{run.config.seed}; a comparison takes one run of each seed"
            )


def differing_keys(runs: Sequence[Run]) -> list[str]:
    """Keys, other than those under comparison, in which the runs' configurations differ."""
    flats = [run.config.flat for run in runs]
    keys = dict.fromkeys(key for flat in flats for key in flat if not COMPARED.fullmatch(key))
    return [key for key in keys if len({str(flat.get(key)) for flat in flats}) > 1]


# One run in numbers


def total_frames(run: Run) -> int:
    """How long the run is to be, env frames."""
    return run.config.steps * run.config.action_repeat


def window_returns(run: Run) -> np.ndarray:
    """Mean return of the episodes that ended in each window, `[WINDOWS]`, NaN where none did."""
    steps, returns = run.series("train_return")
    window = np.clip(np.ceil(steps / total_frames(run) * WINDOWS).astype(int) - 1, 0, WINDOWS - 1)
    sums = np.bincount(window, returns, WINDOWS)
    counts = np.bincount(window, minlength=WINDOWS)
    return np.where(counts, sums / np.maximum(counts, 1), np.nan)


def final_return(run: Run) -> float | None:
    """Mean over the episodes of the last tenth of the run, the last five at least."""
    steps, returns = run.series("train_return")
    if not len(returns):
        return None
    late = int(np.sum(steps > (1 - FINAL_SHARE) * total_frames(run)))
    return float(returns[-max(late, FINAL_EPISODES) :].mean())


def best_return(run: Run) -> float | None:
    """The highest mean of a window."""
    windows = window_returns(run)
    return None if np.isnan(windows).all() else float(np.nanmax(windows))


def seconds_per_update(run: Run) -> float | None:
    """Median over the logged intervals; the first one, which compiles, is left out if it can be."""
    times = [
        row["time_train"] / row["updates_per_second"]
        for row in run.rows
        if row.get("time_train") and row.get("updates_per_second")
    ]
    return float(np.median(times[1:] or times)) if times else None


def skipped_updates(run: Run) -> int:
    """Steps that the optimisers left out because a gradient was not finite."""
    return int(sum(run.last(f"{name}_skipped") or 0 for name in OPTIMIZERS))


def nonfinite_norms(run: Run) -> int:
    """Gradient norms that were not finite: skipped at float16, elsewhere the end of the run."""
    ended = "_grad_norm is not finite" in run.error
    return skipped_updates(run) + ended


def peak_memory(run: Run) -> float | None:
    """Largest resident memory of the process that was logged, GiB."""
    _, memory = run.series("memory_gib")
    return float(memory.max()) if len(memory) else None


def loss_scales(run: Run) -> dict[str, dict[str, float]]:
    """First, lowest and last logged loss scale of each optimiser; empty without one."""
    result = {}
    for name in OPTIMIZERS:
        _, scale = run.series(f"{name}_loss_scale")
        if len(scale):
            result[name] = {"first": scale[0], "lowest": scale.min(), "last": scale[-1]}
    return result


def loss_at(run: Run, loss: str, updates: float) -> float | None:
    """The loss in the last logged interval that ended at or before `updates`."""
    x, y = run.series(loss, "updates")
    known = np.flatnonzero(x <= updates)
    return float(y[known[-1]]) if len(known) else None


def measures(count: int) -> dict[str, Callable[[Run], float | None]]:
    """The returns that are compared, by their name in report.json. count: greedy games of each
    run; without any there is no greedy return."""
    found: dict[str, Callable[[Run], float | None]] = {
        "final_return": final_return,
        "best_return": best_return,
    }
    if count:
        found["greedy_return"] = functools.partial(games.mean_return, count=count)
    return found


# All runs


def summarize(runs: Sequence[Run]) -> dict[str, Any]:
    """The content of report.json; statistics are over finished runs.

    Raises:
        ValueError: no runs.
    """
    if not runs:
        raise ValueError("no runs to compare")
    groups: dict[str, list[Run]] = {}
    for label, run in zip(labels(runs), runs, strict=True):
        groups.setdefault(label, []).append(run)
    plain = (label for label in sorted(groups, key=len) if label.split(",")[0] == "32")
    baseline = next(plain, next(iter(groups)))
    points = loss_points(runs)
    count = games.common_count(runs)
    precisions = {label: summarize_group(group, points, count) for label, group in groups.items()}
    for label, choice in zip(labels(runs), choices(runs), strict=True):
        precisions[label]["flags"] = flags(choice)
    reference = precisions[baseline]["seconds_per_update"]
    for summary in precisions.values():
        seconds = summary["seconds_per_update"]
        known = seconds is not None and reference is not None
        summary["seconds_per_update_ratio"] = seconds / reference if known else None
    found = {
        label: differences(group, groups[baseline], points, count)
        for label, group in groups.items()
        if label != baseline
    }
    judged_by = deciding_measure(precisions.values())
    return {
        "task": runs[0].config.task,
        "device": next((run.device for run in runs if run.device), ""),
        "baseline": baseline,
        "greedy_games": count,
        "judged_by": judged_by,
        "precisions": precisions,
        "differences": found,
        "loss_points": points,
        "differing_keys": differing_keys(runs),
        "false_alarm_rate": alarm_rate(precisions, baseline, judged_by, found),
    }


def deciding_measure(groups: Iterable[Mapping[str, Any]]) -> str:
    """The return by which precisions are judged: that of greedy games where all finished runs have
    played some, which is free of the noise of sampled actions, else that of training."""
    rows = [row for group in groups for row in group["runs"] if row["status"] == "finished"]
    return "greedy_return" if rows and all(row["greedy"] for row in rows) else "final_return"


def summarize_group(runs: Sequence[Run], points: Sequence[int], count: int) -> dict[str, Any]:
    """The runs of one precision, and statistics of those that finished. count: as for
    `measures`."""
    done = [run for run in runs if run.finished]
    rows = [run_summary(run, count) for run in runs]
    times = _known(seconds_per_update(run) for run in runs)
    memory = _known(peak_memory(run) for run in runs)
    sizes = _known(run.checkpoint_bytes for run in runs)
    return {
        "runs": rows,
        "finished": len(done),
        **{
            name: bootstrap_interval(_known(map(measure, done)))._asdict()
            for name, measure in measures(count).items()
        },
        "seconds_per_update": float(np.median(times)) if times else None,
        "peak_memory_gib": max(memory, default=None),
        "checkpoint_bytes": max(sizes, default=None),
        "skipped_updates": sum(row["skipped_updates"] for row in rows),
        "nonfinite_gradient_norms": sum(row["nonfinite_gradient_norms"] for row in rows),
        "losses": {
            loss: {
                str(u): bootstrap_interval(_known(loss_at(r, loss, u) for r in done))._asdict()
                for u in points
            }
            for loss in loss_names(done)
        },
    }


def run_summary(run: Run, count: int = 0) -> dict[str, Any]:
    """One row of the report. count: greedy games that runs are compared by."""
    return {
        "name": run.name,
        "seed": run.config.seed,
        "status": run.status,
        "error": run.error,
        "env_frames": run.rows[-1]["step"] if run.rows else 0,
        "updates": run.last("updates"),
        "updates_skipped_by": {n: run.last(f"{n}_skipped") for n in OPTIMIZERS},
        "hours": run.last("hours"),
        "final_return": final_return(run),
        "best_return": best_return(run),
        "greedy": games.summary(run, count) if count else None,
        "seconds_per_update": seconds_per_update(run),
        "peak_memory_gib": peak_memory(run),
        "checkpoint_bytes": run.checkpoint_bytes,
        "skipped_updates": skipped_updates(run),
        "nonfinite_gradient_norms": nonfinite_norms(run),
        "loss_scale": loss_scales(run),
    }


def loss_names(runs: Sequence[Run]) -> list[str]:
    """Losses of the world model that the runs log, the sum last."""
    found = {key for run in runs for row in run.rows for key in row if key.endswith("_loss")}
    others = {f"{name}_loss" for name in OPTIMIZERS}
    ours = {key for key in found - others if not key.startswith(EXPLORING)}
    return [*sorted(ours), "model_loss"]


def loss_points(runs: Sequence[Run]) -> list[int]:
    """Numbers of updates that every finished run has reached: a quarter, a half and all of them."""
    reached = [updates for run in runs if run.finished if (updates := run.last("updates"))]
    most = int(min(reached, default=0))
    return sorted({most // 4, most // 2, most} - {0})


def differences(
    runs: Sequence[Run], baseline: Sequence[Run], points: Sequence[int], count: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """`returns` and `losses` of the finished runs, minus those of the baseline's."""
    done = [[run for run in group if run.finished] for group in (runs, baseline)]

    def sides(measure: Callable[[Run], float | None]) -> list[dict[int, float]]:
        measured = [[(run.config.seed, measure(run)) for run in group] for group in done]
        return [{seed: v for seed, v in group if v is not None} for group in measured]

    losses = {}
    for loss in loss_names(done[0]) if points else []:
        first, second = sides(functools.partial(loss_at, loss=loss, updates=points[-1]))
        losses[loss] = first, second
    return {
        "returns": {name: of_returns(*sides(measure)) for name, measure in measures(count).items()},
        "losses": of_losses(losses),
    }


def alarm_rate(
    precisions: Mapping[str, Mapping[str, Any]],
    baseline: str,
    judged_by: str,
    differences: Mapping[str, Mapping[str, Any]],
) -> float | None:
    """How often a difference of returns is significant by chance, in that of the fewest runs; None
    where one has too few runs for an interval."""
    rates = []
    for label, found in differences.items():
        pairs = found["returns"][judged_by]["pairs"]
        runs = pairs or min(precisions[name]["finished"] for name in (label, baseline))
        if runs < FEWEST_RUNS:
            return None
        rates.append(false_alarm_rate(runs, bool(pairs)))
    return max(rates, default=None)


def recommend(summary: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The precision to use on this machine, and the reasons, one sentence each.

    A precision is out when its runs broke more often than the baseline's, when it has too few runs
    for an interval, or when the return it is judged by is significantly lower; of the rest the
    fastest is taken, the baseline unless another one is clearly faster. Where every run of the
    baseline failed, it is the fastest one that has finished runs.
    """
    baseline, precisions = summary["baseline"], summary["precisions"]
    works = [label for label, group in precisions.items() if group["finished"]]
    no_baseline = all_failed(precisions[baseline]) and bool(works)
    candidates, reasons = (list(works) if no_baseline else [baseline]), []
    for label, group in precisions.items():
        if label == baseline:
            continue
        verdict = judge(summary, label)
        reasons.append(f"{label}: {verdict.text}.")
        clearly_faster = (group["seconds_per_update_ratio"] or 1) < CLEARLY_FASTER
        if verdict.usable and clearly_faster and not no_baseline:
            candidates.append(label)
    best = min(candidates, key=lambda k: precisions[k]["seconds_per_update"] or math.inf)
    return best, reasons


def all_failed(group: Mapping[str, Any]) -> bool:
    """Whether every run of a precision failed."""
    return all(run["status"] == "failed" for run in group["runs"])


class Verdict(NamedTuple):
    """Whether a precision can take the baseline's place, and a sentence about it."""

    usable: bool
    text: str


def judge(summary: Mapping[str, Any], label: str) -> Verdict:
    """One precision against the baseline."""
    group, baseline = summary["precisions"][label], summary["precisions"][summary["baseline"]]
    difference = summary["differences"][label]["returns"][summary["judged_by"]]
    name = measure_name(summary["judged_by"])
    ratio = group["seconds_per_update_ratio"]
    parts = [
        f"{ratio:.2f} x the time per update of {summary['baseline']}" if ratio else "no timing"
    ]
    broken, broken_there = (
        sum(run["status"] == "failed" for run in side["runs"]) for side in (group, baseline)
    )
    if broken:
        parts.append(f"{broken} of {len(group['runs'])} runs failed")
    if difference["iqm"] is None:
        sides = {label: group, summary["baseline"]: baseline}
        without = [name for name, side in sides.items() if not side["finished"]]
        parts.append(f"no finished runs of {' and '.join(without)} to compare returns of")
    elif difference["low"] is None:
        parts.append(f"{name} {difference['iqm']:+.3g}, too few seeds for an interval")
    else:
        verdict = "significant" if difference["called"] else "not significant"
        span = f"[{difference['low']:+.3g}, {difference['high']:+.3g}]"
        parts.append(f"{name} {difference['iqm']:+.3g} {span}, {verdict}")
        better = difference["better"]["iqm"]
        parts.append(f"a run is better than one of {summary['baseline']} in {better:.0%} of pairs")
    if group["skipped_updates"]:
        parts.append(f"{group['skipped_updates']} optimiser steps skipped")
    worse = difference["called"] and difference["iqm"] < 0
    usable = broken <= broken_there and difference["low"] is not None and not worse
    return Verdict(usable, "; ".join(parts))


def measure_name(measure: str) -> str:
    """A key of `measures` as people read it."""
    return measure.replace("_", " ")


def _known(values) -> list:
    return [value for value in values if value is not None]
