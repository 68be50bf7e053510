"""Interquartile means by hand, bootstrap intervals by their coverage."""

import numpy as np
import pytest

from common.report import stats


def test_the_mean_of_four_values_is_that_of_the_middle_two():
    assert stats.interquartile_mean([100.0, 1.0, 3.0, -50.0]) == pytest.approx(2.0)


def test_of_three_values_the_outer_ones_count_a_quarter():
    assert stats.interquartile_mean([0.0, 6.0, 90.0]) == pytest.approx((6 + 90 / 4) / 1.5)


@pytest.mark.parametrize("values", [[4.0], [3.0, 5.0]])
def test_one_or_two_values_give_their_mean(values):
    assert stats.interquartile_mean(values) == pytest.approx(4.0)


def test_an_interquartile_mean_goes_along_its_axis():
    values = np.array([[1.0, 2.0], [3.0, 4.0], [100.0, 6.0], [2.0, 0.0]])
    assert stats.interquartile_mean(values, 0) == pytest.approx([2.5, 3.0])
    assert stats.interquartile_mean(values, 1) == pytest.approx([1.5, 3.5, 53.0, 1.0])


def test_intervals_hold_the_true_mean_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    intervals = [stats.bootstrap_interval(rng.normal(3, 1, 20), seed=i) for i in range(200)]
    covered = np.mean([low < 3 < high for _, low, high in intervals])
    assert 0.88 <= covered <= 0.99


def test_the_same_values_give_the_same_interval_and_the_order_does_not_matter():
    first = stats.bootstrap_interval([1.0, 2.0, 5.0, 9.0])
    assert stats.bootstrap_interval([1.0, 2.0, 5.0, 9.0]) == first
    other = stats.bootstrap_interval([9.0, 1.0, 5.0, 2.0])
    assert other == pytest.approx(first, abs=0.3)


def test_too_few_runs_have_no_interval_and_no_difference():
    assert stats.bootstrap_interval([]) == (None, None, None)
    assert stats.bootstrap_interval([1.0, 2.0]) == (1.5, None, None)
    difference = stats.bootstrap_difference([1.0, 2.0], [100.0, 101.0])
    assert difference.iqm == pytest.approx(-99)
    assert not difference.excludes_zero


def test_a_difference_is_seen_where_there_is_one_and_keeps_its_sign():
    rng = np.random.default_rng(0)
    low, high = rng.normal(0, 1, 8), rng.normal(9, 1, 8)
    up, down = stats.bootstrap_difference(high, low), stats.bootstrap_difference(low, high)
    assert up.excludes_zero and up.low > 5
    assert down.excludes_zero and down.high < -5
    assert not stats.bootstrap_difference(low, low).excludes_zero


def test_three_runs_raise_more_false_alarms_than_ten():
    three, ten = stats.false_alarm_rate(3, False), stats.false_alarm_rate(10, False)
    assert 0.1 < three < 0.22
    assert 0.01 < ten < 0.09
