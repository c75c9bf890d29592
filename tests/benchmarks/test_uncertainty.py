"""Intervals and tests against known answers: the simulation of benchmarks/uncertainty.py, small.

The bounds are those of a binomial count: a method that keeps its promise fails them once in some
ten thousand runs, a method that misses it by ten points nearly always. The seeds are fixed.
"""

from __future__ import annotations

import pytest
from scipy import stats

from signbridge.statistics.metrics import METRICS

REPETITIONS = 120


@pytest.fixture(scope="module")
def benchmark(script):
    return script("uncertainty")


def within(percent, promised, repetitions=REPETITIONS):
    """Whether a share may come from a promise kept, at 1 in 10,000 on each side."""
    low, high = stats.binom.ppf([1e-4, 1 - 1e-4], repetitions, promised) / repetitions
    return low <= float(percent) / 100 <= high


def test_intervals_cover_the_known_scores(benchmark):
    design = benchmark.Design(5, 12, 4)
    rows = list(benchmark.intervals(REPETITIONS, 300, [design], levels=["middling"]))
    (row,) = rows
    means = [name for name, metric in METRICS.items() if metric.interval == "logit"]
    for name in (*means, "difference", "of CE"):
        assert within(row[name], 0.95), (name, row)
    for name in ("macro_f1", "cross_entropy"):  # docs/method.md: somewhat below
        assert float(row[name]) > 85, (name, row)
    assert float(row["calibration_error"]) > 90  # wide by intention
    # Not too wide either: narrower than twice what a normal interval of independent groups is.
    assert within(row["class recall"], 0.95, REPETITIONS * 5)


@pytest.mark.slow
@pytest.mark.parametrize("place", range(9))
def test_intervals_and_tests_of_few_signers(benchmark, place):
    """3, 5 and 8 of them, of equal, unequal and very unequal numbers of images."""
    design = benchmark.FEW[place]
    (row,) = benchmark.intervals(REPETITIONS, 200, [design], levels=["middling"])
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "top3_accuracy", "cross_entropy"):
        assert float(row[name]) > 88, (name, row)
    for name in ("difference", "of CE"):
        assert float(row[name]) > 86, (name, row)
    (row,) = benchmark.null(REPETITIONS, 199, [design], kinds=["alike"])
    for name in ("p", "p, bits", "family: peak", "adjacent", "baseline"):
        assert float(row[name]) < 12, (name, row)  # 5 %, and 1 in 10,000 above
    assert float(row["hold the best"]) > 91


def test_intervals_where_nearly_all_is_right(benchmark):
    """Percentiles cover 75 % here."""
    (row,) = benchmark.intervals(REPETITIONS, 300, [benchmark.DESIGNS[0]], levels=["easy"])
    shares = [name for name, metric in METRICS.items() if "logit" in metric.interval]
    for name in (*shares, "difference"):
        assert float(row[name]) > 88, (name, row)


def test_equal_layers_are_rarely_told_apart(benchmark):
    (row, better) = benchmark.null(
        REPETITIONS, 199, [benchmark.Design(5, 12, 4)], kinds=["alike", "one best"]
    )
    for name in ("p", "p, bits", "family: peak", "adjacent", "baseline"):
        assert within(row[name], 0.05), (name, row)
    assert 91 < float(row["hold the best"]) < 98.5  # a mean over eight layers
    assert float(better["hold the best"]) > 91
    assert float(better["candidates of 8"]) < 7


def test_labels_that_mean_nothing_pass_no_permutation_test(benchmark):
    (row,) = benchmark.permutation(40, 99, [benchmark.DESIGNS[1]], layers=2)
    for share in ("largest of 2 layers", "one layer"):
        assert within(row[share], 0.05, 40), row
