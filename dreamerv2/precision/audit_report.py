"""report.md, report.png and report.json of an audit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.files import write_json, write_text
from common.report.figures import COLORS, figure
from common.report.tables import number, percent, power, table

PANELS = 8  # seven modules, and the errors
LEAST = 1e-3  # % of entries that the figure still shows
ZERO, OVERFLOW, USABLE, SCALE = "#1b6ca8", "#d1495b", "#cfe8cf", "#222222"
NOISE = "#bbbbbb"

HOW_TO_READ = """\
Every update starts from the checkpoint's weights, on the same batch and with the same noise as
float32; nothing is learned in between. *Activations*: every module is given what float32 computed,
so that errors do not add up; the number is the relative error of the worst of its outputs.
*Gradients*: those of a whole update, in which errors do add up and a latent may fall on another
class; *other noise* is how far two float32 updates on the same batch are apart when only the noise
differs, which is the error that training lives with anyway. All are medians over the updates.
*Zero*: entries that float32 has and float16 lost, a few of which are latents of another class, not
underflow. Dynamic loss scaling hovers at the largest scale at which all gradients of an optimiser
are finite, and tries the next one every 2000 updates."""


def write(directory: Path, content: Mapping[str, Any]) -> None:
    """Writes the three files."""
    directory.mkdir(parents=True, exist_ok=True)
    half = swept(content)
    if half:
        draw(directory / "report.png", content, half)
    write_json(directory / "report.json", content)
    write_text(directory / "report.md", markdown(content))


def swept(content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What was measured at float16, or None."""
    return next((p for p in content["precisions"].values() if "sweep" in p), None)


def markdown(content: Mapping[str, Any]) -> str:
    """The report, its findings first."""
    half = swept(content)
    parts = ["\n".join(verdict(content))]
    if half:
        parts += ["![Gradient entries by loss scale](report.png)"]
    parts += ["## Errors of one update", table(error_rows(content))]
    if half:
        parts += [
            "## Underflow and overflow by module",
            table(window_rows(half)),
            "## What overflows first",
            "\n".join(overflow_lines(half["sweep"])),
        ]
    parts += ["## The sum of the image log-likelihood", "\n".join(likelihood_lines(content))]
    parts += ["## How to read this", HOW_TO_READ, f"Made by:\n\n    {content['command']}"]
    return "\n\n".join(parts) + "\n"


def verdict(content: Mapping[str, Any]) -> list[str]:
    """Findings, the most useful first."""
    lines = [
        f"# Inside an update of {content['task']}, by precision",
        "",
        f"{content['updates']} updates on checkpoint {content['checkpoint']} (trained at precision "
        f"{content['trained_at']}) on {content['device']}.",
        *played_lines(content),
        "",
    ]
    noise = content["sampling_noise"]
    for precision, found in content["precisions"].items():
        lines.append(f"- **{precision}**: {against_noise(found['gradient_error'], noise)}.")
        lines += scale_lines(found)
    return lines


def against_noise(
    gradient_error: Mapping[str, float | None], noise: Mapping[str, float | None]
) -> str:
    """Where a precision is off by more than other noise, and where it has no finite gradient."""
    errors = {k: v for k, v in gradient_error.items() if v is not None}
    if not errors:
        return "no gradient was finite"
    broken = [module for module in gradient_error if module not in errors]
    above = [module for module, error in errors.items() if error > (noise[module] or 0)]
    worst = max(errors, key=errors.__getitem__)
    text = f"gradients are off by up to {percent(errors[worst])} ({worst}); "
    if above:
        text += f"more than other noise in {', '.join(above)}"
    else:
        text += f"less than other noise changes them in every {'other ' * bool(broken)}module"
    return (f"**no finite gradient** in {', '.join(broken)}; " if broken else "") + text


def played_lines(content: Mapping[str, Any]) -> list[str]:
    """What the agent played for its batches; nothing where they come from the run's episodes."""
    played = content["played"]
    if not played:
        return []
    steps, mean = f"{played['agent_steps']:,} agent steps", number(played["mean_return"])
    count = played["episodes"]
    return [f"The agent played for this audit: episodes {count:,}, {steps}, mean return {mean}."]


