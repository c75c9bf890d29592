from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from signbridge.statistics.intervals import (
    bracketing_interval,
    difference_interval,
    logit_interval,
    share_intervals,
    studentised_interval,
    t_quantile,
)

Z = stats.norm.ppf(0.975)


@pytest.mark.parametrize("n_groups", [2, 5, 20, 1000])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_quantile_is_that_of_student(n_groups, level):
    expected = stats.t.interval(level, n_groups - 1)[1]
    assert t_quantile(n_groups, level) == pytest.approx(expected)


def test_one_group_has_no_quantile():
    assert t_quantile(1) == math.inf
    assert logit_interval(0.5, 0.1, math.inf, 1) == (0, 1)
    assert bracketing_interval(0.1, 0.2, 0.01, math.inf) == (0, 1)


@pytest.mark.parametrize("right", [0, 30])
def test_without_variation_the_interval_is_wilsons(right):
    theirs = stats.binomtest(right, 30).proportion_ci(method="wilson")
    assert logit_interval(right / 30, 0.0, Z, 30) == pytest.approx((theirs.low, theirs.high))


def test_logit_interval_by_hand():
    """40 of 50 with the binomial deviation: logit 1.3863 -+ 1.96 / sqrt(50 * 0.8 * 0.2)."""
    reach = 1.959964 / math.sqrt(8)
    expected = tuple(1 / (1 + math.exp(-(math.log(4) + side * reach))) for side in (-1, 1))
    assert logit_interval(0.8, math.sqrt(0.16 / 50), Z, 50) == pytest.approx(expected, abs=1e-6)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(1, 1e4))
def test_logit_interval_stays_within_its_scale(value, deviation, effective):
    low, high = logit_interval(value, deviation, 2.1, effective)
    assert 0 <= low <= value + 1e-9
    assert value - 1e-9 <= high <= 1


def test_studentised_interval_of_a_normal_sample_is_students():
    """Draws whose t is Student's by construction give Student's interval, skewed ones do not."""
    t = stats.t.ppf((np.arange(20_000) + 0.5) / 20_000, 9)
    errors = np.linspace(0.5, 2, len(t))
    found = studentised_interval(3.0, 0.4, 3.0 + t * errors, errors)
    assert found == pytest.approx(stats.t.interval(0.95, 9, 3.0, 0.4), abs=1e-3)
    skewed = studentised_interval(3.0, 0.4, 3.0 + (t - 1) * errors, errors)
    assert skewed == pytest.approx((found[0] + 0.4, found[1] + 0.4), abs=1e-3)


def test_studentised_interval_where_nothing_varies():
    assert studentised_interval(1.5, 0.0, np.full(9, 1.5), np.zeros(9)) == (1.5, 1.5)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # Newcombe 1998, Statistics in Medicine 17:873, table II, method 10.
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((10, 10), (0, 20), (0.6791, 1.0000)),
    ],
)
def test_difference_of_independent_shares_is_newcombes(first, second, expected):
    parts = []
    for right, of in (first, second):
        wilson = stats.binomtest(right, of).proportion_ci(method="wilson")
        parts.append((right / of, wilson.low, wilson.high))
    assert difference_interval(*parts, 1.0) == pytest.approx(expected, abs=5e-5)


def test_difference_of_the_same_is_nothing():
    one = (0.7, 0.6, 0.75)
    assert difference_interval(one, one, 0.0) == (0, 0)
    low, high = difference_interval(one, one, math.nan)  # neither varies: taken as independent
    assert (low, high) == pytest.approx((-math.hypot(0.1, 0.05), math.hypot(0.05, 0.1)))


def test_difference_of_normal_means_is_that_of_the_difference():
    """Symmetric intervals: the deviation of the difference times the quantile."""
    variance, covariance = np.array([4.0, 1.0]), 1.2
    parts = [(v, v - Z * s, v + Z * s) for v, s in zip((3, 2), np.sqrt(variance), strict=True)]
    spread = variance.sum() - 2 * covariance
    found = difference_interval(*parts, spread / variance.sum())
    assert found == pytest.approx(stats.norm.interval(0.95, 1, math.sqrt(spread)))


def test_bracketing_starts_from_either_estimate():
    assert bracketing_interval(0.1, 0.3, 0.02, 2.0) == pytest.approx((0.06, 0.34))
    assert bracketing_interval(0.01, 0.99, 0.02, 2.0) == (0, 1)


@pytest.mark.parametrize("hits", [0, 1, 5, 11, 12])
def test_independent_trials_have_wilsons_interval(hits: int) -> None:
    x = np.arange(12) < hits
    low, high = share_intervals(x, np.zeros(12, int), np.arange(12) * 7, 1)
    expected = stats.binomtest(hits, 12).proportion_ci(method="wilson")
    np.testing.assert_allclose([low[0], high[0]], [expected.low, expected.high], atol=1e-12)


def test_copies_add_nothing() -> None:
    """Ten photographs seen 20 times each, always alike, are ten trials."""
    x = np.repeat([1, 1, 1, 0, 1, 0, 1, 1, 0, 1], 20)
    low, high = share_intervals(x, np.zeros(200, int), np.repeat(np.arange(10), 20), 1)
    once = stats.binomtest(7, 10).proportion_ci(method="wilson")
    assert low[0] < once.low + 0.01
    assert high[0] > once.high - 0.01


def test_parts_that_say_little() -> None:
    x = np.array([1, 1, 0, 1, 1, 1])
    part = np.array([0, 0, 2, 2, 3, 3])
    low, high = share_intervals(x, part, [5, 5, 1, 2, 3, 4], 4)
    assert (low[0], high[0]) == (0, 1)  # a single group
    assert np.isnan([low[1], high[1]]).all()  # no trial
    assert 0 < low[2] < 0.5 < high[2] < 1
    assert 0 < low[3] < high[3] == 1
    assert np.isnan(share_intervals([], [], [], 2)).all()


@pytest.mark.parametrize(("n_groups", "size", "alike"), [(7, 20, 0.6), (14, 20, 0.2), (10, 2, 0.5)])
def test_simulated_classes_are_covered(n_groups: int, size: int, alike: float) -> None:
    """Beta-binomial photographs: 24 classes of four true shares, 95 % intervals."""
    rng = np.random.default_rng(0)
    truth = np.tile([0.05, 0.3, 0.7, 0.95], 6)
    covered = np.zeros(24)
    for _ in range(60):
        sizes = 1 + rng.poisson(size - 1, (24, n_groups))
        spread = (1 - alike) / alike
        rate = rng.beta(truth[:, None] * spread, (1 - truth[:, None]) * spread, (24, n_groups))
        part = np.repeat(np.repeat(np.arange(24), n_groups), sizes.ravel())
        group = np.repeat(np.arange(24 * n_groups), sizes.ravel())
        x = rng.random(len(group)) < np.repeat(rate.ravel(), sizes.ravel())
        low, high = share_intervals(x, part, group, 24)
        covered += (low <= truth) & (truth <= high)
    assert 0.93 <= covered.sum() / (24 * 60) <= 0.985
