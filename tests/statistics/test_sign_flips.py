from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from signbridge.statistics.sign_flips import SignFlips


def totals(n_groups=40, n_features=5, seed=0, better=0.0):
    rng = np.random.default_rng(seed)
    shared = rng.integers(0, 8, size=(n_groups, 1))
    counts = shared + rng.integers(-2, 3, size=(n_groups, n_features))
    counts[:, 0] += rng.random(n_groups) < better
    return counts.astype(float)


@pytest.mark.parametrize("better", [0.0, 0.6])
def test_p_is_that_of_scipys_exact_paired_test(better):
    table = totals(12, 2, seed=3, better=better)
    exact = stats.permutation_test(
        (table[:, 0] - table[:, 1],),
        lambda d, axis: np.abs(d.sum(axis)),
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=np.inf,
    )
    found = SignFlips(table, flips=20_000).family([0], [1])
    # Three standard errors of 20,000 flips are at most 0.011.
    assert found.p[0] == pytest.approx(exact.pvalue, abs=0.011)
    assert found.corrected[0] == found.p[0]


def test_correction_is_the_step_down_of_all_sign_patterns():
    """Against an enumeration that follows Westfall & Young's definition word by word."""
    table = totals(9, 5, seed=1, better=0.9)
    pairs = [(0, k) for k in range(1, 5)]
    d = np.stack([table[:, a] - table[:, b] for a, b in pairs], axis=1)
    t = np.abs(d.sum(0)) / np.sqrt((d**2).sum(0))
    every = np.array(list(product([-1, 1], repeat=9)))
    null = np.abs(every @ d) / np.sqrt((d**2).sum(0))
    order = list(np.argsort(-t))
    expected, least = np.zeros(4), 0.0
    for place, k in enumerate(order):
        least = max(least, np.mean(null[:, order[place:]].max(1) >= t[k] - 1e-9))
        expected[k] = least
    found = SignFlips(table, flips=40_000).family(*zip(*pairs, strict=True))
    np.testing.assert_allclose(found.corrected, expected, atol=0.009)
    assert (found.corrected >= found.p).all()


def test_many_equal_comparisons_cost_nothing_and_holms_would():
    table = totals(60, 2, better=0.5)
    flips = SignFlips(np.hstack([table[:, :1], np.repeat(table[:, 1:], 10, axis=1)]))
    found = flips.family([0] * 10, list(range(1, 11)))
    np.testing.assert_allclose(found.corrected, found.p)


def test_choice_of_the_peak_is_paid_for_as_tukey_does():
    """Independent normal features: the studentised range, of SciPy."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(1000, 6))
    peak = int(table.sum(0).argmax())
    found = SignFlips(table, flips=20_000).against(peak, range(6))
    others = [k for k in range(6) if k != peak]
    d = table[:, others] - table[:, [peak]]
    t = np.abs(d.sum(0)) / np.sqrt((d**2).sum(0))
    expected = stats.studentized_range.sf(np.sqrt(2) * t, 6, np.inf)
    np.testing.assert_allclose(found.corrected, expected, atol=0.02)
    assert (found.corrected >= found.p).all()


def test_being_the_best_is_tested_as_dunnett_does():
    """The largest of five normal differences that share a term: correlation 1/2."""
    rng = np.random.default_rng(1)
    table = rng.normal(size=(1000, 6))
    found = SignFlips(table, flips=20_000).best(range(6))
    normal = stats.multivariate_normal(np.zeros(5), 0.5 * (np.eye(5) + 1))
    for k in range(6):
        d = np.delete(table, k, axis=1) - table[:, [k]]
        most = (d.sum(0) / np.sqrt((d**2).sum(0))).max()
        # Where no other is ahead, nothing speaks against it.
        expected = 1 - normal.cdf(np.full(5, most)) if most > 0 else 1
        assert found[k] == pytest.approx(expected, abs=0.02)


def test_features_that_agree_do_not_differ():
    table = np.repeat(totals(20, 1), 3, axis=1)
    flips = SignFlips(table, flips=99)
    assert flips.family([0, 1], [1, 2]).p.tolist() == [1, 1]
    assert flips.against(0, range(3)).corrected.tolist() == [1, 1]
    assert flips.best(range(3)).tolist() == [1, 1, 1]
    assert flips.best([0]).tolist() == [1]


def test_least_p_counts_the_observed_labelling():
    table = np.stack([np.ones(30), np.zeros(30)], axis=1)
    assert SignFlips(table, flips=99).family([0], [1]).p[0] == 0.01


def test_blocks_change_nothing(monkeypatch):
    table = totals()
    whole = SignFlips(table, flips=50)
    expected = whole.best(range(5))
    monkeypatch.setattr("signbridge.statistics.sign_flips._BLOCK", 2000)
    parts = SignFlips(table, flips=50)
    np.testing.assert_array_equal(parts.flipped, whole.flipped)
    np.testing.assert_array_equal(parts.best(range(5)), expected)
