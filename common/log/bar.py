"""A progress bar for work of known or unknown length."""

import sys
import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

WIDTH = 30


class Bar:
    """`drawing 450/1,000 pictures ━━━━━━━╺━━━━━ 0:00:12`, drawn over and over on a terminal.

    total: how many `unit` there will be; None if nobody knows. Where `stream` (by default stderr)
    is no terminal there is one line, at the end.
    """

    def __init__(
        self, name: str, unit: str, total: int | None = None, stream: TextIO | None = None
    ):
        self._name, self._unit, self._total = name, unit, total
        stream = stream or sys.stderr
        # In a notebook, which is none, rich would draw as in a terminal.
        terminal = None if stream.isatty() else False
        self._console = Console(
            file=stream,
            highlight=False,
            markup=False,
            force_jupyter=False,
            force_terminal=terminal,
        )
        of_total = "" if total is None else "/{task.total:,}"
        columns: list[ProgressColumn] = [
            TextColumn(f"{{task.description}} {{task.completed:,}}{of_total} {unit}")
        ]
        if total is not None:
            columns += [BarColumn(WIDTH), TimeRemainingColumn()]
        self._progress = Progress(
            *columns,
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task(name, total=total)
        self._start = time.monotonic()
        self._done = 0

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._progress.stop()
        if kind is None:
            seconds = time.monotonic() - self._start
            self._console.print(
                f"{self._name}: {self._done:,} {self._unit} in {seconds:.1f} s", soft_wrap=True
            )

    def advance(self, amount: int = 1) -> None:
        """Say that `amount` more is done; cheap."""
        self._done += amount
        self._progress.advance(self._task, amount)
