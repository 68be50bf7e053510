"""Statistics of few runs: interquartile means and bootstrap intervals (arXiv 2108.13264).

All arrays are NumPy; the last axis holds runs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

FEWEST_RUNS = 3  # below, resampling says nothing about other seeds
RESAMPLES = 5000


class Interval(NamedTuple):
    """A statistic of some runs and its bootstrap interval; `low` and `high` are None for fewer
    than `FEWEST_RUNS` runs, all three for none."""

    iqm: float | None
    low: float | None
    high: float | None

    @property
    def excludes_zero(self) -> bool:
        """Whether zero is outside; never for runs that are too few for an interval."""
        return self.low is not None and (self.low > 0 or self.high < 0)


def interquartile_mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean of the middle half of the values along an axis.

    A quarter of the weight is cut off at each end, the values on the border counted in part: of 3
    values the middle one has weight 1 and the others a quarter each. One or two give their mean.
    """
    values = np.sort(np.asarray(values, np.float64), axis)
    weights = _middle_weights(values.shape[axis])
    return np.tensordot(values, weights, (axis, 0))


def _middle_weights(count: int) -> np.ndarray:
    """Weights of sorted values in an interquartile mean; they sum to 1."""
    edges = np.clip(np.arange(count + 1), count / 4, 3 * count / 4)
    return np.diff(edges) / (count / 2)


def bootstrap_interval(
    values: Sequence[float], confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Interquartile mean of runs, with the percentile interval over resampled runs."""
    values = np.asarray(values, np.float64)
    if not values.size:
        return Interval(None, None, None)
    center = float(interquartile_mean(values))
    if len(values) < FEWEST_RUNS:
        return Interval(center, None, None)
    samples = _resampled(values, resamples, np.random.default_rng(seed))
    return Interval(center, *_percentiles(samples, confidence))


def bootstrap_difference(
    first: Sequence[float],
    second: Sequence[float],
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Interquartile mean of `first` minus that of `second`, each resampled on its own."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if not first.size or not second.size:
        return Interval(None, None, None)
    center = float(interquartile_mean(first) - interquartile_mean(second))
    if min(len(first), len(second)) < FEWEST_RUNS:
        return Interval(center, None, None)
    rng = np.random.default_rng(seed)
    samples = _resampled(first, resamples, rng) - _resampled(second, resamples, rng)
    return Interval(center, *_percentiles(samples, confidence))


def false_alarm_rate(
    first_runs: int, second_runs: int, confidence: float = 0.95, trials: int = 400, seed: int = 0
) -> float:
    """How often `bootstrap_difference` excludes zero although both sides are the same.

    Measured on normally distributed values. Percentile intervals of few runs are too narrow: with 3
    on each side the rate is 15 % where 5 % is promised, with 5 it is 6 %.
    """
    rng = np.random.default_rng(seed)
    alarms = 0
    for trial in range(trials):
        sides = rng.normal(size=first_runs), rng.normal(size=second_runs)
        alarms += bootstrap_difference(*sides, confidence, 1000, trial).excludes_zero
    return alarms / trials


def _resampled(values: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    return interquartile_mean(rng.choice(values, (resamples, len(values))))


def _percentiles(samples: np.ndarray, confidence: float) -> tuple[float, float]:
    tail = 50 * (1 - confidence)
    low, high = np.percentile(samples, [tail, 100 - tail])
    return float(low), float(high)
