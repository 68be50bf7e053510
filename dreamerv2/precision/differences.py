"""Is a precision different from another one? Differences of runs, most of them with equal seeds.

Two runs with the same seed play the same first episodes and start from the same weights, so that
their difference says more than two runs of different seeds: where enough seeds are common, runs are
compared in pairs.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from common.report.stats import (
    FEWEST_RUNS,
    Interval,
    bootstrap_difference,
    bootstrap_interval,
    holm,
    p_value,
    probability_greater,
)

LEVEL = 0.05  # how often any difference of losses is significant by chance

BySeed = Mapping[int, float]


class Difference(NamedTuple):
    """One measure of runs minus that of other runs."""

    interval: Interval
    pairs: int  # of runs with equal seeds; 0: each side was resampled on its own
    p: float | None  # of a t-test

    def row(self) -> dict[str, Any]:
        """What report.json says."""
        return {**self.interval._asdict(), "pairs": self.pairs, "p": self.p}


def difference(first: BySeed, second: BySeed) -> Difference:
    """`first` minus `second`, values by the seed of their run."""
    common = sorted(first.keys() & second.keys())
    if len(common) >= FEWEST_RUNS:
        paired = [first[seed] - second[seed] for seed in common]
        return Difference(bootstrap_interval(paired), len(common), p_value(paired))
    sides = list(first.values()), list(second.values())
    return Difference(bootstrap_difference(*sides), 0, p_value(*sides))


def of_returns(first: BySeed, second: BySeed) -> dict[str, Any]:
    """A difference of returns, for report.json; `called` (significant) where its
    interval excludes zero.

    `better`: how likely a run of the first is above one of the second.
    """
    found = difference(first, second)
    better = probability_greater(list(first.values()), list(second.values()))
    called = found.interval.excludes_zero
    return {**found.row(), "better": better._asdict(), "called": called}


def of_losses(pairs: Mapping[str, tuple[BySeed, BySeed]]) -> dict[str, dict[str, Any]]:
    """Differences of several losses, for report.json, by the name of the loss.

    `called` (significant) by Holm's correction for their number: `p_adjusted` is below 0.05.
    """
    found = {name: difference(*sides) for name, sides in pairs.items()}
    known = [name for name, each in found.items() if each.p is not None]
    adjusted = dict(zip(known, holm([found[name].p or 0.0 for name in known]), strict=True))
    return {
        name: {
            **each.row(),
            "p_adjusted": adjusted.get(name),
            "called": adjusted.get(name, 1.0) < LEVEL,
        }
        for name, each in found.items()
    }
