"""A progress bar for work of known or unknown length."""

import sys
import time
from typing import TextIO

REDRAW_SECONDS = 0.2
WIDTH = 30


class Bar:
    """`drawing [#####.....] 450/1,000 pictures, 12 s left`, drawn over and over on a terminal.

    total: how many `unit` there will be; None if nobody knows. Where `stream` (by default stderr)
    is no terminal there is one line, at the end.
    """

    def __init__(
        self, name: str, unit: str, total: int | None = None, stream: TextIO | None = None
    ):
        self._name, self._unit, self._total = name, unit, total
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._start = time.monotonic()
        self._drawn = -REDRAW_SECONDS
        self._done = 0

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if self._live:
            self._stream.write("\r\x1b[K")
        if kind is None:
            self._stream.write(
                f"{self._name}: {self._done:,} {self._unit} in {self._seconds:.1f} s\n"
            )
        self._stream.flush()

    def advance(self, amount: int = 1) -> None:
        """Say that `amount` more is done; cheap."""
        self._done += amount
        if self._live and self._seconds - self._drawn >= REDRAW_SECONDS:
            self._drawn = self._seconds
            self._stream.write(f"\r{self.line()}\x1b[K")
            self._stream.flush()

    def line(self) -> str:
        """The state in one line."""
        if self._total is None:
            return f"{self._name} {self._done:,} {self._unit}"
        share = min(1.0, self._done / max(1, self._total))
        marks = "#" * round(share * WIDTH)
        left = f", {self._seconds * (1 / share - 1):.0f} s left" if share else ""
        return f"{self._name} [{marks:.<{WIDTH}}] {self._done:,}/{self._total:,} {self._unit}{left}"

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._start
