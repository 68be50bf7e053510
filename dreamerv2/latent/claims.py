"""Agents beside each other: `python -m dreamerv2.latents --compare RUN [RUN ...] --out DIR`.

One row for each claim of the published evaluation of a fully discretised DreamerV2 on Pong, one
column for each agent, from the reports that `latents` has written for them.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.files import write_json, write_text
from common.report.figures import COLORS, figure, plain, verbatim
from common.report.tables import number, percent, table, with_interval
from dreamerv2.latent.report_game import harmful, tested

Report = Mapping[str, Any]  # a report.json
Reports = Mapping[str, Report]  # by the agent's name
Cell = Callable[[Report], str]
Row = list[str]

ORDERS = {"given": "by number", "random": "random order", "greedy": "smallest change first"}
IMPLAUSIBLE = ("interpolate", "implausible_fraction")
PARTS = {"discrete": "discrete part", "deter": "memory", "pixels": "what it sees"}

HOW_TO_READ = """\
The report of each agent explains its numbers. *In between* are the inner halves of walks from one
latent to another. An error has two numbers: that of a linear map, and that of five hidden layers.
*Guessing* is always saying the mean; the *memory* is `deter`."""


def write(directory: Path, reports: Reports, command: str) -> str:
    """Writes report.md, report.png and report.json; returns the tables."""
    tasks = {str(report["run"]["task"]) for report in reports.values()}
    if len(tasks) > 1:
        raise ValueError(f"--compare: expected agents of one task, got {', '.join(sorted(tasks))}")
    text = "\n\n".join(tables(reports))
    directory.mkdir(parents=True, exist_ok=True)
    parts = [f"# Inside the latents of agents of {tasks.pop()}", text]
    if drawn(reports):
        draw(directory / "report.png", reports)
        parts.append("![What can be read out of each part of the state](report.png)")
    parts += ["## How to read this", HOW_TO_READ, f"Made by:\n\n    {command}"]
    write_text(directory / "report.md", "\n\n".join(parts) + "\n")
    write_json(directory / "report.json", reports)
    return text


def read(runs: Sequence[Path]) -> dict[str, Report]:
    """The reports of runs by their directories' names; ValueError where one has none."""
    found: dict[str, Report] = {}
    for run in {run.resolve(): run for run in runs}.values():
        path = run / "latents" / "report.json"
        if not path.exists():
            make = f"python -m dreamerv2.latents --logdir {run}"
            raise ValueError(f"{path} does not exist; this command writes it: {make}")
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            report["run"]["task"]
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"{path} is no report of latents") from None
        name = run.name or run.resolve().name
        name = name if name not in found else str(run)
        found[name] = report
    return found


# Tables


def tables(reports: Reports) -> Iterator[str]:
    """A heading and a table for each claim that any report has numbers for."""
    every = list(reports.values())
    for heading, rows in _sections(every).items():
        filled = [row for row in rows if any(cell != "-" for cell in row[1:])]
        if filled:
            yield f"## {heading}\n\n{table([['', *reports], *filled])}"


def _sections(reports: Sequence[Report]) -> dict[str, list[Row]]:
    """Rows of cells, the first its label, by claim."""
    return {
        "The agents": [
            _row("policy, heads and decoder see", reports, _seen),
            _row("trained, agent steps", reports, lambda r: f"{r['run']['agent_steps']:,}"),
            _row("return", reports, _return),
        ],
        "Claimed: most of the classes are never on": [
            _row("never on", reports, _share("usage", "never_used_fraction")),
            _row("after half of the rows", reports, _share("usage", "never_used_fraction_half")),
            _row("bits that a variable carries", reports, _bits),
        ],
        "Claimed: swapping one variable mostly changes nothing visible": [
            _row("no pixel changes", reports, _share("sweep", "invisible_fraction")),
            _row("no cell changes", reports, _share("sweep", "board", "unchanged_fraction")),
        ],
        "Claimed: a walk from one latent to another decodes to nothing meaningful": _walks(reports),
        "Claimed: the ball and its velocity can be read out, better with five layers": [
            row for variable in _variables(reports) for row in _probed(reports, variable)
        ],
        "What single variables tell, and cost": [
            *(_row(f"most about {v}", reports, _told(v)) for v in _variables(reports)),
            _row("variables that cost points when fixed", reports, _costly),
            _row("the most that one costs", reports, _worst),
            _row("return with all fixed", reports, lambda r: number(r["fix"]["all_fixed_mean"])),
        ],
    }


def _walks(reports: Sequence[Report]) -> list[Row]:
    unlikely = [
        _row(f"less likely than 95 % of real latents, {order}", reports, _share(*IMPLAUSIBLE, key))
        for key, order in ORDERS.items()
    ]
    allowed = [
        _row(f"allowed boards, {boards}", reports, _share("interpolate", "board", key, "allowed"))
        for key, boards in ({"real": "real states"} | ORDERS).items()
    ]
    return unlikely + allowed


