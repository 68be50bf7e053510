"""What the page says about a run, read from its logdir."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.log.progress import duration
from common.report.stats import bootstrap_mean
from dreamerv2.measure.curves import Run
from dreamerv2.run import starts
from dreamerv2.run.blocks import OBJECT
from dreamerv2.run.origin import Origin, command

MOST_BYTES = 8 * 2**20  # of one picture; a larger one is named, not shown

Facts = list[tuple[str, str]]


class Picture(NamedTuple):
    """A file of the logdir, and what it shows."""

    title: str
    path: Path


def what_was_run(run: Run, source: Origin) -> Facts:
    """Task, length and time, where, and the command that starts it again."""
    last = {key: value for row in run.rows for key, value in row.items() if value is not None}
    facts = [("task", run.task), ("environment frames", f"{last['step']:,.0f}")]
    if "updates" in last:
        facts.append(("updates", f"{last['updates']:,.0f}"))
    if "hours" in last:
        facts.append(("wall clock", duration(last["hours"] * 3600)))
    if "cpu_seconds" in last:
        facts.append(("CPU time, all threads", duration(last["cpu_seconds"])))
    facts += _where(run.logdir)
    if not str(run.settings.get("env", "")).startswith(OBJECT):  # which no command can make
        facts.append(("command", command(run.settings | {"logdir": run.logdir}, source)))
    return facts


def _where(logdir: Path) -> Facts:
    """Machines and versions of the run; of this page where the run did not record its own."""
    found = starts.read(logdir)
    if not found:
        return [
            ("machine that made this page", starts.machine()),
            ("versions that made this page", starts.versions()),
        ]
    return [
        ("machine", _changes([(start.agent_steps, start.machine) for start in found])),
        ("versions", _changes([(start.agent_steps, start.versions) for start in found])),
    ]


def _changes(values: Sequence[tuple[int, str]]) -> str:
    """`A`, or `A; from agent step 5,000 B` where the value has changed at a start."""
    parts, latest = [], ""
    for agent_steps, value in values:
        if value != latest:
            parts.append(f"from agent step {agent_steps:,} {value}" if agent_steps else value)
        latest = value
    return "; ".join(parts)


def evaluation(run: Run) -> str:
    """The latest evaluation in a sentence, with its 95 % interval where it has one."""
    rows = [row for row in run.rows if row.get("eval_return") is not None]
    if not rows:
        return "There was no evaluation."
    returns = [row["eval_return"] for row in rows if row["step"] == rows[-1]["step"]]
    text = f"{np.mean(returns):.4g}"
    if len(returns) > 1:
        low, high = bootstrap_mean(returns)
        text += f" (95 % interval {low:.4g} to {high:.4g})"
    count = "1 episode" if len(returns) == 1 else f"{len(returns)} episodes"
    return f"Mean return {text} over {count} at {rows[-1]['step']:,.0f} environment frames."


def precision(run: Run) -> Facts:
    """Precision, and of each optimiser its loss scale and how many updates it skipped."""
    facts = [("precision", str(run.settings.get("precision", "unknown")))]
    last = {key: value for row in run.rows for key, value in row.items() if value is not None}
    for key in sorted(last):
        if key.endswith("_loss_scale"):
            facts.append((key, f"2^{np.log2(last[key]):g}" if last[key] > 0 else f"{last[key]:g}"))
        elif key.endswith("_skipped"):
            facts.append((key, f"{last[key]:,.0f} updates"))
    nulls = sum(value is None for row in run.rows for value in row.values())
    return [*facts, ("logged values that were not finite", f"{nulls:,}")]


def pictures(logdir: Path) -> list[Picture]:
    """The newest film, episode, open loop, and what the study of the latent has drawn."""
    clips = sorted((logdir / "videos").glob("*.gif"), key=os.path.getmtime)
    films = [path for path in clips if "-eval_" not in path.name]
    films += sorted(logdir.glob("*.gif"), key=os.path.getmtime)
    groups: list[tuple[str, Sequence[Path]]] = [
        ("The newest film", films),
        ("The newest evaluation, as the agent sees it", _named(clips, "eval_policy")),
        ("Open loop: truth, model, error", _named(clips, "openl")),
        ("What the latent uses", list((logdir / "latents").glob("usage.png"))),
    ]
    return [Picture(title, paths[-1]) for title, paths in groups if paths]


def _named(paths: Sequence[Path], part: str) -> list[Path]:
    return [path for path in paths if part in path.name]
