"""The pictures of the report. Every function draws one figure into one file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from common.envs.minatar import BOARD, board_colours
from common.log import paint
from common.report.figures import figure, whole_numbers
from common.report.tables import number
from dreamerv2.latent.information import TOLD, Information
from dreamerv2.latent.interpolate import Example, Interpolation
from dreamerv2.latent.sweep import Sweep, others_in_use, per_variable
from dreamerv2.latent.usage import Usage, entropy_bits

NEVER = "#e8b4a0"  # cells that were never used
CURRENT = "#2ca02c"
BLUE, ORANGE, GRAY, LIGHT = "#1f77b4", "#ff7f0e", "#777777", "#d8d8d8"
BRIGHTER, DARKER = "#b2182b", "#2166ac"
DPI = 100
LEGEND_INCHES = 2.4  # width of an entry of a legend
TILE = 40  # pixels that an image has at least in a grid of them


def usage_heatmap(path: Path, posterior: Usage, prior: Usage) -> None:
    """How often every cell was used, logarithmic; never-used cells in a colour of their own."""
    rows = int(posterior.counts[0].sum())
    variables, classes = posterior.counts.shape
    with figure(path, 12, 1.8 + 9.2 * min(1.5, variables / (2 * classes))) as drawing:
        axes = drawing.subplots(1, 2, sharey=True)
        for ax, (name, usage) in zip(
            axes, {"posterior": posterior, "prior": prior}.items(), strict=True
        ):
            counts = usage.counts
            ax.set_facecolor(NEVER)
            image = ax.imshow(
                np.ma.masked_equal(counts, 0),
                norm=LogNorm(1, rows),
                cmap="viridis",
                aspect="auto",
                interpolation="nearest",
            )
            never = (counts == 0).sum()
            ax.set_title(f"{name}: {never:,} of {counts.size:,} cells never used")
            ax.set_xlabel("class")
            whole_numbers(ax.xaxis, ax.yaxis)
        axes[0].set_ylabel("variable")
        drawing.colorbar(image, ax=axes, label=f"rows in which the cell was on, of {rows:,}")
        drawing.legend(handles=[Patch(color=NEVER, label="never used")], loc="outside lower center")


def usage_variables(path: Path, posterior: Usage, prior: Usage) -> None:
    """Entropy per variable, and how the share of never-used cells falls with the rows seen."""
    entropy, prior_entropy = entropy_bits(posterior.counts), entropy_bits(prior.counts)
    variables, classes = posterior.counts.shape
    with figure(path, 12, 4.4) as drawing:
        bars, curve = drawing.subplots(1, 2)
        x = np.arange(variables)
        bars.bar(x - 0.2, entropy, 0.4, color=BLUE, label="posterior")
        bars.bar(x + 0.2, prior_entropy, 0.4, color=ORANGE, label="prior")
        bars.axhline(np.log2(classes), color=GRAY, ls="--", label="all classes used evenly")
        bars.set(xlabel="variable", ylabel="entropy [bits]", title="How much each variable varies")
        whole_numbers(bars.xaxis)
        drawing.legend(*bars.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        for usage, color in ((posterior, BLUE), (prior, ORANGE)):
            curve.plot(usage.seen, 100 * usage.never_used, color=color)
        curve.set(
            xscale="log",
            ylim=(0, 100),
            xlabel="rows seen",
            ylabel="cells never used [%]",
            title="Is “never” only “too few rows”? Then this still falls at the right",
        )


def sweep_grid(path: Path, result: Sweep, counts: np.ndarray, shown: int = 6) -> None:
    """One real state, the most effective variables through all their classes, and the changes."""
    variables, classes = counts.shape
    order = np.argsort(-per_variable(result.pixel, others_in_use(result.current, counts)))[:shown]
    zoom, pad = -(-TILE // min(result.tiles.shape[2:4])), 6
    high, wide = (zoom * side for side in result.tiles.shape[2:4])
    line_height, column_width = high + 2 * pad, wide + 2 * pad
    canvas = np.ones((2 * len(order) * line_height, classes * column_width, 3))
    for row, variable in enumerate(order):
        base = result.tiles[variable, result.current[0, variable]]
        for c in range(classes):
            is_current = c == result.current[0, variable]
            color = CURRENT if is_current else LIGHT if counts[variable, c] else NEVER
            image = result.tiles[variable, c]
            for line, tile in enumerate((_rgb(image), _signed(image - base))):
                y, x = (2 * row + line) * line_height, c * column_width
                cell = canvas[y : y + line_height, x : x + column_width]
                cell[1:-1, 1:-1] = _hex(color)
                cell[pad:-pad, pad:-pad] = tile.repeat(zoom, 0).repeat(zoom, 1)
    height, width = canvas.shape[:2]
    inches = max(1.3 + width / 110, LEGEND_INCHES + 0.4)
    with figure(path, inches, 1.2 + height / 110) as drawing:
        ax = drawing.subplots()
        ax.imshow(canvas, interpolation="antialiased", aspect="equal")
        ticks = (np.arange(len(order)) * 2 + 1) * line_height
        ax.set_yticks(ticks, [f"variable {v}" for v in order])
        ax.set_xticks((np.arange(classes) + 0.5) * column_width, list(map(str, range(classes))))
        ax.set_xlabel("class")
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        legend = {
            "the state's own class": CURRENT,
            "another class": LIGHT,
            "class that was never on": NEVER,
            "change: brighter": BRIGHTER,
            "change: darker": DARKER,
        }
        handles = [Patch(color=color, label=label) for label, color in legend.items()]
        columns = max(1, min(3, int(drawing.get_figwidth() / LEGEND_INCHES)))
        drawing.legend(handles=handles, loc="outside upper center", ncols=columns)


def sweep_maps(path: Path, result: Sweep) -> None:
    """Where in the image each variable acts: mean absolute change, one map per variable."""
    variables, height, width = result.maps.shape
    columns = min(8, variables)
    lines = -(-variables // columns)
    top = max(1.0, float(np.quantile(result.maps, 0.999)))
    with figure(path, 1.4 * columns + 1.2, 1.6 * lines + 0.4) as drawing:
        axes = drawing.subplots(lines, columns, squeeze=False)
        for ax in axes.flat:
            ax.axis("off")
        for variable, ax in zip(range(variables), axes.flat, strict=False):
            image = ax.imshow(
                result.maps[variable] + 1e-3, norm=LogNorm(top / 100, top, clip=True), cmap="magma"
            )
            ax.set_title(f"{variable}: {result.maps[variable].mean():.2f}", fontsize=9)
        drawing.colorbar(image, ax=axes, label="mean change [gray levels]", aspect=40)


def sweep_effects(path: Path, result: Sweep, counts: np.ndarray) -> None:
    """Effect of each variable on image, value, reward and policy."""
    used = others_in_use(result.current, counts)
    every = others_in_use(result.current, np.ones_like(counts))
    x = np.arange(counts.shape[0])
    labels = {
        "pixel": "image [gray levels]",
        "value": "value",
        "reward": "reward",
        "policy": "policy [probability moved]" if result.discrete else "most likely action [moved]",
    }
    with figure(path, 12, 8) as drawing:
        axes = drawing.subplots(4, 1, sharex=True)
        for ax, (name, label) in zip(axes, labels.items(), strict=True):
            change = getattr(result, name)
            ax.bar(x - 0.2, per_variable(change, used), 0.4, color=BLUE, label="classes in use")
            ax.bar(x + 0.2, per_variable(change, every), 0.4, color=ORANGE, label="all classes")
            ax.set_ylabel(label)
        axes[0].set_title("Mean absolute change when one variable gets another class")
        axes[-1].set_xlabel("variable")
        drawing.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)


def interpolate_strip(path: Path, example: Example, columns: int = 9) -> None:
    """Rows of images between two real frames, by each way of getting from one to the other."""
    rows = example_rows(example)
    with figure(path, 1.25 * columns + 2.1, 1.32 * len(rows) + 0.3) as drawing:
        axes = drawing.subplots(len(rows), columns, squeeze=False)
        for line, (label, images) in zip(axes, rows.items(), strict=True):
            picked = np.linspace(0, len(images) - 1, columns).round().astype(int)
            for ax, step in zip(line, picked, strict=True):
                ax.imshow(_rgb(images[step]), interpolation="nearest")
                ax.set_xticks([])
                ax.set_yticks([])
            line[0].set_ylabel(label, rotation=0, ha="right", va="center")
        for ax, share in zip(axes[0], np.linspace(0, 1, columns), strict=True):
            ax.set_title(f"{share:.0%}", fontsize=9)


def interpolate_frames(example: Example, steps: int = 33) -> np.ndarray:
    """The same as a clip: uint8 `[T, H, W, 3]`, the ways side by side under their names."""
    rows = example_rows(example)
    drawing = Figure(figsize=(1.9 * len(rows), 2.2), layout="constrained", dpi=DPI)
    canvas = FigureCanvasAgg(drawing)
    axes = drawing.subplots(1, len(rows))
    shown = []
    for ax, (label, images) in zip(axes, rows.items(), strict=True):
        ax.set_title(label, fontsize=9)
        ax.axis("off")
        shown.append(ax.imshow(_rgb(images[0]), interpolation="nearest"))
    frames = []
    for share in np.linspace(0, 1, steps):
        for image, images in zip(shown, rows.values(), strict=True):
            image.set_data(_rgb(images[round(share * (len(images) - 1))]))
        canvas.draw()
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return np.stack(frames[:1] * 8 + frames + frames[-1:] * 8)  # rests at both ends


def example_rows(example: Example) -> dict[str, np.ndarray]:
    """Label to images, in the order in which they are shown."""
    rows = {f"latent,\n{order} order": images for order, images in example.walks.items()}
    return rows | {
        "mix of\npixels": example.mix,
        "what happened,\nas the model saw it": example.seen,
        "what really\nhappened": example.real,
    }


def interpolate_distance(path: Path, result: Interpolation, summary: Mapping) -> None:
    """Image distance against Hamming distance, for real pairs and for random changes."""
    panels = {
        "two real states": (result.pairs, summary["rank_correlation"]),
        "a real state and itself with random changes": (
            result.changed,
            summary["rank_correlation_changed"],
        ),
    }
    with figure(path, 12, 4) as drawing:
        for ax, (title, ((hamming, distance), correlation)) in zip(
            drawing.subplots(1, 2), panels.items(), strict=True
        ):
            jitter = np.random.default_rng(0).uniform(-0.3, 0.3, len(hamming))
            ax.plot(hamming + jitter, distance, ".", ms=3, alpha=0.3, color=BLUE)
            values = np.unique(hamming)
            means = [np.median(distance[hamming == v]) for v in values]
            ax.plot(values, means, color=ORANGE, lw=2, label="median")
            shown = "undefined" if correlation is None else f"{correlation:.2f}"
            ax.set(
                xlabel="Hamming distance [variables]",
                ylabel="image distance [gray levels]",
                title=f"{title}\nrank correlation {shown}",
            )
            ax.legend()


def interpolate_plausibility(path: Path, result: Interpolation) -> None:
    """How usual latents and images on the way are to the model, against real ones."""
    panels = {
        "log_prob": ("log-probability under the favouring prior [nats]", result.real.log_prob),
        "nearest": ("distance to the nearest real image [gray levels]", result.real.nearest),
    }
    colors = dict(zip(result.walks, (BLUE, ORANGE, "#2ca02c"), strict=True))
    with figure(path, 12, 4.2) as drawing:
        axes = drawing.subplots(1, 2)
        for ax, (name, (label, real)) in zip(axes, panels.items(), strict=True):
            low, middle, high = np.quantile(real, (0.05, 0.5, 0.95))
            ax.axhspan(low, high, color=GRAY, alpha=0.2, label="real states: 5 to 95%")
            ax.axhline(middle, color=GRAY, label="real states: median")
            for order, walks in result.walks.items():
                centers, lines = quantiles_by_position(walks.position, getattr(walks, name))
                ax.plot(centers, lines[1], color=colors[order], label=f"{order} order")
                ax.fill_between(centers, lines[0], lines[2], color=colors[order], alpha=0.12)
            ax.set(xlabel="share of the variables changed", ylabel=label)
        axes[0].axhline(np.median(result.shuffled), color="k", ls=":", label="shuffled latents")
        axes[1].axhline(np.median(result.mix), color="k", ls="--", label="mix of pixels")
        for ax in axes:
            ax.legend(fontsize=8)


def quantiles_by_position(position, values, bins: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Centres `[bins]` and quartiles `[3, bins]` of `values`; bins without any are left out."""
    index = np.minimum((position * bins).astype(int), bins - 1)
    filled = np.unique(index)
    lines = [np.quantile(values[index == i], (0.25, 0.5, 0.75)) for i in filled]
    return (filled + 0.5) / bins, np.array(lines).T