def scale_lines(found: Mapping[str, Any]) -> list[str]:
    """Whether the loss scale is needed, and where it goes."""
    if "sweep" not in found:
        return []
    largest = found["sweep"]["largest"]
    worst, lost = underflow(found)
    first, last = found["loss_scale"][0], found["loss_scale"][-1]
    went = ", ".join(f"{k} {power(first[k])} to {power(last[k])}" for k in first)
    holds = ", ".join(f"{k} {exponent(largest[k])}" for k in largest)
    return [
        f"- Without a loss scale, float16 loses up to {percent(lost)} of a module's "
        f"gradient entries to underflow ({worst}).",
        f"- Over these updates dynamic scaling went: {went}. Largest scales that hold: {holds}.",
    ]


def underflow(found: Mapping[str, Any]) -> tuple[str, float]:
    """The module that loses most gradient entries to underflow without a loss scale, and their
    share. What no scale avoids, such as latents of another class, does not count."""
    modules = found["sweep"]["modules"]
    lost = {module: share["zero"][0] - min(share["zero"]) for module, share in modules.items()}
    worst = max(lost, key=lost.__getitem__)
    return worst, lost[worst]


def error_rows(content: Mapping[str, Any]) -> list[list[str]]:
    """Header and one row per module."""
    precisions = content["precisions"]
    header = ["module"]
    header += [f"activations at {p}" for p in precisions] + [
        f"gradients at {p}" for p in precisions
    ]
    rows = [[*header, "gradients, other noise"]]
    for module, noise in content["sampling_noise"].items():
        row = [module]
        for found in precisions.values():
            names = [name for name in found["activation_error"] if name.split(":")[0] == module]
            errors = [found["activation_error"][name] for name in names]
            worst = max((error for error in errors if error is not None), default=None)
            bad = max((found["activations_not_finite"][name] for name in names), default=0)
            row.append(percent(worst) + _not_finite(bad))
        for found in precisions.values():
            bad = found["gradients_not_finite"][module]
            row.append(percent(found["gradient_error"][module]) + _not_finite(bad))
        rows.append([*row, percent(noise)])
    row = ["latents of another class"]
    row += [percent(found["latents_of_other_class"]) for found in precisions.values()]
    rows.append(row + [""] * (len(precisions) + 1))
    return rows


def _not_finite(updates: int) -> str:
    return f" ({updates} x not finite)" if updates else ""


def window_rows(half: Mapping[str, Any]) -> list[list[str]]:
    """Header and one row per module: zeros without a scale and at the current ones, the window."""
    sweep = half["sweep"]
    rows = [["module", "zero without a scale", "zero at the scale now", "zero at best", "usable"]]
    for module, share in sweep["modules"].items():
        now = current_exponent(half, share["optimizer"])
        window = share["window"]
        rows.append(
            [
                module,
                percent(share["zero"][0]),
                f"{percent(share['zero'][now])} at 2^{now}",
                percent(min(share["zero"])),
                f"2^{window[0]} to 2^{window[1]}" if window else "none",
            ]
        )
    return rows


def overflow_lines(sweep: Mapping[str, Any]) -> list[str]:
    """The tensors that overflow at the lowest scales."""
    if not sweep["tensors"]:
        return [f"Nothing does up to 2^{sweep['exponents'][-1]}."]
    rows = [["gradient of", "not finite from", "its own largest entry leaves float16 at"]]
    for tensor in sweep["tensors"][:12]:
        own = exponent(tensor["own_exponent"])
        rows.append([f"`{tensor['name']}`", f"2^{tensor['exponent']}", own])
    more = len(sweep["tensors"]) - len(rows) + 1
    lines = [table(rows)]
    if more > 0:
        lines.append(f"\nand {more} more at the same or higher scales.")
    lines.append(
        "\nWhere the last column is higher, the overflow happened in an activation's gradient on "
        "the way, not in the sum over the batch that makes the parameter's."
    )
    return lines


