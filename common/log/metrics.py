"""Reads what a run has logged."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]  # numbers; None for what was not finite
LARGEST = 1e100  # no run logs more, and what is computed from it stays finite


def read_metrics(path: Path, warn: Callable[[str], Any] | None = None) -> list[Row]:
    """Rows of a metrics.jsonl, oldest first; none where there is no file.

    Where a resumed run went back, what it wrote anew counts. Lines that are no row, such as the
    half of one that a killed process left, are passed over; `warn` gets one line about them (by
    default it goes to stderr).
    """
    rows: list[Row] = []
    damaged: list[int] = []
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        row = _row(line)
        if row is None:
            damaged.append(number)
            continue
        while rows and rows[-1]["step"] > row["step"]:
            rows.pop()
        rows.append(row)
    if damaged:
        some = f"{len(damaged)} lines, the first is line" if len(damaged) > 1 else "line"
        (warn or _to_stderr)(f"{path}: {some} {damaged[0]}, no row of metrics: passed over")
    return rows


def read_last_rows(path: Path, most_bytes: int = 2**16) -> list[Row]:
    """The rows in the last bytes of a metrics.jsonl, oldest first: quick for a long one, too."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - most_bytes)
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    rows = map(_row, lines[1:] if start else lines)  # the first one may be the end of a line
    return [row for row in rows if row is not None]


def _row(line: str) -> Row | None:
    """The numbers of a line; None where it has no step. Other values are left out.

    Whole numbers from 2**53 on become floats: JSON's may be longer than NumPy's integers.
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    row = {key: value for key, value in found.items() if value is None or _is_number(value)}
    row = {k: float(v) if v and abs(v) >= 2**53 else v for k, v in row.items()}
    step = row.get("step")
    return row if step is not None and step >= 0 else None


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= LARGEST  # neither infinite nor a NaN


def _to_stderr(message: str) -> None:
    sys.stderr.write(message + "\n")
