"""Differences between groups of runs: pairs, corrections of many tests, probabilities."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from common.report import stats
from dreamerv2.precision import differences


def by_seed(values):
    return dict(enumerate(values))


def test_equal_seeds_are_compared_in_pairs_which_takes_their_luck_away():
    luck = np.array([0.0, 10.0, 20.0, 30.0, 40.0])
    first, second = by_seed(luck + [2.0, 2.1, 1.9, 2.0, 2.2]), by_seed(luck)
    found = differences.difference(first, second)
    assert found.pairs == 5
    assert 1.9 <= found.interval.low <= found.interval.iqm <= found.interval.high <= 2.2
    other = {seed + 100: value for seed, value in second.items()}
    apart = differences.difference(first, other)
    assert apart.pairs == 0 and not apart.interval.excludes_zero


def test_only_seeds_that_both_have_are_paired():
    first, second = {0: 1.0, 1: 2.0, 2: 3.0, 9: 99.0}, {0: 0.0, 1: 1.0, 2: 2.0, 5: -99.0}
    found = differences.difference(first, second)
    assert found.pairs == 3 and found.interval == pytest.approx((1, 1, 1))


def test_p_values_are_those_of_the_paired_t_test():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 5))
    assert stats.p_value(first - second) == pytest.approx(ttest_rel(first, second).pvalue)
    assert stats.p_value([0.0, 0.0, 0.0]) == 1 and stats.p_value([2.0, 2.0, 2.0]) == 0
    assert stats.p_value([1.0, 2.0]) is None
    assert stats.p_value([1.0, 1.0, 1.0], [1.0, 1.0, 1.0]) == 1


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([0.5, 0.9]) == [1.0, 1.0]
    assert stats.holm([]) == []


def test_among_many_equal_losses_hardly_ever_one_is_called():
    """Uncorrected, at least one of ten is called in two of five comparisons."""
    rng = np.random.default_rng(0)
    alarms = corrected = 0
    for _ in range(150):
        values = rng.normal(size=(10, 2, 5))
        found = differences.of_losses(
            {str(i): tuple(map(by_seed, v)) for i, v in enumerate(values)}
        )
        corrected += any(each["called"] for each in found.values())
        alarms += any(each["p"] < 0.05 for each in found.values())
    assert alarms / 150 > 0.25
    assert corrected / 150 < 0.1


def test_a_loss_that_is_different_is_called_among_others():
    rng = np.random.default_rng(0)
    same = {str(i): (by_seed(rng.normal(size=5)), by_seed(rng.normal(size=5))) for i in range(9)}
    other = by_seed(rng.normal(20, 1, 5)), by_seed(rng.normal(0, 1, 5))
    found = differences.of_losses({**same, "far": other})
    assert found["far"]["called"]
    assert found["far"]["p_adjusted"] == pytest.approx(10 * found["far"]["p"])


def test_the_probability_to_be_better_counts_all_pairs_and_equal_ones_as_half():
    assert stats.probability_greater([1, 2, 3], [1, 2, 3]).iqm == 0.5
    found = stats.probability_greater([5, 6, 7], [1, 2, 6])
    assert found.iqm == pytest.approx((2 + 2.5 + 3) / 9)
    assert 0.3 < found.low < found.iqm < found.high <= 1
    assert stats.probability_greater([5, 6], [1, 2]) == (1, None, None)


def test_two_seeds_call_nothing():
    found = differences.of_returns(by_seed([9.0, 9.1]), by_seed([1.0, 1.1]))
    assert found["low"] is None and not found["called"]
    losses = differences.of_losses({"loss": (by_seed([9.0, 9.1]), by_seed([1.0, 1.1]))})
    assert losses["loss"]["p_adjusted"] is None and not losses["loss"]["called"]
