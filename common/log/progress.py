"""What a run is doing right now, in one line, and where its time goes."""

import collections
import contextlib
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TextIO

REDRAW_SECONDS = 0.2
WINDOW_SECONDS = 120.0


class Progress:
    """Phase, steps, rates, last returns and time left of a run.

    total_steps: agent steps at which the run ends; multiplier: env frames per agent step.
    stream: by default stdout. On a terminal one line is drawn over and over; elsewhere a line is
    printed when the phase changes and then every `interval` seconds.

    Rates are those of the current phase over the last two minutes of it, so that a run that gets
    slower shows it, and time left is counted at the rate of the training phase.
    """

    def __init__(
        self,
        total_steps: int,
        multiplier: int = 1,
        stream: TextIO | None = None,
        interval: float = 30.0,
    ):
        self._total = total_steps
        self._multiplier = multiplier
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._interval = REDRAW_SECONDS if self._live else interval
        self._phase = "start"
        self._rates: dict[str, _Rates] = collections.defaultdict(_Rates)
        self._steps = self._updates = 0
        self._returns: dict[str, float] = {}
        self._drawn = time.monotonic()

    def phase(self, name: str) -> None:
        """Enter a phase: prefill, compile, train, eval."""
        if name == self._phase:
            return
        self._rates[self._phase].pause()
        self._phase = name
        self._draw()

    def update(self, agent_steps: int, updates: int) -> None:
        """Say where the run is; cheap enough for every step."""
        self._steps, self._updates = agent_steps, updates
        now = time.monotonic()
        self._rates[self._phase].add(now, agent_steps, updates)
        if now - self._drawn >= self._interval:
            self._draw()

    def episode(self, mode: str, score: float) -> None:
        """Note the return of the last `train` or `eval` episode."""
        self._returns[mode] = score

    def show(self, text: str) -> None:
        """Print lines of text above the live line."""
        clear = "\r\x1b[K" if self._live else ""
        self._stream.write(f"{clear}{text}\n")
        self._stream.flush()

    def close(self) -> None:
        """Leave the last state on the screen."""
        self._draw()
        if self._live:
            self._stream.write("\n")
            self._stream.flush()

    def line(self) -> str:
        """The state in one line; what a narrow terminal cuts off is the least needed."""
        frames = self._steps * self._multiplier
        line = f"{self._phase} {short(self._steps)}/{short(self._total)} steps"
        line += f" ({short(frames)} frames)"
        steps_rate, updates_rate = self._rates[self._phase].per_second()
        if steps_rate:
            line += f" {short(steps_rate * self._multiplier)} fps"
        if updates_rate:
            line += f" {short(updates_rate)} updates/s"
        train_rate, _ = self._rates["train"].per_second()
        if train_rate:
            line += f" | {duration(max(0, self._total - self._steps) / train_rate)} left"
        if self._returns:
            returns = " ".join(f"{mode} {score:.4g}" for mode, score in self._returns.items())
            line += f" | return: {returns}"
        return line

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(f"\r{self.line()[:width]}\x1b[K")
        else:
            self._stream.write(f"{self.line()}\n")
        self._stream.flush()


class _Rates:
    """Steps and updates per second of the time that was spent in one phase."""

    def __init__(self):
        self._samples: collections.deque[tuple[float, int, int]] = collections.deque()
        self._paused = 0.0
        self._left: float | None = None

    def add(self, now: float, steps: int, updates: int) -> None:
        if self._left is not None:
            self._paused += now - self._left
            self._left = None
        now -= self._paused
        if not self._samples or now - self._samples[-1][0] >= REDRAW_SECONDS:
            self._samples.append((now, steps, updates))
        while now - self._samples[0][0] > WINDOW_SECONDS and len(self._samples) > 2:
            self._samples.popleft()

    def pause(self) -> None:
        self._left = time.monotonic()

    def per_second(self) -> tuple[float, float]:
        if len(self._samples) < 2:
            return 0.0, 0.0
        (start, steps, updates), (end, steps_now, updates_now) = self._samples[0], self._samples[-1]
        return (steps_now - steps) / (end - start), (updates_now - updates) / (end - start)


class Stopwatch:
    """Shares of wall-clock time spent in `sections`, which must not overlap."""

    def __init__(self, sections: Sequence[str]):
        self._seconds = dict.fromkeys(sections, 0.0)
        self._start = time.perf_counter()

    @contextlib.contextmanager
    def __call__(self, section: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[section] += time.perf_counter() - start

    def fractions(self) -> tuple[float, dict[str, float]]:
        """Seconds since the last call, and the share of each section in them; starts anew."""
        now = time.perf_counter()
        elapsed = max(now - self._start, 1e-9)
        shares = {section: spent / elapsed for section, spent in self._seconds.items()}
        self._start = now
        self._seconds = dict.fromkeys(self._seconds, 0.0)
        return elapsed, shares


def short(number: float) -> str:
    """A number in at most six characters or so: 7.83, 311, 12,345, 1.23M."""
    if number >= 1e6:
        return f"{number / 1e6:.4g}M"
    return f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:.3g}"


def duration(seconds: float) -> str:
    """Seconds as `2d 3h`, `3h 12m`, `12m 5s` or `5s`."""
    seconds = int(seconds)
    units = [("d", 86400), ("h", 3600), ("m", 60), ("s", 1)]
    for i, (name, size) in enumerate(units[:-1]):
        if seconds >= size:
            rest, small = units[i + 1]
            return f"{seconds // size}{name} {seconds % size // small}{rest}"
    return f"{seconds}s"
