from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from signbridge.statistics.layer_scores import LayerScores
from signbridge.statistics.metrics import METRICS, equal_mass_bins, score


def predictions(n=300, n_classes=6, seed=0, sharpness=2.0):
    rng = np.random.default_rng(seed)
    y = rng.integers(n_classes, size=n)
    logits = rng.normal(size=(n, n_classes)) * sharpness
    logits[np.arange(n), y] += 1.5
    p = np.exp(logits)
    return (p / p.sum(1, keepdims=True)).astype(np.float32), y


@pytest.mark.parametrize("n_classes", [2, 3, 24])
def test_against_scikit_learn(n_classes):
    p, y = predictions(n_classes=n_classes)
    mine = score(p, y)
    answer, every = p.argmax(1), np.arange(n_classes)
    assert list(mine) == list(METRICS)
    assert mine["accuracy"] == pytest.approx(reference.accuracy_score(y, answer), abs=1e-7)
    assert mine["balanced_accuracy"] == pytest.approx(
        reference.balanced_accuracy_score(y, answer), abs=1e-12
    )
    assert mine["macro_f1"] == pytest.approx(
        reference.f1_score(y, answer, average="macro"), abs=1e-6
    )
    assert mine["cross_entropy"] == pytest.approx(reference.log_loss(y, p, labels=every), rel=1e-6)
    if n_classes > 2:
        top = reference.top_k_accuracy_score(y, p, k=3, labels=every)
        assert mine["top3_accuracy"] == pytest.approx(top, abs=1e-7)
    else:
        assert mine["top3_accuracy"] == 1


def test_class_that_never_occurs_but_is_answered():
    p = np.eye(4, dtype=np.float32)[[0, 0, 3, 1]]
    y = np.array([0, 0, 1, 1])
    mine = score(p, y)
    assert mine["balanced_accuracy"] == reference.balanced_accuracy_score(y, p.argmax(1))
    assert mine["macro_f1"] == pytest.approx(reference.f1_score(y, p.argmax(1), average="macro"))


def test_probability_zero_costs_a_finite_amount():
    p = np.array([[1.0, 0.0], [1.0, 0.0]], dtype=np.float32)
    y = np.array([0, 1])
    assert score(p, y)["cross_entropy"] == pytest.approx(reference.log_loss(y, p), rel=1e-6)


def test_usable_information_of_known_predictors():
    y = np.repeat(np.arange(4), [8, 4, 2, 2])
    sure = np.eye(4, dtype=np.float32)[y]
    shares = np.tile(np.float32([0.5, 0.25, 0.125, 0.125]), (16, 1))
    uniform = np.full((16, 4), 0.25, dtype=np.float32)
    assert score(sure, y)["usable_information"] == pytest.approx(1.75, abs=1e-6)
    assert score(shares, y)["usable_information"] == pytest.approx(0, abs=1e-6)
    assert score(uniform, y)["usable_information"] == pytest.approx(1.75 - 2, abs=1e-6)


def test_calibration_against_scikit_learns_quantile_bins():
    p, y = predictions(n=1500)
    confidence, correct = p.max(1).astype(np.float64), p.argmax(1) == y
    truth, mean = calibration_curve(correct, confidence, n_bins=15, strategy="quantile")
    expected = np.abs(truth - mean).mean()  # 1,500 distinct values: all bins hold 100
    assert score(p, y)["calibration_error"] == pytest.approx(expected, abs=2e-4)


def test_calibration_by_hand():
    p = np.array([[0.6, 0.4], [0.6, 0.4], [0.1, 0.9], [0.1, 0.9]])
    # bins {0.6 wrong, 0.6 right} and {0.9 right, 0.9 wrong}
    value = score(p, [1, 0, 1, 0])["calibration_error"]
    assert value == pytest.approx((abs(1 - 1.2) + abs(1 - 1.8)) / 4)


@pytest.mark.parametrize("counts", [[40, 40, 40, 40], [50, 30, 17, 3]])
def test_constant_predictor_that_knows_its_accuracy_is_calibrated(counts):
    y = np.repeat(np.arange(4), counts)  # sorted by class, as stores are
    shares = np.tile(np.array(counts) / len(y), (len(y), 1))
    assert score(shares, y)["calibration_error"] == pytest.approx(0, abs=1e-15)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 80), st.integers(1, 6))
def test_calibration_ignores_the_order_of_samples(seed, n, n_values):
    rng = np.random.default_rng(seed)
    confidence = rng.choice(np.linspace(0.5, 1, n_values), size=n)
    p, y = np.stack([confidence, 1 - confidence], axis=1), rng.integers(2, size=n)
    order = rng.permutation(n)
    one, other = (score(p[rows], y[rows])["calibration_error"] for rows in (slice(None), order))
    assert one == pytest.approx(other, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 20))
def test_bins_hold_whole_ties_at_their_mean_rank(values, n_bins):
    bins = equal_mass_bins(np.array(values, dtype=float), n_bins)
    expected = np.floor((rankdata(values) - 1) * n_bins / len(values) + 1e-9)
    np.testing.assert_array_equal(bins, expected)


def test_calibration_of_fewer_samples_than_bins():
    p, y = predictions(n=3)
    expected = np.abs((p.argmax(1) == y) - p.max(1)).mean()
    assert score(p, y)["calibration_error"] == pytest.approx(expected, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 40), st.integers(2, 5))
def test_batches_and_layers_do_not_matter(seed, n, n_classes):
    first, y = predictions(n, n_classes, seed)
    second, _ = predictions(n, n_classes, seed + 1)
    layers = LayerScores(2, n_classes)
    both = torch.tensor(np.stack([first, second], axis=1))
    for start in range(0, n, 7):
        layers.update(both[start : start + 7], torch.tensor(y[start : start + 7]))
    values = layers.compute()
    for number, p in enumerate((first, second)):
        for name, value in score(p, y).items():
            assert values[name][number].item() == pytest.approx(value, rel=1e-6, abs=1e-9)
    alone = LayerScores(1, n_classes)
    alone.update(both[:, :1], torch.tensor(y))
    assert {name: value.shape for name, value in alone.compute().items()} == dict.fromkeys(
        METRICS, (1,)
    )
    layers.reset()
    layers.update(both[:2], torch.tensor(y[:2]))
    assert layers.compute()["accuracy"][0].item() == pytest.approx(
        score(first[:2], y[:2])["accuracy"]
    )
