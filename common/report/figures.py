"""What the figures of all reports share."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from common.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

COLORS = ("#1b6ca8", "#d1495b", "#3a7d44", "#8e5ea2", "#c98c1a", "#666666")
# Curves that coincide stay visible when each has dashes of its own.
DASHES = ("-", (0, (6, 2)), (0, (2, 2)), (0, (8, 2, 2, 2)), (0, (1, 1)), (0, (4, 4)))
DPI = 110


@contextlib.contextmanager
def figure(path: Path, width: float, height: float, dpi: int = DPI) -> Iterator["Figure"]:
    """A figure in inches, without global state, written when the block ends, whole or not at all.

    path: its suffix names the format.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width, height), layout="constrained", dpi=dpi)
    FigureCanvasAgg(drawing)
    yield drawing
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as file:
        drawing.savefig(file, format=path.suffix[1:])


def verbatim(text: str) -> str:
    """A text that others chose, as a figure shows it: no formula, and what no font has is `?`."""
    shown = "".join(c if c.isprintable() else "?" for c in text).replace("$", r"\$")
    return f"\u200b{shown}" if shown.startswith("_") else shown  # a legend leaves out `_name`


def whole_numbers(*axes: "Axis") -> None:
    """Ticks of these axes at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    for axis in axes:
        axis.set_major_locator(MaxNLocator(integer=True))


def plain(axes: "Axes") -> None:
    """Axes without a frame, on a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