def likelihood_lines(content: Mapping[str, Any]) -> list[str]:
    """How far a float16 sum is off, in nats."""
    lines = []
    for key, found in content.get("image_likelihood", {}).items():
        if None in found.values():
            lines.append(f"`{key}`: in float16 the log-likelihood of an image is not finite.")
            continue
        lines.append(
            f"`{key}`: the log-likelihood of an image is {found['mean_log_likelihood']:,.1f} nats "
            f"on average; {found['mean_signal']:.3g} of them (± {found['signal_std']:.2g} from "
            "image to image) depend on the prediction, the rest is a constant. Computed and summed "
            "in float16, as the author's code does at precision 16, it is off by "
            f"{found['float16_sum_mean_absolute_error']:.2g} nats on average "
            f"({found['float16_sum_mean_error']:+.2g} with sign) and "
            f"{found['float16_sum_largest_error']:.2g} at most: neighbouring float16 numbers are "
            f"{found['spacing_of_float16']:g} apart there. Summed in float32 from the same float16 "
            f"prediction, as here: {found['float32_sum_mean_absolute_error']:.2g}. The gradient of "
            "a sum does not depend on its value: this error is in what is logged, not in what is "
            "learned."
        )
    return lines or ["No image is predicted with a Normal of unit variance."]


def current_exponent(half: Mapping[str, Any], optimizer: str) -> int:
    """The swept exponent closest to the scale that an optimiser had after the last update."""
    scale = half["loss_scale"][-1][optimizer]
    return min(half["sweep"]["exponents"], key=lambda e: abs(2.0**e - scale))


def exponent(value: int | None) -> str:
    return "none" if value is None else f"2^{value}"


# Figure


def draw(path: Path, content: Mapping[str, Any], half: Mapping[str, Any]) -> None:
    """One panel per module: underflow, overflow and what lies between; one with relative errors."""
    modules = half["sweep"]["modules"]
    with figure(path, 16, 8, dpi=100) as drawing:
        drawing.suptitle(
            f"{content['task']}: gradient entries that float16 turns to zero or infinity, by loss "
            f"scale ({half['sweep']['updates']} of the {content['updates']} updates)"
        )
        *panels, last = drawing.subplots(2, PANELS // 2).flat
        for axes, (module, share) in zip(panels, modules.items(), strict=True):
            _draw_module(axes, half, module, share)
        handles, names = panels[0].get_legend_handles_labels()
        drawing.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
        _draw_errors(last, content)


def _draw_module(axes, half, module, share):
    x = half["sweep"]["exponents"]
    zero, bad = ([max(100 * v, LEAST) for v in share[kind]] for kind in ("zero", "not_finite"))
    if share["window"]:
        low, high = share["window"]
        axes.axvspan(low - 0.5, high + 0.5, color=USABLE, label="usable scales")
    axes.fill_between(x, zero, color=ZERO, alpha=0.75, step="mid", label="became zero")
    axes.fill_between(x, bad, color=OVERFLOW, alpha=0.75, step="mid", label="not finite")
    now = current_exponent(half, share["optimizer"])
    axes.axvline(now, color=SCALE, lw=2, label="scale that dynamic scaling has now")
    holds = half["sweep"]["largest"][share["optimizer"]]
    if holds is not None:
        axes.axvline(
            holds, color=SCALE, lw=1.5, ls=":", label="largest scale at which the optimiser's hold"
        )
    axes.set(title=f"{module} ({share['optimizer']} optimiser)", xlim=(-0.5, x[-1] + 0.5))
    axes.set(yscale="log", ylim=(LEAST, 150), xlabel="loss scale", ylabel="% of gradient entries")
    ticks = x[::4]
    axes.set_xticks(ticks, [f"$2^{{{e}}}$" for e in ticks])
    shares = [100, 10, 1, 0.1, 0.01, LEAST]
    axes.set_yticks(shares, [f"{share:g}" for share in shares])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)


def _draw_errors(axes, content):
    bars = {"other noise": content["sampling_noise"]}
    bars |= {p: found["gradient_error"] for p, found in content["precisions"].items()}
    modules = list(content["sampling_noise"])
    height = 0.8 / len(bars)
    for i, (color, (name, errors)) in enumerate(zip((NOISE, *COLORS), bars.items(), strict=False)):
        positions = [y + i * height for y in range(len(modules))]
        values = [100 * (errors[module] or 0) for module in modules]
        axes.barh(positions, values, height * 0.9, color=color, label=name)
    axes.set_yticks([y + height * (len(bars) - 1) / 2 for y in range(len(modules))], modules)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set(title="Relative error of gradients", xlabel="%")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=len(bars))
    axes.spines[["top", "right"]].set_visible(False)
