"""Few groups: against Student's own tests, and against simulated truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from signbridge.statistics.bootstrap import ClusterBootstrap, mean_interval, paired_difference
from signbridge.statistics.few_groups import GroupMeans, PairedT, flips_can_tell, paired_tests
from signbridge.statistics.sign_flips import SignFlips


def table(n_groups=5, n_features=4, seed=0, better=0.0):
    """Right answers of each group of 40 images, the first feature ``better``."""
    rng = np.random.default_rng(seed)
    chance = np.clip(rng.normal(0.5, 0.1, size=(n_groups, 1)), 0.1, 0.9)
    found = rng.binomial(40, np.repeat(chance, n_features, axis=1)).astype(float)
    found[:, 0] += 40 * better
    return found


def test_equal_groups_are_students_sample():
    rng = np.random.default_rng(0)
    means = rng.normal(size=6)
    found = GroupMeans.of(30 * means, np.full(6, 30.0))
    low, high = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    assert found.freedom == pytest.approx(5)
    reach = found.reach(0.95)
    assert (found.value - reach, found.value + reach) == pytest.approx((low, high))


@pytest.mark.parametrize("size", [[10, 20, 40, 80, 160], [5, 5, 300], [40] * 8])
def test_the_error_of_unequal_groups_is_unbiased(size):
    """Against the true variance of the weighted mean, over drawn groups."""
    size = np.array(size, dtype=float)
    means = np.random.default_rng(1).normal(size=(len(size), 40_000))
    found = GroupMeans.of((means.T * size).T, size)
    assert (found.error**2).mean() == pytest.approx(found.value.var(), rel=0.03)
    # Satterthwaite: the degrees of freedom are those of a chi-square with the same variance.
    matched = 2 * (found.error**2).mean() ** 2 / (found.error**2).var()
    assert found.freedom == pytest.approx(matched, rel=0.05)
    # A t with them keeps its level; where groups are unequal it is careful.
    missed = (np.abs(found.value) > found.reach(0.95)).mean()
    assert missed < 0.055


def test_p_is_that_of_scipys_paired_t():
    totals = table(better=0.2)
    found = PairedT(totals, np.full(5, 40.0)).family([0, 0, 1], [1, 2, 2])
    expected = [
        stats.ttest_rel(totals[:, a], totals[:, b]).pvalue for a, b in ((0, 1), (0, 2), (1, 2))
    ]
    assert found.p == pytest.approx(expected)
    # Holm 1979, word by word.
    order, least, corrected = np.argsort(expected), 0.0, np.zeros(3)
    for rank, k in enumerate(order):
        least = max(least, min(1.0, (3 - rank) * expected[k]))
        corrected[k] = least
    assert found.corrected == pytest.approx(corrected)
    against = PairedT(totals, np.full(5, 40.0)).against(0, range(4))
    assert against.corrected == pytest.approx(np.minimum(1, 6 * against.p))


def test_the_best_of_few_groups():
    totals = table(better=0.3)
    found = PairedT(totals, np.full(5, 40.0)).best(range(4))
    assert found[0] == 1
    one_sided = [
        stats.ttest_rel(totals[:, 0], totals[:, k], alternative="greater").pvalue for k in (1, 2, 3)
    ]
    assert found[1] <= 3 * one_sided[0] + 1e-12
    assert (found[1:] < 0.05).all()


def test_groups_that_all_differ_alike_tell_no_spread():
    totals = np.array([[30.0, 20], [28, 18], [25, 15]])
    size = np.full(3, 40.0)
    assert np.isnan(PairedT(totals, size).family([0], [1]).p).all()
    assert PairedT(totals, size).best([0, 1]).tolist() == [1, 1]
    same = PairedT(totals[:, [0, 0]], size).family([0], [1])
    assert (same.p, same.corrected) == (1, 1)


def test_two_groups_permit_no_test():
    tests = PairedT(table(2), np.full(2, 40.0))
    family = tests.family([0, 0], [1, 2])
    against = tests.against(0, range(4))
    for values in (family.p, family.corrected, against.p, against.corrected, tests.best(range(4))):
        assert np.isnan(values).all()


def test_flips_are_taken_where_they_can_tell():
    """Of five groups the least p is 2 of 32."""
    assert [flips_can_tell(n) for n in (1, 2, 5, 6, 300)] == [False, False, False, True, True]
    for n_groups, kind in ((5, PairedT), (6, SignFlips), (300, SignFlips)):
        assert isinstance(paired_tests(table(n_groups), np.full(n_groups, 40.0)), kind)


def test_five_signers_who_all_differ_by_twenty_points_do_differ():
    """The case in which sign flips said p = 0.060."""
    rng = np.random.default_rng(3)
    pixels = rng.integers(110, 136, size=5).astype(float)
    layer = pixels - rng.integers(28, 33, size=5)
    found = paired_tests(np.stack([layer, pixels], axis=1), np.full(5, 144.0)).family([0], [1])
    assert found.p[0] < 0.001


def signers(rng, n_groups, images=40, better=0.0):
    """Two features' right answers: signers differ, and so do their images."""
    skill = rng.normal(0.3, 0.7, size=n_groups)
    g = np.repeat(np.arange(n_groups), images)
    shared = rng.normal(size=len(g))
    right = []
    for more in (0.0, better):
        own = skill + more + rng.normal(0, 0.4, size=n_groups)
        right.append(own[g] + 0.8 * shared + 0.6 * rng.normal(size=len(g)) > 0)
    return right, g


