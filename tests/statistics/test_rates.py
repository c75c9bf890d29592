"""Intervals of shares: Wilson's where trials are independent, and coverage where they are not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from signbridge.statistics.intervals import share_intervals


@pytest.mark.parametrize("hits", [0, 1, 5, 11, 12])
def test_independent_trials_have_wilsons_interval(hits: int) -> None:
    x = np.arange(12) < hits
    low, high = share_intervals(x, np.zeros(12, int), np.arange(12) * 7, 1)
    expected = binomtest(hits, 12).proportion_ci(method="wilson")
    np.testing.assert_allclose([low[0], high[0]], [expected.low, expected.high], atol=1e-12)


def test_copies_add_nothing() -> None:
    """Ten photographs seen 20 times each, always alike, are ten trials."""
    x = np.repeat([1, 1, 1, 0, 1, 0, 1, 1, 0, 1], 20)
    low, high = share_intervals(x, np.zeros(200, int), np.repeat(np.arange(10), 20), 1)
    once = binomtest(7, 10).proportion_ci(method="wilson")
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