def _probed(reports: Sequence[Report], variable: str) -> list[Row]:
    return [
        _row(f"{variable}, guessing", reports, _guess(variable)),
        *(_row(f"{variable}, {part}", reports, _errors(k, variable)) for k, part in PARTS.items()),
    ]


def _row(label: str, reports: Sequence[Report], cell: Cell) -> Row:
    return [label, *(_known(cell, report) for report in reports)]


def _known(cell: Cell, report: Report) -> str:
    """A cell, or a dash where the report lacks the section."""
    try:
        return cell(report)
    except (KeyError, ValueError):
        return "-"


def _share(*path: str) -> Cell:
    """A cell: the share at a path of keys, as a percentage."""

    def cell(report: Report) -> str:
        value: Any = report
        for key in path:
            value = value[key]
        return percent(value)

    return cell


def _seen(report: Report) -> str:
    return "discrete part" if report["run"]["features"] == "discrete" else "both parts"


def _return(report: Report) -> str:
    """The mean return of the episodes that were played, and how many were cut."""
    run = report["run"]
    cut = f" ({run['episodes_cut']} of {run['episodes']} cut)" if run.get("episodes_cut") else ""
    return number(run["mean_return"]) + cut


def _bits(report: Report) -> str:
    return number(float(np.mean(report["usage"]["entropy_bits"])))


def _variables(reports: Sequence[Report]) -> list[str]:
    """The game's variables that any report has a probe or information for."""
    found: dict[str, None] = {}
    for report in reports:
        for section in ("probe", "information"):
            found |= dict.fromkeys(report.get(section, {}).get("variables", ()))
    return list(found)


def _guess(variable: str) -> Cell:
    return lambda report: number(report["probe"]["errors"]["mean"]["mean"][variable])


def _errors(part: str, variable: str) -> Cell:
    def cell(report: Report) -> str:
        errors = report["probe"]["errors"][part]
        return f"{number(errors['linear'][variable])}, {number(errors['mlp'][variable])}"

    return cell


def _told(variable: str) -> Cell:
    """A cell: the largest share of a game variable's entropy that one latent variable tells; a dash
    where the game variable never changed."""

    def cell(report: Report) -> str:
        found = report["information"]
        column = found["variables"].index(variable)
        told, to_know = [bits[column] for bits in found["bits"]], found["entropy_bits"][column]
        best = int(np.argmax(told))
        return f"{percent(told[best] / to_know)} (variable {best})" if to_know else "-"

    return cell


def _costly(report: Report) -> str:
    found = report["fix"]
    return f"{harmful(found)} of {len(found['p_adjusted'])}" if tested(found) else "-"


def _worst(report: Report) -> str:
    found = report["fix"]
    worst = int(np.argmax(found["loss"]))
    low, high = found["loss_interval"][worst] if tested(found) else (None, None)
    return f"{with_interval(found['loss'][worst], low, high)} (variable {worst})"


def _mlp(errors: Mapping[str, Any], variable: str) -> float:
    """NaN where an agent has no such part, or its game no such variable: no bar."""
    return errors.get("mlp", {}).get(variable, np.nan)


# Figure


def drawn(reports: Reports) -> bool:
    """Whether any report has a probe, which is what the figure shows."""
    return any("errors" in report.get("probe", {}) for report in reports.values())


def draw(path: Path, reports: Reports) -> None:
    """Errors of the five-layer probe as a share of guessing: a panel per game variable, a group of
    bars per part of the state, a bar per agent."""
    probed = {k: r["probe"]["errors"] for k, r in reports.items() if "errors" in r.get("probe", {})}
    variables = _variables(list(reports.values()))
    lines = -(-len(variables) // 3)
    width = 0.8 / len(probed)
    with figure(path, 13, 0.8 + 3 * lines) as drawing:
        drawing.suptitle("Error with five hidden layers, as a share of the error of guessing")
        panels = drawing.subplots(lines, 3, sharey=True, squeeze=False).flat
        for axes, variable in zip(panels, variables, strict=False):
            for i, (name, errors) in enumerate(probed.items()):
                guess = errors["mean"]["mean"].get(variable) or np.nan
                shares = [_mlp(errors.get(part, {}), variable) / guess for part in PARTS]
                places = np.arange(len(PARTS)) + i * width
                color, label = COLORS[i % len(COLORS)], verbatim(name)
                axes.bar(places, shares, width * 0.9, color=color, label=label)
            axes.axhline(1, color="#777777", ls="--", lw=1)
            axes.set_xticks(np.arange(len(PARTS)) + 0.4 - width / 2, list(PARTS.values()))
            axes.set(title=variable, ylim=(0, None))
            plain(axes)
        for axes in list(drawing.axes)[len(variables) :]:
            axes.set_axis_off()
        handles, names = drawing.axes[0].get_legend_handles_labels()
        drawing.legend(handles, names, loc="outside lower center", ncols=6, frameon=False)
