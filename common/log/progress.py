"""What a run is doing right now, in one line, and where its time goes."""

import collections
import contextlib
import errno
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TextIO, cast

from rich.console import Console
from rich.live import Live
from rich.text import Text

REFRESHES_PER_SECOND = 4
SAMPLE_SECONDS = 0.2
WINDOW_SECONDS = 120.0


class Progress:
    """Phase, steps, returns, rates and times of a run.

    total_steps: agent steps at which the run ends; multiplier: env frames per agent step.
    stream: by default stdout. On a terminal one line is drawn over and over; elsewhere a line is
    printed when the phase changes and then every `interval` seconds.

    Where the reader of the stream has gone (`| head`, a terminal that was closed), nothing is
    written any more, and `update` raises OSError.

    Rates are those of the current phase over the last two minutes of it, so that a run that gets
    slower shows it, and times left are counted at the rate of the training phase.
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
        self._interval = interval
        self._stream = _Stream(stream or sys.stdout)
        # In a notebook, which is none, rich would draw as in a terminal.
        terminal = None if self._stream.isatty() else False
        self._console = Console(
            file=cast(TextIO, self._stream),
            highlight=False,
            markup=False,
            emoji=False,
            force_jupyter=False,
            force_terminal=terminal,
        )
        self._live: Live | None = None
        self._phase = "start"
        self._rates: dict[str, _Rates] = collections.defaultdict(_Rates)
        self._steps = self._updates = 0
        self._next_eval: int | None = None
        self._returns: dict[str, float] = {}
        self._best: dict[str, float] = {}
        self._started = self._drawn = time.monotonic()

    @property
    def lost(self) -> bool:
        """Whether the reader of the stream has gone."""
        return self._stream.lost

    def begin(self, agent_steps: int, updates: int, seconds: float) -> None:
        """Say where the run starts, or goes on: `seconds` is how long it has taken so far."""
        self._steps, self._updates = agent_steps, updates
        self._started = time.monotonic() - seconds

    def phase(self, name: str, next_eval: int | None = None) -> None:
        """Enter a phase: prefill, compile, pretrain, train, eval. next_eval: agent steps."""
        if next_eval is not None:
            self._next_eval = next_eval
        if name == self._phase:
            return
        self._rates[self._phase].pause()
        self._phase = name
        self._draw()

    def update(self, agent_steps: int, updates: int) -> None:
        """Say where the run is; cheap enough for every step."""
        if self._stream.lost:
            raise BrokenPipeError(errno.EPIPE, "standard output was closed")
        self._steps, self._updates = agent_steps, updates
        now = time.monotonic()
        self._rates[self._phase].add(now, agent_steps, updates)
        if not self._live and now - self._drawn >= self._interval:
            self._draw()

    def episode(self, mode: str, score: float) -> None:
        """Note the return of the last `train` or `eval` episode."""
        self._returns[mode] = score
        self._best[mode] = max(score, self._best.get(mode, score))

    def show(self, text: str) -> None:
        """Print lines of text above the live line."""
        self._console.print(text, soft_wrap=True)

    def close(self) -> None:
        """Leave the last state on the screen."""
        self._draw()
        if self._live:
            self._live.stop()
            self._live = None

    def state(self) -> dict[str, Any]:
        """The returns, for a checkpoint."""
        return {"returns": dict(self._returns), "best": dict(self._best)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._returns, self._best = dict(state["returns"]), dict(state["best"])

    def line(self, width: int | None = None) -> str:
        """The state in one line; where it is wider than `width`, the least needed is left out."""
        items = [(rank, text) for rank, text in self._items() if text]
        while width and sum(len(text) + 2 for _, text in items) - 2 > width and len(items) > 1:
            items.remove(max(items))
        return "  ".join(text for _, text in items)

    def _items(self) -> Iterator[tuple[int, str]]:
        """What the line says, in its order, each with its rank: the highest is the first to go."""
        yield 0, f"{self._phase} {short(self._steps)}"
        yield 9, f"of {short(self._total)}"
        yield 1, self._score("train") or self._score("eval")
        yield 8, self._score("eval") if "train" in self._returns else ""
        steps_rate, updates_rate = self._rates[self._phase].per_second()
        yield 2, f"{short(steps_rate * self._multiplier)} fps" if steps_rate else ""
        yield 10, f"{short(updates_rate)} updates/s" if updates_rate else ""
        train_rate, _ = self._rates["train"].per_second()
        yield 4, self._left("eval in", self._next_eval, train_rate)
        yield 3, self._left("end in", self._total, train_rate)
        yield 5, f"ran {about(time.monotonic() - self._started)}"

    def _score(self, mode: str) -> str:
        if mode not in self._returns:
            return ""
        name = "return" if mode == "train" else mode
        return f"{name} {short(self._returns[mode])} best {short(self._best[mode])}"

    def _left(self, name: str, steps: int | None, rate: float) -> str:
        if steps is None or not rate:
            return ""
        return f"{name} {about(max(0, steps - self._steps) / rate)}"

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        if not self._console.is_terminal:
            self._console.print(self.line(), soft_wrap=True)
            return
        if not self._live:
            self._live = Live(
                get_renderable=lambda: Text(self.line(self._console.width - 1), no_wrap=True),
                console=self._console,
                refresh_per_second=REFRESHES_PER_SECOND,
            )
            self._live.start()
        self._live.refresh()


class _Stream:
    """A stream that drops what its reader is not there for, and remembers that.

    An exception in a write would reach whoever shows something, a thread of the live line too.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        self.lost = False

    def write(self, text: str) -> None:
        self._try(lambda: self._stream.write(text))

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, action: Callable[[], Any]) -> None:
        if self.lost:
            return
        try:
            action()
        except OSError:
            self.lost = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)  # isatty, encoding and what else rich asks about


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
        if not self._samples or now - self._samples[-1][0] >= SAMPLE_SECONDS:
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
    """A number in at most six characters or so: 7.83, 311, -12,345, 1.23M."""
    if abs(number) >= 1e6:
        return f"{number / 1e6:.4g}M"
    return f"{number:,.0f}" if abs(number) >= 100 or number == int(number) else f"{number:.3g}"


def about(seconds: float) -> str:
    """Seconds in one unit: `56s`, `10m`, `37h` or `5.6d`."""
    for limit, size, unit in ((90, 1, "s"), (5400, 60, "m"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds / 86400:.1f}d"


def duration(seconds: float) -> str:
    """Seconds as `2d3h`, `3h12m`, `12m5s` or `5s`."""
    seconds = int(seconds)
    units = [("d", 86400), ("h", 3600), ("m", 60), ("s", 1)]
    for i, (name, size) in enumerate(units[:-1]):
        if seconds >= size:
            rest, small = units[i + 1]
            return f"{seconds // size}{name}{seconds % size // small}{rest}"
    return f"{seconds}s"
