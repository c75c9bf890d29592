"""Debiased CKA against the definition of the U-statistic, and what it must not depend on."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest

from signbridge.errors import ProbeError
from signbridge.statistics.cka import cka_matrix, debiased_cka, unbiased_hsic


def _by_definition(K: np.ndarray, L: np.ndarray) -> float:
    """Song et al. 2012, equation 4: the mean over all ordered quadruples of distinct samples."""
    n, total, count = len(K), 0.0, 0
    for i, j, q, r in itertools.permutations(range(n), 4):
        total += K[i, j] * (L[i, j] + L[q, r] - 2 * L[i, q])
        count += 1
    return total / count


@pytest.mark.parametrize("n", [4, 5, 8])
def test_unbiased_hsic_is_the_mean_over_distinct_quadruples(n: int) -> None:
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, 3)), rng.normal(size=(n, 40))
    y[:, :3] += x
    K, L = x @ x.T, y @ y.T
    expected = _by_definition(K, L)
    assert unbiased_hsic(K, L) == pytest.approx(expected, rel=1e-10)
    np.testing.assert_array_equal(K, x @ x.T)  # the arguments are left alone
    ratio = expected / np.sqrt(_by_definition(K, K) * _by_definition(L, L))
    assert debiased_cka(x, y) == pytest.approx(ratio, rel=1e-9)


def test_rotation_shift_and_scale_change_nothing_but_another_basis_does() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 20)), rng.normal(size=(60, 7))
    y[:, 0] += 2 * x[:, 3]
    turn = np.linalg.qr(rng.normal(size=(20, 20)))[0]
    before = debiased_cka(x, y)
    assert debiased_cka(5 * (x @ turn) - 3, y) == pytest.approx(before, rel=1e-9)
    assert debiased_cka(y, x) == pytest.approx(before, rel=1e-9)
    assert debiased_cka(x, -0.1 * x @ turn + 9) == pytest.approx(1)
    assert abs(debiased_cka(x @ rng.normal(size=(20, 20)), y) - before) > 1e-3


def test_unrelated_features_give_zero_on_average_where_the_plain_estimate_does_not() -> None:
    rng = np.random.default_rng(1)
    values, plain = [], []
    for _ in range(200):
        x, y = rng.normal(size=(20, 300)), rng.normal(size=(20, 300))
        values.append(debiased_cka(x, y))
        x, y = x - x.mean(0), y - y.mean(0)
        plain.append(
            np.linalg.norm(x.T @ y) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
        )
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(200)
    assert min(values) < 0
    assert np.mean(plain) > 0.8


def test_matrix_holds_the_pairs_of_standardised_features() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(50, 12)) * 10.0 ** rng.integers(-2, 4, 12) + 7
    features = [x, x[:, :5] + rng.normal(size=(50, 5)), rng.normal(size=(50, 90)), np.ones((50, 3))]
    matrix = cka_matrix([lambda f=f: f.astype(np.float32) for f in features])
    standardised = [(f - f.mean(0)) / f.std(0) for f in features[:3]]
    for i, j in itertools.product(range(3), repeat=2):
        expected = debiased_cka(standardised[i], standardised[j])
        assert matrix[i, j] == pytest.approx(expected, abs=2e-5)
    assert np.isnan(matrix[3]).all()
    assert np.isnan(matrix[:, 3]).all()


def test_small_memory_gives_the_same_matrix_within_the_bound() -> None:
    rng = np.random.default_rng(3)
    n, count = 200, 9
    base = rng.normal(size=(n, 30))
    features = [base + k * rng.normal(size=(n, 30)) for k in range(count)]
    one = 4 * n * (n - 1) // 2
    calls = []

    def give(k: int):
        return lambda: (calls.append(k), features[k])[1]

    whole = cka_matrix([give(k) for k in range(count)])
    at_once = len(calls)
    np.testing.assert_allclose(
        cka_matrix([give(k) for k in range(count)], memory=4 * one), whole, atol=1e-12
    )
    assert len(calls) > 2 * at_once
    peaks = []
    for many in (count, 4 * count):
        tracemalloc.start()
        cka_matrix([(lambda k=k: features[k % count]) for k in range(many)], memory=4 * one)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.05 * peaks[0]


def test_too_few_or_different_images_are_refused() -> None:
    with pytest.raises(ProbeError, match="4 or more"):
        debiased_cka(np.ones((3, 2)), np.ones((3, 2)))
    with pytest.raises(ProbeError, match="same images"):
        cka_matrix([lambda: np.eye(6), lambda: np.eye(5)])