def probe_errors(
    path: Path, errors: Mapping[str, Mapping], names: Sequence[str], unit: str
) -> None:
    """Mean absolute errors per variable: a panel each, inputs side by side, two probes each.

    unit: of lengths.
    """
    inputs = [name for name in errors if name != "mean"]
    x = np.arange(len(inputs))
    with figure(path, 2.6 * len(names) + 0.6, 3.6) as drawing:
        axes = drawing.subplots(1, len(names), squeeze=False)[0]
        for i, (ax, name) in enumerate(zip(axes, names, strict=True)):
            for kind, shift, color in (("linear", -0.2, ORANGE), ("mlp", 0.2, BLUE)):
                heights = [errors[key][kind][i] for key in inputs]
                label = "linear" if kind == "linear" else "5 hidden layers"
                bars = ax.bar(x + shift, heights, 0.4, color=color, label=label)
                ax.bar_label(
                    bars,
                    fmt="%.2g",
                    fontsize=7,
                    padding=1,
                    bbox={"fc": "w", "ec": "none", "pad": 0},
                )
            mean = errors["mean"]["mean"][i]
            ax.axhline(mean, color="k", ls="--", zorder=0, label="predicting the mean")
            ax.set_xticks(x, inputs, rotation=35, ha="right")
            ax.set_title(name)
        axes[0].set_ylabel(f"mean absolute error [{unit}]")
        handles, labels = axes[0].get_legend_handles_labels()
        drawing.legend(handles, labels, loc="outside lower center", ncols=3)