@pytest.fixture(scope="module")
def population():
    """What each feature scores over very many signers."""
    right, _ = signers(np.random.default_rng(9), 40_000, better=0.5)
    return [one.mean() for one in right]


@pytest.mark.parametrize(("n_groups", "repetitions"), [(3, 300), (5, 300), (20, 200), (300, 60)])
def test_intervals_cover_what_such_signers_score(population, n_groups, repetitions):
    """95 % of them hold the truth: bounds are those of a binomial count at 1 in 10,000."""
    rng = np.random.default_rng(n_groups)
    held = np.zeros((repetitions, 3))
    for repetition in range(repetitions):
        right, g = signers(rng, n_groups, better=0.5)
        y = np.tile([0, 1], len(g) // 2)
        bootstrap = ClusterBootstrap(g, repetitions=200, seed=repetition)
        one, two = (
            bootstrap.scored(np.eye(2)[np.where(r, y, 1 - y)] * 0.8 + 0.1, y) for r in right
        )
        gap, ends = paired_difference(one, two), one.intervals["accuracy"]
        loss = one.intervals["cross_entropy"]
        known = -np.log([0.9, 0.1]) @ [population[0], 1 - population[0]]
        held[repetition] = (
            ends.low <= population[0] <= ends.high,
            gap.low <= population[0] - population[1] <= gap.high,
            loss.low <= known <= loss.high,
        )
    low = stats.binom.ppf(1e-4, repetitions, 0.93) / repetitions
    assert (held.mean(0) >= low).all(), held.mean(0)


@pytest.mark.parametrize("n_groups", [3, 5, 20])
def test_equal_features_are_rarely_told_apart(n_groups):
    rng, p = np.random.default_rng(n_groups), []
    for repetition in range(400):
        right, g = signers(rng, n_groups)
        totals = np.stack([np.bincount(g, weights=r) for r in right], axis=1)
        tests = paired_tests(totals, np.bincount(g).astype(float), flips=199, seed=repetition)
        p.append(tests.family([0], [1]).p[0])
    assert np.mean(np.array(p) < 0.05) <= stats.binom.ppf(1 - 1e-4, 400, 0.05) / 400


def test_a_mean_of_few_groups_is_taken_on_the_logarithm():
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(4), 25)
    x = np.exp(rng.normal(size=100)) * expit(rng.normal(size=4))[g]
    found = mean_interval(x, g)
    means = x.reshape(4, 25).mean(1)
    reach = stats.t.ppf(0.975, 3) * stats.sem(means) / means.mean()
    expected = means.mean() * np.exp([-reach, reach])
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    # Numbers of both signs have no logarithm: Student's own interval.
    mixed = mean_interval(x - x.mean(), g)
    assert mixed.low == pytest.approx(-mixed.high, abs=1e-9)
