from __future__ import annotations

import numpy as np
import pytest

from signbridge.errors import ProbeError
from signbridge.probes.bootstrap import ClusterBootstrap, group_sums, metrics_of_sums
from signbridge.probes.scores import METRICS, score


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
    sums = group_sums(p, y, g).matrix
    drawn = metrics_of_sums(bootstrap.draws(sums), 5)
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
        information = -np.log2(share[y[rows]]).mean() - expected["cross_entropy"] / np.log(2)
        assert drawn["usable_information"][number] == pytest.approx(information, rel=1e-6)


def test_draws_do_not_depend_on_the_block_they_were_made_in(monkeypatch):
    p, y, g = predictions()
    whole = ClusterBootstrap(g, repetitions=50).intervals(p, y)
    monkeypatch.setattr("signbridge.probes.bootstrap._BLOCK", 3000)
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


def test_coverage_of_a_known_accuracy():
    """95 % intervals over 60 groups of 1 to 5 images cover the truth in about 95 % of draws."""
    rng = np.random.default_rng(0)
    covered = 0
    for repetition in range(400):
        sizes = rng.integers(1, 6, size=60)
        chance = np.repeat(rng.beta(3, 1, size=60), sizes)  # images of a group are alike
        right = rng.random(len(chance)) < chance
        p = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9])
        bootstrap = ClusterBootstrap(
            np.repeat(np.arange(60), sizes), repetitions=400, seed=repetition
        )
        interval = bootstrap.intervals(p, np.zeros(len(p), dtype=int))["accuracy"]
        covered += interval.low <= 0.75 <= interval.high
    # 400 repetitions have a standard error of 1.1 points.
    assert 0.915 <= covered / 400 <= 0.98


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


@pytest.mark.parametrize("arguments", [{"repetitions": 0}, {"level": 1.0}, {"level": 0}])
def test_arguments_that_cannot_be_used(arguments):
    with pytest.raises(ProbeError):
        ClusterBootstrap(np.arange(5), **arguments)
