"""Curves of a run as SVG that takes the colours of the page, light or dark."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from common.report.figures import DASHES, plain
from dreamerv2.measure.curves import Run, alone, bin_edges, binned
from dreamerv2.play.scores import KNOWN

INK = "#010203"  # stands for the page's own text colour
COLORS = ("#2e86c9", "#d9596a", "#4c9a57")  # seen on light and on dark paper


class Chart(NamedTuple):
    """What is drawn together, and what it is called."""

    title: str
    metrics: Sequence[str]


CHARTS = (
    Chart("Return", ("train_return", "eval_return")),
    Chart("Loss of the world model", ("model_loss",)),
    Chart("KL and entropies of the latent [nats]", ("model_kl", "prior_ent", "post_ent")),
    Chart("Values in imagination", ("critic", "critic_slow", "critic_target")),
    Chart("Entropy of the policy, share of its maximum", ("actor_ent_fraction",)),
    Chart("Share of the latent's cells in use", ("latent_used_fraction",)),
)


def charts(run: Run) -> list[tuple[str, str]]:
    """(title, SVG) of every chart that the run has numbers for."""
    found = []
    for chart in CHARTS:
        known = [
            metric
            for metric in chart.metrics
            if any(row.get(metric) is not None for row in run.rows)
        ]
        if known:
            found.append((chart.title, _svg(run, known)))
    return found


def _svg(run: Run, metrics: Sequence[str]) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    colors: dict = dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
    )
    with matplotlib.rc_context({"svg.fonttype": "none", "grid.color": INK, **colors}):
        drawing = Figure(figsize=(4.2, 2.6), layout="constrained")
        FigureCanvasSVG(drawing)
        axes = drawing.add_subplot()
        plain(axes)
        for i, metric in enumerate(metrics):
            _draw(axes, run, metric, COLORS[i], DASHES[i])
        if "train_return" in metrics and run.task in KNOWN:
            _draw_reference(axes, run)
        axes.set_xlabel("env frames")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        if len(axes.get_legend_handles_labels()[0]) > 1:  # the title names one alone
            axes.legend(fontsize="small", frameon=False)
        text = io.StringIO()
        drawing.savefig(text, format="svg", transparent=True)
    svg = text.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor")


def _draw(axes, run: Run, metric: str, color: str, dashes) -> None:
    """The mean of the values in equal parts of the run; of returns every value as a dot, too."""
    points = [(r["step"], r[metric]) for r in run.rows if r.get(metric) is not None]
    if not points:
        return
    x, y = np.array(points, np.float64).T
    if metric.endswith("return"):
        axes.plot(x, y, ".", color=color, ms=2, alpha=0.25)
    edges = bin_edges([x], False)
    middles, mean = (edges[1:] + edges[:-1]) / 2, binned(x, y, edges)
    known = ~np.isnan(mean)
    axes.plot(middles[known], mean[known], color=color, ls=dashes, label=metric)
    dots = alone(mean)
    axes.plot(middles[dots], mean[dots], "o", color=color, ms=3)


def _draw_reference(axes, run: Run) -> None:
    """Human and random play, and the author's returns as far as this run has come."""
    known = KNOWN[run.task]
    for name, value, dashes in (("human", known.human, "--"), ("random", known.random, ":")):
        axes.axhline(value, color=INK, ls=dashes, lw=0.8, label=f"{name} {value:g}")
    frames = np.array(list(known.curve)) * 1_000_000
    mean = np.array([row[0] for row in known.curve.values()])
    here = frames <= 1.5 * run.rows[-1]["step"]
    if here.any():
        axes.plot(frames[here], mean[here], "o-", color=INK, ms=3, lw=0.8, label="author's release")
