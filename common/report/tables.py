"""Markdown tables, and numbers as people read them."""

from collections.abc import Sequence

import numpy as np

Cells = Sequence[str]


def table(rows: Sequence[Cells]) -> str:
    """A Markdown table, the first row its header, aligned for those who read the source."""
    lines = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        f"| {' | '.join(cell.ljust(w) for cell, w in zip(line, widths, strict=True))} |"
        for line in lines
    )


def number(value: float | None) -> str:
    """Three or four digits, or a dash for None."""
    if value is None:
        return "-"
    if abs(value) < 1e-9:  # what rounding leaves of zero
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{4 if abs(value) >= 100 else 3}g}"


def score(value: float) -> str:
    """A return in a line of text: four digits, or all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 9999.5 else f"{value:.4g}"


def with_interval(
    center: float | None, low: float | None, high: float | None, sign: str = ""
) -> str:
    """`center [low, high]`; the centre alone where there is no interval. sign: `+` to show it."""
    if low is None or high is None:
        return signed(center, sign)
    return f"{signed(center, sign)} [{signed(low, sign)}, {signed(high, sign)}]"


def signed(value: float | None, sign: str = "+") -> str:
    """`number` with a plus before what is above zero."""
    return (sign if value is not None and value > 1e-9 else "") + number(value)


def percent(value: float | None) -> str:
    """A share as a percentage."""
    return "-" if value is None else f"{number(100 * value)} %"


def power(value: float) -> str:
    """A power of two as such."""
    exponent = np.log2(value)
    return f"2^{exponent:.0f}" if exponent.is_integer() else number(value)
