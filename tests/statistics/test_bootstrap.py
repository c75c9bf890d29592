from __future__ import annotations

import math

import numpy as np
import pytest

from signbridge.errors import ProbeError
from signbridge.statistics.bootstrap import ClusterBootstrap, paired_difference
from signbridge.statistics.metrics import METRICS, group_sums, metrics_of_sums, outcomes, score


def predictions(n=200, n_classes=5, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(n_classes, size=n)
    p = rng.dirichlet(np.ones(n_classes), size=n)
    p[np.arange(n), y] += 0.4
    return (p / p.sum(1, keepdims=True)).astype(np.float32), y, rng.integers(n // 4, size=n)


@pytest.mark.parametrize("n_classes", [2, 5, 24])
def test_values_are_those_of_the_torchmetrics(n_classes):
    p, y, g = predictions(n_classes=n_classes)
    found = ClusterBootstrap(g, repetitions=20).intervals(p, y)
    for name, value in score(p, y).items():
        assert found[name].value == pytest.approx(value, rel=1e-6, abs=1e-7), name
        assert found[name].low <= found[name].high


def test_a_draw_is_a_sample_of_whole_groups():
    """Weighted sums against the metrics of the samples actually repeated."""
    p, y, g = predictions(n=60)
    groups = np.unique(g)
    bootstrap = ClusterBootstrap(g, repetitions=5, seed=3)
    sums = group_sums(outcomes(p, y), g)
    drawn = metrics_of_sums(sums.named(bootstrap.draws(sums.columns)), sums.whole)
    generator = np.random.default_rng(3)
    for number in range(5):
        picks = groups[generator.integers(len(groups), size=len(groups))]
        rows = np.concatenate([np.flatnonzero(g == pick) for pick in picks])
        expected = score(p[rows], y[rows])
        for name in METRICS:
            if name not in ("calibration_error", "usable_information"):
                assert drawn[name][number] == pytest.approx(expected[name], rel=1e-6), name
        # Bins and class shares are those of the whole sample.
        share = np.bincount(y) / len(y)
        information = -share @ np.log2(share) - expected["cross_entropy"] / np.log(2)
        assert drawn["usable_information"][number] == pytest.approx(information, rel=1e-6)


def test_draws_do_not_depend_on_the_block_they_were_made_in(monkeypatch):
    p, y, g = predictions()
    whole = ClusterBootstrap(g, repetitions=50).intervals(p, y)
    monkeypatch.setattr("signbridge.statistics.bootstrap._BLOCK", 3000)
    parts = ClusterBootstrap(g, repetitions=50).intervals(p, y)
    for name, interval in whole.items():
        assert (parts[name].low, parts[name].high) == pytest.approx(
            (interval.low, interval.high), rel=1e-12
        )


def test_seed_decides():
    p, y, g = predictions()
    first, again, other = (
        ClusterBootstrap(g, repetitions=50, seed=s).intervals(p, y)["accuracy"] for s in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_identical_copies_do_not_narrow_the_interval():
    """Twenty copies of a photograph say no more than one."""
    p, y, _ = predictions(n=50)
    once = ClusterBootstrap(np.arange(50)).intervals(p, y)["accuracy"]
    g = np.repeat(np.arange(50), 20)
    copies = ClusterBootstrap(g).intervals(p[g], y[g])["accuracy"]
    naive = ClusterBootstrap(np.arange(1000)).intervals(p[g], y[g])["accuracy"]
    assert (copies.low, copies.high) == pytest.approx((once.low, once.high))
    assert naive.high - naive.low < (once.high - once.low) / 3


def test_paired_difference():
    p, y, g = predictions()
    q = p.copy()
    q[:20] = q[:20][:, ::-1]
    bootstrap = ClusterBootstrap(g)
    same = bootstrap.difference(p, p, y)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    found = bootstrap.difference(p, q, y)
    assert found.value == pytest.approx(score(p, y)["accuracy"] - score(q, y)["accuracy"], abs=1e-7)
    alone = bootstrap.intervals(p, y)["accuracy"]
    assert found.high - found.low < alone.high - alone.low


def test_class_missing_from_some_draws():
    p = np.eye(3, dtype=np.float32)[[0, 0, 0, 0, 1, 2]]
    y = np.array([0, 0, 0, 0, 1, 1])
    found = ClusterBootstrap(np.arange(6), repetitions=300).intervals(p, y)
    assert all(np.isfinite([i.low, i.high]).all() for i in found.values())


def test_a_class_that_a_draw_misses_does_not_count_as_read_badly():
    """Six groups of six classes, all right: every draw misses some, and has macro F1 = 1."""
    y = np.arange(6)
    drawn = ClusterBootstrap(y, repetitions=50).scored(np.eye(6), y).drawn
    assert (drawn["macro_f1"] == 1).all()
    # A class that has no label at all is another matter: answering it is wrong in every draw.
    p = np.eye(6)
    p[0] = np.eye(6)[5]
    y = np.array([0, 1, 2, 3, 4, 4])
    p[5] = np.eye(6)[4]
    drawn = ClusterBootstrap(np.zeros(6, dtype=int), repetitions=5).scored(p, y).drawn
    assert drawn["macro_f1"] == pytest.approx(score(p, y)["macro_f1"])


def test_all_right_is_no_certainty():
    """20 groups without a mistake: the interval of the share reaches below 1, as Wilson's does."""
    y = np.arange(100) % 4
    found = ClusterBootstrap(np.arange(100) // 5).intervals(np.eye(4)[y], y)
    for name in (name for name, metric in METRICS.items() if "logit" in metric.interval):
        assert found[name].high == 1
        assert 0.8 < found[name].low < 0.86, name


def test_usable_information_is_the_cross_entropy_turned_over():
    p, y, g = predictions()
    found = ClusterBootstrap(g).intervals(p, y)
    bits, loss = found["usable_information"], found["cross_entropy"]
    share = np.bincount(y) / len(y)
    entropy = -(share * np.log2(share)).sum()
    assert (bits.low, bits.value, bits.high) == pytest.approx(
        tuple(entropy - end / math.log(2) for end in (loss.high, loss.value, loss.low)), abs=1e-6
    )


def test_calibration_error_reaches_from_a_small_to_a_large_estimate():
    """An honest probe: no miscalibration is within the interval, and so is the value."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), size=400)
    y = np.array([rng.choice(4, p=row) for row in p])
    found = ClusterBootstrap(np.arange(400) // 4).intervals(p, y)["calibration_error"]
    assert found.low == 0 < found.value < found.high
    # And a probe that always claims to be sure is known to be miscalibrated by 1 - accuracy.
    q = np.eye(4)[p.argmax(1)]
    found = ClusterBootstrap(np.arange(400) // 4).intervals(q, y)["calibration_error"]
    wrong = 1 - np.mean(q.argmax(1) == y)
    assert found.value == pytest.approx(wrong)
    assert 0.1 < found.low < wrong < found.high


@pytest.mark.parametrize("n_groups", [1, 2])
def test_one_or_two_groups_say_nothing(n_groups):
    p, y, _ = predictions(n=30)
    bootstrap = ClusterBootstrap(np.arange(30) % n_groups, repetitions=20)
    for name, interval in bootstrap.intervals(p, y).items():
        assert np.isnan([interval.low, interval.high]).all(), name
        assert interval.value == pytest.approx(score(p, y)[name], abs=1e-7)
    gap = bootstrap.difference(p, p[:, ::-1], y)
    assert np.isfinite(gap.value)
    assert np.isnan([gap.low, gap.high]).all()


@pytest.mark.parametrize("n_groups", [3, 5, 20, 300])
def test_a_constant_guess_has_no_spread_where_groups_hold_all_classes(n_groups):
    """Signers: which of them were photographed does not decide how many A there are."""
    y = np.tile(np.arange(6), 2 * n_groups)
    g = np.repeat(np.arange(n_groups), 12)
    bootstrap = ClusterBootstrap(g, repetitions=50)
    guess = bootstrap.scored(np.full((len(y), 6), 1 / 6), y)
    for interval in guess.intervals.values():
        assert np.isnan([interval.low, interval.high]).all()
    right = np.random.default_rng(0).random(len(y)) < 0.5
    probe = bootstrap.scored(np.where(right[:, None], np.eye(6)[y], np.eye(6)[(y + 1) % 6]), y)
    gap, alone = paired_difference(probe, guess), probe.intervals["accuracy"]
    assert (gap.low, gap.high) == pytest.approx((alone.low - 1 / 6, alone.high - 1 / 6))
    same = paired_difference(guess, guess)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_a_constant_guess_varies_where_a_group_is_of_one_class():
    """Photographs: other ones would have been of other classes."""
    y = np.repeat(np.arange(6), 20)
    found = ClusterBootstrap(np.arange(120) // 2, repetitions=50).scored(
        np.full((120, 6), 1 / 6), y
    )
    assert not found.known
    assert found.intervals["accuracy"].low < 1 / 6 < found.intervals["accuracy"].high


def test_groups_that_do_not_differ_count_by_their_images():
    """Five signers with exactly half of 40 images right are not five trials."""
    y = np.tile(np.arange(2), 100)
    p = np.eye(2)[np.where(np.arange(200) % 4 < 2, y, 1 - y)]
    found = ClusterBootstrap(np.arange(200) // 40, repetitions=50).intervals(p, y)["accuracy"]
    assert found.value == 0.5
    assert 0.35 < found.low < 0.45


def test_a_difference_may_be_one_of_labels_too():
    p, y, g = predictions()
    other = (y + 1) % 5
    bootstrap = ClusterBootstrap(g)
    found = bootstrap.difference(p, p, y, other_labels=other)
    assert found.value == pytest.approx(score(p, y)["accuracy"] - score(p, other)["accuracy"])
    scores = bootstrap.scored(p, y), bootstrap.scored(p, other)
    assert found == paired_difference(*scores)


@pytest.mark.parametrize("arguments", [{"repetitions": 0}, {"level": 1.0}, {"level": 0}])
def test_arguments_that_cannot_be_used(arguments):
    with pytest.raises(ProbeError):
        ClusterBootstrap(np.arange(5), **arguments)
