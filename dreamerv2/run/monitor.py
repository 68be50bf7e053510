"""Watches what updates report: averages for the log, and the first number that is not finite."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Loss scaling halves from 2^15 to 1 in 15 updates: what it has not cured by then, it cannot cure.
SKIPPED_IN_A_ROW = 50
# Where the loss itself is not finite, rows of the batch are too large. One such row can be in every
# batch while replay has few episodes; it is in fewer and fewer as replay grows.
BROKEN_IN_A_ROW = 1000


class Averages:
    """Collects the metrics of updates until they are logged."""

    def __init__(self):
        self._values: dict[str, list[float]] = defaultdict(list)

    def add(self, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._values[name].append(value)

    def take(self) -> dict[str, float]:
        """Means since the last call, of the finite values: one skipped update's infinite gradient
        norm would hide all others. Counters (`*_skipped`) are taken as they are last."""
        result = {}
        for name, values in self._values.items():
            finite = [value for value in values if math.isfinite(value)] or [math.nan]
            counter = name.endswith("_skipped")
            result[name] = finite[-1] if counter else float(np.mean(finite, dtype=np.float64))
        self._values.clear()
        return result

    def state(self) -> dict[str, list[float]]:
        return dict(self._values)

    def load_state(self, state: Mapping[str, list[float]]) -> None:
        self._values = defaultdict(list, {name: list(values) for name, values in state.items()})


class Successes:
    """In how many episodes of a run each of several things was done, from its first one on."""

    def __init__(self):
        self._episodes = 0
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, done: Mapping[str, bool]) -> dict[str, float]:
        """Counts an episode; the success rate of each so far, in percent of the episodes."""
        self._episodes += 1
        for name, success in done.items():
            self._counts[name] += bool(success)
        return {name: 100 * self._counts[name] / self._episodes for name in done}

    def state(self) -> dict[str, Any]:
        return {"episodes": self._episodes, "counts": dict(self._counts)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._episodes = state["episodes"]
        self._counts = defaultdict(int, state["counts"])


def crafter_score(rates: Sequence[float]) -> float:
    """Crafter's score: the geometric mean of `1 + rate`, minus 1 (arXiv 2109.06780, section 3.2).

    rates: success rates in percent. Rare successes count: from 1 to 2 weighs as much as from 50
    to 75.
    """
    return float(np.expm1(np.mean(np.log1p(rates))))


class Guard:
    """Finds losses and gradients that are not finite.

    At precision 16 (there are `*_skipped` counters) single updates with such gradients are part
    of dynamic loss scaling; there only many in a row count.

    skipped: whether the last update was left out by an optimiser. warning: a line for the user
    where the loss itself was not finite, which no scale explains; at the 1st, 2nd, 4th, ... such
    update. Such updates are borne for longer: they end when the rows that cause them are rare.
    """

    def __init__(self):
        self.skipped = False
        self.warning: str | None = None
        self._unexplained = 0
        self._skipped: dict[str, float] = {}
        # Updates since the last good one that were skipped: with a finite loss, and without.
        self._in_a_row: dict[str, int] = defaultdict(int)
        self._broken_in_a_row: dict[str, int] = defaultdict(int)

    def bad(self, metrics: Mapping[str, float]) -> str | None:
        """The first bad tensor of an update, in the order in which they are computed, or None."""
        counters = [name for name in metrics if name.endswith("_skipped")]
        watched = (name for name in metrics if name.endswith(("_loss", "_grad_norm")))
        bad = next((name for name in watched if not math.isfinite(metrics[name])), None)
        self.skipped, self.warning = False, None
        for counter in counters:
            part = counter.removesuffix("_skipped")
            skipped = metrics[counter] > self._skipped.get(part, 0)
            self._skipped[part] = metrics[counter]
            self.skipped |= skipped
            scaled, broken = self._in_a_row, self._broken_in_a_row
            if not skipped:
                scaled[part] = broken[part] = 0
            elif math.isfinite(metrics.get(f"{part}_loss", 0)):
                scaled[part] += 1
            else:
                broken[part] += 1
            if scaled[part] >= SKIPPED_IN_A_ROW or broken[part] >= BROKEN_IN_A_ROW:
                return f"the {part} gradient ({scaled[part] + broken[part]} updates in a row)"
        if not counters:
            return bad
        if self.skipped and bad and bad.endswith("_loss"):
            self._warn(bad)
        return None

    def _warn(self, name: str) -> None:
        self._unexplained += 1
        if self._unexplained & (self._unexplained - 1) == 0:
            self.warning = (
                f"WARNING: an update was skipped because {name} is not finite, which is no matter "
                f"of loss scaling ({self._unexplained} so far): see whether observations or "
                "rewards are too large for float16, or use --precision bfloat16"
            )

    def state(self) -> dict[str, dict[str, float]]:
        return {
            "skipped": dict(self._skipped),
            "in_a_row": dict(self._in_a_row),
            "broken_in_a_row": dict(self._broken_in_a_row),
        }

    def load_state(self, state: Mapping[str, Mapping[str, int]]) -> None:
        self._skipped = dict(state["skipped"])
        self._in_a_row = defaultdict(int, state["in_a_row"])
        self._broken_in_a_row = defaultdict(int, state.get("broken_in_a_row", {}))
