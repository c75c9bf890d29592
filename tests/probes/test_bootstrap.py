from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from signbridge.errors import ProbeError
from signbridge.probes.bootstrap import (
    METHODS,
    ClusterBootstrap,
    group_sums,
    interval_ends,
    metrics_of_sums,
)
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


def simulated(rng, n_classes, n_groups, n_images):
    """Predictions of classes read unequally well, in groups of images that are alike."""
    label = np.repeat(np.arange(n_classes), n_groups)
    size = rng.integers(1, n_images + 1, size=len(label))
    y, g = np.repeat(label, size), np.repeat(np.arange(len(label)), size)
    logits = rng.normal(size=(len(label), n_classes))[g] + 0.5 * rng.normal(
        size=(len(y), n_classes)
    )
    logits[np.arange(len(y)), y] += np.linspace(0, 3, n_classes)[y]
    p = np.exp(1.2 * logits)
    return p / p.sum(1, keepdims=True), y, g


def test_coverage_where_the_metric_is_biased():
    """140 groups of 10 classes: macro F1 keeps its promise, and on both sides.

    The calibration error here is small (0.04), which is the hard case: no plain percentile interval
    covers it. Reflected ones fall short of 95 % too, as docs/method.md says, but not by far.
    """
    p, y, g = simulated(np.random.default_rng(0), 10, 10_000, 5)
    truth = metrics_of_sums(group_sums(p, y, g).matrix.sum(0), 10)
    rng = np.random.default_rng(1)
    missed = {name: np.zeros(2) for name in ("macro_f1", "calibration_error", "percentile")}
    repetitions = 200
    for repetition in range(repetitions):
        p, y, g = simulated(rng, 10, 14, 5)
        bootstrap = ClusterBootstrap(g, repetitions=400, seed=repetition)
        found = bootstrap.intervals(p, y)
        ends = {name: (found[name].low, found[name].high) for name in missed if name in found}
        drawn = metrics_of_sums(bootstrap.draws(group_sums(p, y, g).matrix), 10)
        ends["percentile"] = tuple(np.quantile(drawn["calibration_error"], [0.025, 0.975]))
        for name, (low, high) in ends.items():
            value = truth["calibration_error" if name == "percentile" else name]
            missed[name] += [value < low, value > high]
    share = {name: count / repetitions for name, count in missed.items()}
    # The promise is 0.025 on each side; three standard errors of 200 repetitions are 0.033.
    assert (share["macro_f1"] < 0.058).all()
    assert share["calibration_error"].sum() < 0.2
    assert share["percentile"].sum() > 0.95


def test_bias_corrected_ends_by_hand():
    """60 % of the draws below the value: quantiles at Phi(2 z0 -+ 1.96), z0 = Phi^-1(0.6)."""
    drawn = np.arange(1001.0)
    z = NormalDist()
    low, high = (1000 * z.cdf(2 * z.inv_cdf(0.6) + z.inv_cdf(q)) for q in (0.025, 0.975))
    ends = interval_ends(600.1, drawn, method="bias_corrected")
    assert ends == pytest.approx((low, high), abs=1.5)
    # equal ones count half, so an even share leaves the percentiles
    assert interval_ends(500.0, drawn, method="bias_corrected") == pytest.approx((25.0, 975.0))


def test_bias_corrected_ends_agree_with_scipy():
    """SciPy's BCa has the acceleration in addition, which is 0 for a symmetric sample's mean."""
    half = np.random.default_rng(0).normal(size=40)
    sample = np.concatenate([half, -half])
    theirs = stats.bootstrap(
        (sample,), np.mean, n_resamples=4000, method="BCa", random_state=1, vectorized=True
    )
    ends = interval_ends(0.0, theirs.bootstrap_distribution, method="bias_corrected")
    assert ends == pytest.approx(tuple(theirs.confidence_interval), abs=1e-3)


@pytest.mark.parametrize("value", [-1.0, 2.0])
def test_all_draws_on_one_side_are_reflected(value):
    drawn = np.linspace(0, 1, 101)
    low, high = interval_ends(value, drawn, method="bias_corrected")
    assert (low, high) == pytest.approx((2 * value - 0.975, 2 * value - 0.025))


def test_reflected_ends_stay_within_the_bounds():
    drawn = np.linspace(0.1, 0.5, 101)
    assert interval_ends(0.1, drawn, method="reflected", bounds=(0, 1))[0] == 0
    assert interval_ends(0.1, drawn, method="reflected")[0] < -0.2
    assert interval_ends(0.0, drawn, method="reflected", bounds=(0, 1)) == (0, 0)


def test_every_metric_has_a_method():
    assert set(METHODS) == set(METRICS)


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
