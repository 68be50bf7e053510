"""report.md, report.png and report.json of a comparison, for somebody who has to choose a flag."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.files import write_json, write_text
from common.report.figures import COLORS, DASHES, figure, plain
from common.report.stats import bootstrap_interval
from common.report.tables import number, power, table, with_interval
from dreamerv2.precision import comparison, games
from dreamerv2.precision.comparison import OPTIMIZERS, WINDOWS, Run

HOW_TO_READ = """\
Values are interquartile means over the seeds that finished, with bootstrap 95 % intervals
(percentiles) in brackets. Runs with equal seeds are compared in pairs. A difference of returns is
significant when its interval excludes zero; one that is not may still be there, hidden by few
seeds. Losses are many. T-tests with Holm's correction decide which of them differ significantly:
with nothing to find, one does in 5 % of comparisons at most. *Better* is the share of pairs of
runs, whatever their seeds, in which this precision has the higher return; 50 % is no difference.
Returns are those of training episodes: *final* is the mean over the last tenth of the run, five
episodes at least, *best* over the best twentieth. *Greedy* returns are those of games with the most
likely actions, the same games for all runs (`--greedy N`); as many count as every run that has
played any has. Where all finished runs have played them, precisions are judged by them, else by the
final return. Seconds per update is the median of the logged intervals. Memory is the largest
resident memory of the process that was logged (host memory, also with a GPU). Steps are skipped,
each by one optimiser, when a float16 gradient is not finite; that is how dynamic loss scaling finds
its scale. A float32 or bfloat16 run ends at such a gradient."""


def write(directory: Path, runs: Sequence[Run], command: str) -> dict[str, Any]:
    """Writes the three files and returns what is in report.json."""
    summary = comparison.summarize(runs)
    best, reasons = comparison.recommend(summary)
    content = {"recommended": best, "reasons": reasons, "command": command, **summary}
    draw(directory / "report.png", runs, summary)
    write_json(directory / "report.json", content)
    write_text(directory / "report.md", markdown(content))
    return content


# Markdown


def markdown(content: Mapping[str, Any]) -> str:
    """The report; the first lines say what to use and why."""
    parts = [
        "\n".join(verdict(content)),
        "![Curves of the runs](report.png)",
        "## In numbers",
        table(precision_rows(content)),
        "## Differences",
        "\n".join(difference_lines(content)),
        "## Model losses after the same number of updates",
        "\n".join(loss_lines(content)),
        *scale_section(content),
        "## Runs",
        table(run_rows(content)),
        "## How to read this",
        HOW_TO_READ,
        f"Made by:\n\n    {content['command']}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def verdict(content: Mapping[str, Any]) -> list[str]:
    """What to use on this machine, why, and what limits the answer."""
    best = content["recommended"]
    device = content["device"] or "the machine of these runs"
    lines = [
        f"# Precision on {content['task']}: use {best}",
        "",
        f"**Use `{content['precisions'][best]['flags']}` on {device}**: {reason(content)}.",
        "",
        *(f"- {reason}" for reason in content["reasons"]),
    ]
    finished = {label: group["finished"] for label, group in content["precisions"].items()}
    total = {label: len(group["runs"]) for label, group in content["precisions"].items()}
    counts = ", ".join(f"{finished[k]} of {total[k]} at {k}" for k in finished)
    lines.append(f"- Finished runs (one per seed): {counts}.")
    rate = content["false_alarm_rate"]
    if rate is not None:
        lines.append(
            "- Intervals of so few seeds are too narrow: with nothing to find, a difference of "
            f"returns is significant in about {100 * rate:.0f} % of comparisons, not in 5 %."
        )
    if content["differing_keys"]:
        lines.append(
            f"- The runs also differ in {', '.join(content['differing_keys'])}: this is not a "
            "comparison of precision alone."
        )
    return lines


def reason(content: Mapping[str, Any]) -> str:
    """Why this precision is recommended."""
    best, baseline = content["recommended"], content["baseline"]
    group = content["precisions"][baseline]
    if len(content["precisions"]) == 1:
        return "it is the only precision in this comparison"
    if not group["finished"] and best != baseline:
        return f"every run at {baseline} failed"
    if not group["finished"]:
        return f"no run at {baseline} has finished, so there is nothing to compare with"
    if best == baseline:
        return f"no other precision is clearly faster with returns that hold up to {baseline}'s"
    ratio = content["precisions"][best]["seconds_per_update_ratio"]
    returns = content["differences"][best]["returns"]
    name = comparison.measure_name(content["judged_by"])
    low = returns[content["judged_by"]]["low"]
    text = (
        f"{ratio:.2f} x the time per update of {baseline}, and the {name} is not significantly "
        "lower"
    )
    if low < 0:
        text += f" (one lower by up to {number(-low)} is not excluded)"
    lower = [comparison.measure_name(k) for k, v in returns.items() if v["called"] and v["iqm"] < 0]
    verb = "is" if len(lower) == 1 else "are"
    return text + (f"; but the {' and the '.join(lower)} {verb}" if lower else "")


def precision_rows(content: Mapping[str, Any]) -> list[list[str]]:
    """Header and one row per precision."""
    measures = measure_titles(content)
    rows = [
        ["precision", *measures.values(), "s per update", "ratio"]
        + ["memory GiB", "checkpoint MB", "steps skipped", "norms not finite"]
    ]
    for label, group in content["precisions"].items():
        size = group["checkpoint_bytes"]
        rows.append(
            [
                label,
                *(interval(group[measure]) for measure in measures),
                number(group["seconds_per_update"]),
                number(group["seconds_per_update_ratio"]),
                number(group["peak_memory_gib"]),
                number(size and size / 1e6),
                str(group["skipped_updates"]),
                str(group["nonfinite_gradient_norms"]),
            ]
        )
    return rows


def measure_titles(content: Mapping[str, Any]) -> dict[str, str]:
    """What the returns that are compared are called in tables."""
    count = content["greedy_games"]
    games_of = {"greedy_return": f", {count} game{'s' * (count > 1)}"}
    names = comparison.measures(count)
    return {name: comparison.measure_name(name) + games_of.get(name, "") for name in names}


def difference_lines(content: Mapping[str, Any]) -> list[str]:
    """A table per precision: what is different from the baseline and what is not."""
    lines = []
    for label, found in content["differences"].items():
        rows = [["", "difference", "better", "p, corrected", "significant"]]
        for name, shown in measure_titles(content).items():
            each = found["returns"][name]
            better = each["better"]
            chance = with_interval(*(v and 100 * v for v in better.values())) + " %"
            chance = "-" if better["low"] is None else chance  # of one pair it is all or nothing
            rows.append([shown, interval(each), chance, "-", significant(each)])
        for name, each in found["losses"].items():
            chance = number(each["p_adjusted"])
            rows.append([name, interval(each), "-", chance, significant(each)])
        pairs = found["returns"][content["judged_by"]]["pairs"]
        how = f"{pairs} pairs of equal seeds" if pairs else "seeds not paired"
        counts = [content["precisions"][k]["finished"] for k in (label, content["baseline"])]
        if pairs and max(counts) > pairs:
            how += f" of {counts[0]} and {counts[1]} runs; the others are left out"
        lines += [f"{label} minus {content['baseline']} ({how}):", "", table(rows), ""]
    return lines[:-1] or ["Nothing to compare with."]


def significant(difference: Mapping[str, Any]) -> str:
    if difference["low"] is None:
        return "too few finished runs"
    return "**yes**" if difference["called"] else "no"


def loss_lines(content: Mapping[str, Any]) -> list[str]:
    """One table: losses by precision at the points that all finished runs have reached."""
    points = content["loss_points"]
    if not points:
        return ["No finished runs."]
    names = dict.fromkeys(n for group in content["precisions"].values() for n in group["losses"])
    rows = [["loss", "updates", *content["precisions"]]]
    for name in names:
        for updates in points:
            values = [
                interval(group["losses"][name][str(updates)]) if name in group["losses"] else "-"
                for group in content["precisions"].values()
            ]
            rows.append([name, f"{updates:,}", *values])
    return [table(rows)]


def scale_section(content: Mapping[str, Any]) -> list[str]:
    """Where dynamic loss scaling went in each run that has a scale; empty where none has."""
    rows = [["run", "optimiser", "first", "lowest", "last", "steps skipped"]]
    for group in content["precisions"].values():
        for run in group["runs"]:
            for name in OPTIMIZERS:
                if name in run["loss_scale"]:
                    scales = [power(run["loss_scale"][name][k]) for k in rows[0][2:5]]
                    skipped = run["updates_skipped_by"][name]
                    rows.append([run["name"], name, *scales, number(skipped)])
    return ["## Loss scale", table(rows)] if len(rows) > 1 else []


def run_rows(content: Mapping[str, Any]) -> list[list[str]]:
    """Header and one row per run, failed ones with their error."""
    played = bool(content["greedy_games"])
    rows = [["run", "seed", "status", "env frames", "updates", "hours", "final return"]]
    title = measure_titles(content).get("greedy_return")
    rows[0] += [f"{title}, interval over games"] * played + ["error"]
    for group in content["precisions"].values():
        for run in group["runs"]:
            greedy = run["greedy"] or {"mean": None, "low": None, "high": None}
            games_played = with_interval(greedy["mean"], greedy["low"], greedy["high"])
            rows.append(
                [
                    run["name"],
                    str(run["seed"]),
                    run["status"],
                    f"{run['env_frames']:,}",
                    f"{run['updates'] or 0:,.0f}",
                    number(run["hours"]),
                    number(run["final_return"]),
                    *[games_played] * played,
                    run["error"],
                ]
            )
    return rows


def interval(value: Mapping[str, float | None]) -> str:
    """`center [low, high]`."""
    return with_interval(value["iqm"], value["low"], value["high"])


# Figure

LAYOUTS = {3: (1, 3), 4: (2, 2), 5: (2, 3)}  # rows and columns, by the number of panels


def draw(path: Path, runs: Sequence[Run], summary: Mapping[str, Any]) -> None:
    """Panels: returns, model loss, time per update, and where a run has them its loss scale and its
    greedy games."""
    groups: dict[str, list[Run]] = {label: [] for label in summary["precisions"]}
    for label, run in zip(comparison.labels(runs), runs, strict=True):
        groups[label].append(run)
    counts = sorted({len(group) for group in groups.values()})
    each = " to ".join(map(str, counts[:: max(1, len(counts) - 1)]))
    each += " seed" if counts == [1] else " seeds"
    shown = [_returns, _loss, _times]
    if any(comparison.loss_scales(run) for run in runs):
        shown.append(_scales)
    if summary["greedy_games"]:
        shown.append(functools.partial(_greedy, count=summary["greedy_games"]))
    rows, columns = LAYOUTS[len(shown)]
    with figure(path, max(12, 5 * columns), 4.2 * rows) as drawing:
        drawing.suptitle(f"{summary['task']}: precision, {each} each")
        panels = np.ravel(drawing.subplots(rows, columns))
        for draw_panel, axes in zip(shown, panels, strict=False):
            draw_panel(axes, groups)
            plain(axes)
        for axes in panels[len(shown) :]:
            axes.set_axis_off()


def _returns(axes, groups):
    for style, (label, runs) in zip(_styles(groups), groups.items(), strict=True):
        x = (np.arange(WINDOWS) + 0.5) / WINDOWS * max(map(comparison.total_frames, runs))
        curves = np.array([_carried_on(comparison.window_returns(run)) for run in runs])
        _shaded(axes, x, curves, style, label)
    axes.set(title="Return of training episodes", xlabel="env frames", ylabel="return")
    if axes.lines:
        axes.legend(title="precision")


def _loss(axes, groups):
    for style, (label, runs) in zip(_styles(groups), groups.items(), strict=True):
        series = [s for run in runs if len((s := run.series("model_loss", "updates"))[0])]
        if series:
            x = np.linspace(max(s[0][0] for s in series), max(s[0][-1] for s in series), 100)
            curves = [np.interp(x, at, loss, right=np.nan) for at, loss in series]
            once = {"marker": "o"} if x[0] == x[-1] else {}  # a line of one point is invisible
            _shaded(axes, x, np.array(curves), {**style, **once}, label)
    axes.set(title="Loss of the world model", xlabel="updates", ylabel="nats")


def _times(axes, groups):
    for i, (style, runs) in enumerate(zip(_styles(groups), groups.values(), strict=True)):
        color = style["color"]
        times = [t for run in runs if (t := comparison.seconds_per_update(run)) is not None]
        axes.plot([i] * len(times), times, "o", color=color, alpha=0.7)
        if times:
            axes.hlines(np.median(times), i - 0.25, i + 0.25, color=color, lw=2)
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    axes.set(title="Time per update: each run, and the median", ylabel="seconds")


def _greedy(axes, groups, count):
    for i, (style, runs) in enumerate(zip(_styles(groups), groups.values(), strict=True)):
        played = [found for run in runs if (found := games.summary(run, count))]
        for j, found in enumerate(played):
            x = i + 0.6 * ((j + 0.5) / len(played) - 0.5)
            axes.plot(x, found["mean"], "o", color=style["color"])
            if found["low"] is not None:
                axes.vlines(x, found["low"], found["high"], color=style["color"])
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.set_ylim(min(0, axes.get_ylim()[0]))
    axes.set(title=f"Greedy: each run, {count} games, 95 %", ylabel="mean return")


def _scales(axes, groups):
    patterns = ("-", "--", ":", "-.", (0, (1, 4)), (0, (6, 4)))
    styles = dict(zip(OPTIMIZERS, patterns, strict=True))
    lines = {}
    for style, runs in zip(_styles(groups), groups.values(), strict=True):
        for run in runs:
            for name, dashes in styles.items():
                x, scale = run.series(f"{name}_loss_scale", "updates")
                if len(x):
                    drawn = axes.step(x, scale, ls=dashes, where="post", color=style["color"])
                    lines[name] = drawn[0]
    axes.set(title="Loss scale (each run)", xlabel="updates", ylabel="scale")
    axes.set_yscale("log", base=2)
    axes.legend(lines.values(), lines.keys(), title="optimiser")


def _shaded(axes, x, curves, style, label):
    """Interquartile mean over runs, its interval shaded; runs drop out where they have ended."""
    points = [bootstrap_interval(c[~np.isnan(c)], resamples=1000) for c in curves.T]
    known = [(xi, *p) for xi, p in zip(x, points, strict=True) if p.iqm is not None]
    if not known:
        return
    x, center, low, high = np.array(known, np.float64).T  # None, of too few runs, becomes NaN
    axes.plot(x, center, **style, lw=2, label=label)
    axes.fill_between(x, low, high, color=style["color"], alpha=0.15, lw=0)


def _carried_on(curve: np.ndarray) -> np.ndarray:
    """The last known value in windows without an episode, up to the last one that has any."""
    known = np.flatnonzero(~np.isnan(curve))
    result = curve.copy()
    for i in range(known[0], known[-1] + 1) if len(known) else []:
        if np.isnan(result[i]):
            result[i] = result[i - 1]
    return result


def _styles(groups) -> list[dict[str, Any]]:
    """A colour and dashes for each group: curves that coincide show through each other's gaps."""
    return [
        {"color": COLORS[i % len(COLORS)], "ls": DASHES[i % len(DASHES)]}
        for i in range(len(groups))
    ]
