"""Clocks that decide when something is due, counted in whatever unit the caller counts."""

import time
from collections.abc import Callable


class Every:
    """True once per `steps`; on the first call at once, never if `steps` is 0.

    A caller that comes late is not forgiven the ticks that it missed: they come due one per
    call. Counting on from the last tick, rather than from the call, keeps the average rate.
    """

    def __init__(self, steps: int | float):
        if steps < 0:
            raise ValueError(f"steps {steps}: expected 0 (never) or a positive interval")
        self._steps = steps
        self._last: int | float | None = None

    def __call__(self, step: int) -> bool:
        if not self._steps:
            return False
        if self._last is None:
            self._last = int(step)
            return True
        if step >= self._last + self._steps:
            self._last += self._steps
            return True
        return False

    def state(self) -> dict[str, int | float | None]:
        """What a fresh clock needs to go on; fit for JSON."""
        return {"last": self._last, "steps": self._steps}

    def load_state(self, state: dict[str, int | float | None]) -> None:
        """A clock of another interval begins anew: what it would have missed is not due."""
        same = state.get("steps", self._steps) == self._steps
        self._last = state["last"] if same else None


class EverySeconds:
    """True when `seconds` have passed since it last was, or since it was made; never if 0."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic):
        if seconds < 0:
            raise ValueError(f"seconds {seconds}: expected 0 (never) or a positive interval")
        self._seconds, self._now = seconds, now
        self._last = now()

    def __call__(self) -> bool:
        if not self._seconds or self._now() - self._last < self._seconds:
            return False
        self.restart()
        return True

    def restart(self) -> None:
        """Counts from now: what was due has just been done for another reason."""
        self._last = self._now()
