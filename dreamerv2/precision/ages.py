"""An audit at several ages of one run: `python -m dreamerv2.compare --audit RUN --checkpoints ...`.

Does the window of usable loss scales move while an agent learns? Do the errors of a precision grow?
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.files import write_json, write_text
from common.log.metrics import Row
from common.report.figures import COLORS, figure, plain, whole_numbers
from common.report.tables import number, percent, table
from dreamerv2.precision import audit_report
from dreamerv2.precision.audit_report import exponent

NOISE = "#888888"
PANELS = 8  # seven modules, and the loss scales
TICKS = (1e-3, 1e-2, 1e-1, 1.0)  # of relative errors
RETURN_EPISODES = 20  # the last ones before a checkpoint

FROM_RUN = """\
All ages see the same batches, drawn from the episodes that the run holds now: the weights alone set
them apart. To a young agent the episodes of a better one are new: its gradients may be larger on
them, and its largest loss scale lower. With `--play N` each agent plays its own."""
FROM_PLAY = """\
Each age sees batches from new episodes, which the agent of that age played as in training."""
HOW_TO_READ = """\
An age is a checkpoint. {batches} *Other noise* is how far two float32 updates on the same batch are
apart when only the noise differs. The report of each age says how its numbers are measured."""

Audit = Mapping[str, Any]  # what an audit of one age found
Content = Mapping[str, Any]  # report.json: command, device, task, updates, and the audits by age


def write(directory: Path, content: Content) -> None:
    """Writes report.md, report.png and report.json; the audits stand beside them, by agent step."""
    draw(directory / "report.png", content)
    write_json(directory / "report.json", content)
    write_text(directory / "report.md", markdown(content))


def training_return(rows: Sequence[Row], env_frames: int) -> float | None:
    """Mean return of the last 20 training episodes that ended by `env_frames`; None without any."""
    ended = [row["train_return"] for row in rows if _ended(row, env_frames)]
    return float(np.mean(ended[-RETURN_EPISODES:])) if ended else None


def _ended(row: Row, env_frames: int) -> bool:
    return row.get("train_return") is not None and row["step"] <= env_frames


# Text


def markdown(content: Content) -> str:
    """The report, its findings first."""
    ages = content["ages"]
    links = [f"[{age['agent_steps']:,}]({age['agent_steps']}/report.md)" for age in ages]
    parts = [
        "\n".join(verdict(content)),
        "![Errors of gradients and largest loss scales by age](report.png)",
        "## By age",
        table(age_rows(ages)),
        f"The report of each age: {', '.join(links)}.",
        "## How to read this",
        HOW_TO_READ.format(batches=FROM_PLAY if ages[0]["played"] else FROM_RUN),
        f"Made by:\n\n    {content['command']}",
    ]
    return "\n\n".join(parts) + "\n"


def verdict(content: Content) -> list[str]:
    """Findings, the most useful first."""
    ages = content["ages"]
    return [
        f"# Inside an update of {content['task']}, by precision and age",
        "",
        f"{content['updates']} updates at each of {len(ages)} ages of one run, from agent step "
        f"{ages[0]['agent_steps']:,} to {ages[-1]['agent_steps']:,}, on {content['device']}.",
        "",
        *(f"- **{name}**: {_against_noise(ages, name)}." for name in ages[0]["precisions"]),
        *_underflow_lines(ages),
        *(
            f"- Largest loss scale that holds, {optimizer}: {_range(scales)}."
            for optimizer, scales in largest_scales(ages).items()
        ),
    ]


def _against_noise(ages: Sequence[Audit], precision: str) -> str:
    """Where a precision is off by more than other noise, and by how much at most."""
    above: dict[str, list[tuple[float, int]]] = {}
    broken: dict[str, int] = {}
    for age in ages:
        for module, error in age["precisions"][precision]["gradient_error"].items():
            noise = age["sampling_noise"][module]
            if error is None:
                broken[module] = broken.get(module, 0) + 1
            elif noise and error > noise:
                above.setdefault(module, []).append((error / noise, age["agent_steps"]))
    lost = [f"{module} at {count} of {len(ages)} ages" for module, count in broken.items()]
    prefix = f"**no finite gradient** in {', '.join(lost)}; " if lost else ""
    if not above:
        where = "wherever they are finite" if lost else "in every module at every age"
        return f"{prefix}gradients are off by less than other noise {where}"
    found = []
    for module, ratios in above.items():
        most, steps = max(ratios)
        worst = f"{number(most)} times at most, at agent step {steps:,}"
        found.append(f"{module} at {len(ratios)} of {len(ages)} ages ({worst})")
    return f"{prefix}gradients are off by more than other noise in {', '.join(found)}"


def _underflow_lines(ages: Sequence[Audit]) -> list[str]:
    lost = lost_without_scale(ages)
    text = "Without a loss scale float16 loses this share of a module's gradient entries, by age"
    return [f"- {text}: {', '.join(lost)}."] if lost else []


def lost_without_scale(ages: Sequence[Audit]) -> list[str]:
    """By age, the share of entries that the worst module loses to underflow, with its name; empty
    where float16 was not asked for."""
    swept = [audit_report.swept(age) for age in ages]
    found = [audit_report.underflow(half) for half in swept if half]
    return [f"{percent(share)} ({module})" for module, share in found]


def _range(scales: Sequence[int | None]) -> str:
    known = [scale for scale in scales if scale is not None]
    if not known:
        return "none at any age"
    if min(known) == max(known):
        return f"2^{known[0]} at every age" + (" that has one" if len(known) < len(scales) else "")
    return f"from 2^{min(known)} to 2^{max(known)}; by age {', '.join(map(exponent, scales))}"


def largest_scales(ages: Sequence[Audit]) -> dict[str, list[int | None]]:
    """Per optimiser and by age, the largest exponent that holds; empty where float16 was not asked
    for."""
    swept = [audit_report.swept(age) for age in ages]
    largest = [half["sweep"]["largest"] for half in swept if half]
    return {name: [each[name] for each in largest] for name in largest[0]} if largest else {}


def age_rows(ages: Sequence[Audit]) -> list[list[str]]:
    """Header and rows, one column per age."""
    rows = [["agent step", *(f"{age['agent_steps']:,}" for age in ages)]]
    rows.append(["training return", *(number(age["train_return"]) for age in ages)])
    if ages[0]["played"]:
        means = (number(age["played"]["mean_return"]) for age in ages)
        rows.append(["mean return of the episodes played", *means])
    for optimizer, scales in largest_scales(ages).items():
        rows.append([f"largest loss scale that holds, {optimizer}", *map(exponent, scales)])
    if lost := lost_without_scale(ages):
        rows.append(["lost without a loss scale, worst module", *lost])
    for label, errors in error_series(ages):
        for module in errors[0]:
            rows.append([f"{label}: {module}", *(percent(each[module]) for each in errors)])
    for precision in ages[0]["precisions"]:
        found = (age["precisions"][precision]["latents_of_other_class"] for age in ages)
        rows.append([f"latents of another class at {precision}", *map(percent, found)])
    return rows


def error_series(ages: Sequence[Audit]) -> Iterator[tuple[str, list[Mapping[str, float | None]]]]:
    """What is compared, with its errors by module for each age."""
    for name in ages[0]["precisions"]:
        errors = [age["precisions"][name]["gradient_error"] for age in ages]
        yield f"gradients at {name}", errors
    yield "other noise", [age["sampling_noise"] for age in ages]


# Figure


def draw(path: Path, content: Content) -> None:
    """One panel per module with its errors by age, and one with the loss scales."""
    ages = content["ages"]
    modules, colors = ages[0]["sampling_noise"], [*COLORS[: len(ages[0]["precisions"])], NOISE]
    with figure(path, 16, 8, dpi=100) as drawing:
        drawing.suptitle(f"{content['task']}: relative error of gradients by age of the agent")
        *panels, last = drawing.subplots(2, PANELS // 2, sharex=True).flat
        for axes, module in zip(panels, modules, strict=True):
            for color, (label, errors) in zip(colors, error_series(ages), strict=True):
                shares = np.array([each[module] for each in errors], np.float64)  # None: NaN
                axes.plot(shares, "o-", color=color, label=label)
            axes.set(title=module, yscale="log", ylim=(1e-4, 3), ylabel="error")
            axes.set_yticks(TICKS, [f"{100 * tick:g} %" for tick in TICKS])
        handles, names = panels[0].get_legend_handles_labels()
        drawing.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
        _draw_scales(last, largest_scales(ages))
        labels = [f"{age['agent_steps']:,}" for age in ages]
        for axes in (*panels, last):
            axes.set_xticks(range(len(ages)), labels, rotation=30)
            axes.set(xlabel="agent step")
            axes.minorticks_off()
            plain(axes)


def _draw_scales(axes, scales):
    if not scales:
        axes.set_axis_off()
        return
    for color, (optimizer, exponents) in zip(COLORS[2:], scales.items(), strict=False):
        axes.plot(np.array(exponents, np.float64), "o-", color=color, label=optimizer)
    axes.set(title="Largest loss scale that holds", ylabel="exponent of 2")
    whole_numbers(axes.yaxis)
    axes.legend(frameon=False)