def information(path: Path, found: Information) -> None:
    """What each variable tells about the game, the variables sorted by what they are about."""
    order = found.order
    with figure(path, 2.2 + 0.9 * len(found.names), 1.6 + 0.24 * len(order)) as drawing:
        ax = drawing.subplots()
        share = found.share[order]
        top = max(0.1, float(share.max()))
        image = ax.imshow(100 * share, aspect="auto", cmap="viridis", vmin=0, vmax=100 * top)
        for row, column in np.ndindex(*share.shape):
            if share[row, column] >= TOLD:
                bright = share[row, column] > 0.6 * top
                color = "black" if bright else "white"
                text = f"{100 * share[row, column]:.0f}"
                ax.text(column, row, text, ha="center", va="center", color=color, fontsize=7)
        labels = [
            f"{name}\n{bits:.1f} bits"
            for name, bits in zip(found.names, found.entropy, strict=True)
        ]
        ax.set_xticks(range(len(labels)), labels, fontsize=8)
        ax.set_yticks(range(len(order)), order, fontsize=8)
        ax.set_ylabel("variable of the latent")
        ax.set_title("What each variable tells about the game")
        drawing.colorbar(image, ax=ax, label="% of what there is to know")


def fixed_returns(path: Path, numbers: Mapping) -> None:
    """What the return loses when a variable has one class for whole games, the worst first."""
    loss = np.array(numbers["loss"])
    low, high = np.array(numbers["loss_interval"]).T
    order = np.argsort(-loss)
    x = np.arange(len(loss))
    with figure(path, 2 + 0.3 * len(loss), 3.6) as drawing:
        ax = drawing.subplots()
        bounds = np.maximum(0, [loss - low, high - loss])[:, order]
        ax.bar(x, loss[order], color=BLUE, yerr=bounds, error_kw={"lw": 1, "ecolor": GRAY})
        free, fixed = numbers["free"]["mean"], numbers["all_fixed_mean"]
        ax.axhline(0, color="k", lw=0.8)
        ax.axhline(free - fixed, color=ORANGE, ls="--", label="all variables fixed")
        ax.set_xticks(x, order, fontsize=8)
        ax.set(xlabel="variable that is fixed", ylabel="return lost")
        ax.set_title(f"Of {number(free)} points per game, {numbers['games']} games each")
        ax.legend()


def _rgb(image: np.ndarray) -> np.ndarray:
    """An image or a board `[H, W, channels]` in [0, 1] as `[H, W, 3]`."""
    if image.shape[:2] == BOARD and image.shape[-1] > 3:
        return board_colours(image) / np.float32(255)
    return paint.rgb(image)


def _signed(change: np.ndarray) -> np.ndarray:
    """A change in [-1, 1] as colour on white: red brighter, blue darker, full at 0.4."""
    amount = np.clip(change.mean(-1, keepdims=True) / 0.4, -1, 1)
    up, down = np.maximum(amount, 0), np.maximum(-amount, 0)
    return 1 - up * (1 - _hex(BRIGHTER)) - down * (1 - _hex(DARKER))


def _hex(color: str) -> np.ndarray:
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
