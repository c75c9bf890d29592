"""Axes, folds, weights, classes that a fold lacks, and refusals of fit_logistic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from signbridge.errors import ProbeError
from signbridge.probes.exact.logistic import fit_logistic

TIGHT = 1e-9


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    y = rng.permutation(np.arange(48) % 4)
    X = rng.normal(size=(3, 4, 70))[:, y] + rng.normal(size=(3, 48, 70)) * 2
    X = (X - X.mean(1, keepdims=True)) / X.std(1, keepdims=True)
    return X, y


def close(a, b, rtol=1e-7):
    return np.linalg.norm(a - b) <= rtol * np.linalg.norm(b)


def test_every_axis_equals_its_own_fit(data):
    X, y = data
    rng = np.random.default_rng(0)
    labels = np.stack([y, rng.permutation(y)])
    folds = [np.arange(40), np.arange(8, 48), np.r_[0:15, 20:48]]
    fit = fit_logistic(
        X, labels, [0.1, 2.0], train=folds, standardise=True, decision=True, tol=TIGHT
    )
    assert fit.axes == ("layer", "fold", "labels", "C")
    assert fit.coef.shape == (3, 3, 2, 2, 4, 70)
    assert fit.decision.shape == (3, 3, 2, 2, 48, 4)
    assert fit.not_converged() == []
    for layer, fold, which, c in [(0, 0, 0, 0), (2, 1, 1, 1), (1, 2, 0, 1)]:
        rows = folds[fold]
        scaler = StandardScaler().fit(X[layer, rows])
        train = scaler.transform(X[layer, rows])
        alone = fit_logistic(train, labels[which, rows], fit.C[c], tol=TIGHT)
        at = (layer, fold, which, c)
        assert alone.axes == ()
        assert close(fit.coef[at], alone.coef)
        logits = scaler.transform(X[layer]) @ alone.coef.T + alone.intercept
        np.testing.assert_allclose(fit.decision[at], logits, atol=1e-6)
        np.testing.assert_allclose(fit.mean[layer, fold], scaler.mean_, atol=1e-14)
    np.testing.assert_allclose(fit.decision_function(X), fit.decision, atol=1e-10)
    np.testing.assert_allclose(fit.predict_proba(X).sum(-1), 1)
    assert (fit.predict(X) == fit.decision.argmax(-1)).all()


def test_independent_of_batching(data):
    X, y = data
    masks = np.ones((4, 48), bool)
    for fold in range(4):
        masks[fold, fold::5] = False
    together = fit_logistic(X, y, [0.1, 10.0], train=masks, tol=TIGHT)
    apart = fit_logistic(X, y, [0.1, 10.0], train=masks, tol=TIGHT, memory_limit=1)
    np.testing.assert_allclose(together.coef, apart.coef, atol=1e-8)
    again = fit_logistic(X, y, [0.1, 10.0], train=masks, tol=TIGHT)
    np.testing.assert_array_equal(together.coef, again.coef)


def test_class_missing_from_a_fold(data):
    X, y = data
    masks = np.stack([y != 2, np.ones(48, bool), (y == 0) | (y == 3)])
    fit = fit_logistic(X[0], y, 0.5, train=masks, decision=True, tol=TIGHT)
    for fold, present in enumerate([[0, 1, 3], [0, 1, 2, 3], [0, 3]]):
        rows = masks[fold]
        reference = LogisticRegression(C=0.5, tol=1e-10, max_iter=10_000).fit(X[0, rows], y[rows])
        probability = fit.predict_proba(X[0])[fold]
        np.testing.assert_allclose(
            probability[:, present], reference.predict_proba(X[0]), atol=1e-5
        )
        absent = np.setdiff1d(range(4), present)
        assert (probability[:, absent] == 0).all()
        assert (fit.coef[fold, absent] == 0).all()
        assert np.isneginf(fit.intercept[fold, absent]).all()
        assert not np.isnan(fit.decision[fold]).any()


def test_sample_weights_count_copies(data):
    X, y = data
    weight = np.random.default_rng(1).integers(0, 3, 48)
    weight[:4] = 1
    fit = fit_logistic(X, y, 0.3, sample_weight=weight, tol=TIGHT)
    copies = np.repeat(np.arange(48), weight)
    repeated = fit_logistic(X[:, copies], y[copies], 0.3, tol=TIGHT)
    assert close(fit.coef, repeated.coef)
    np.testing.assert_allclose(fit.intercept, repeated.intercept, atol=1e-7)


@pytest.mark.parametrize(("samples", "lowest"), [(48, -8), (20, -3)])
def test_weights_over_many_magnitudes(data, samples, lowest):
    X, y = data
    X, y = X[0, :samples, :30], y[:samples]
    weight = 10.0 ** np.random.default_rng(2).uniform(lowest, 2, samples)
    fit = fit_logistic(X, y, 1.0, sample_weight=weight, tol=TIGHT)
    reference = LogisticRegression(solver="newton-cholesky", tol=1e-13, max_iter=1000)
    reference.fit(X, y, sample_weight=weight)
    assert close(fit.coef, reference.coef_, 1e-5)


@pytest.mark.parametrize("class_weight", ["balanced", {0: 5.0, 2: 0.25}])
def test_class_weight(data, class_weight):
    X, y = data
    keep = np.r_[0:30, 30 + np.flatnonzero(y[30:] == 1)]
    fit = fit_logistic(X[1, keep], y[keep], 0.2, class_weight=class_weight, tol=TIGHT)
    reference = LogisticRegression(C=0.2, class_weight=class_weight, tol=1e-10, max_iter=10_000)
    reference.fit(X[1, keep], y[keep])
    assert close(fit.coef, reference.coef_, 1e-4)


def test_without_intercept(data):
    X, y = data
    shifted = X[0] + 0.5
    fit = fit_logistic(shifted, y, 0.2, fit_intercept=False, tol=TIGHT)
    reference = LogisticRegression(C=0.2, fit_intercept=False, tol=1e-10, max_iter=10_000)
    assert close(fit.coef, reference.fit(shifted, y).coef_, 1e-4)
    assert (fit.intercept == 0).all()


def test_torch_in_torch_out_and_half_precision(data):
    X, y = data
    half = torch.from_numpy(X).half()
    fit = fit_logistic(half, torch.from_numpy(y), 1.0, decision=True)
    assert isinstance(fit.coef, torch.Tensor)
    assert fit.coef.dtype == torch.float64
    assert isinstance(fit.predict_proba(half), torch.Tensor)
    same = fit_logistic(half.double().numpy(), y, 1.0)
    np.testing.assert_allclose(fit.coef.numpy(), same.coef, atol=1e-10)


def test_layers_are_loaded_in_turn(data):
    X, y = data

    class Lazy:
        held = 0

        def __len__(self):
            return len(X)

        def __getitem__(self, layer):
            return X[layer]

    fit = fit_logistic(Lazy(), y, 1.0)
    np.testing.assert_array_equal(fit.coef, fit_logistic(X, y, 1.0).coef)
    assert fit.axes == ("layer",)


def test_string_labels_and_known_classes(data):
    X, y = data
    names = np.array(["A", "B", "D", "Y"])[y]
    fit = fit_logistic(X[0], names, classes=["A", "B", "C", "D", "Y"])
    assert list(fit.classes) == ["A", "B", "C", "D", "Y"]
    assert (fit.predict(X[0]) == names).mean() > 0.9
    assert np.isneginf(fit.intercept[2])


def test_constant_features_leave_the_class_frequencies():
    y = np.array([0] * 10 + [1] * 5 + [2] * 5)
    fit = fit_logistic(np.ones((20, 6)), y)
    assert fit.converged
    np.testing.assert_allclose(fit.predict_proba(np.ones((1, 6)))[0], [0.5, 0.25, 0.25], atol=1e-9)


def test_too_few_iterations_are_reported(data):
    X, y = data
    fit = fit_logistic(X, y, [1e-3, 100.0], max_iter=4)
    assert {"layer": 2, "C": 1} in fit.not_converged()
    assert (fit.relative_tolerance[~fit.converged] > 1e-7).all()


def test_threads_are_restored(data):
    X, y = data
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        fit_logistic(X[0], y, threads=1)
        assert torch.get_num_threads() == 2
        with pytest.raises(ProbeError):
            fit_logistic(X[0], y, train=[np.flatnonzero(y == 0)], threads=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@settings(max_examples=25, deadline=None)
@given(
    samples=st.integers(4, 30),
    features=st.integers(1, 40),
    classes=st.integers(2, 5),
    log_c=st.floats(-4, 4),
    seed=st.integers(0, 1000),
)
def test_gradient_vanishes_in_the_original_features(samples, features, classes, log_c, seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(samples, features)) * 10.0 ** rng.uniform(-2, 1, features)
    y = rng.permutation(np.arange(samples) % classes)
    classes = min(classes, samples)
    C = 10.0**log_c
    fit = fit_logistic(X, y, C)
    assert fit.converged
    residual = (fit.predict_proba(X) - np.eye(classes)[y]) / samples
    lam = (2 if classes == 2 else 1) / (C * samples)
    norm = np.linalg.norm(residual.T @ X + lam * fit.coef)
    scale = 1 + np.sqrt((X**2).sum(1).mean())
    assert norm <= max(2e-7 * lam * np.linalg.norm(fit.coef), 1e-12 * scale)


X_OK, Y_OK = np.random.default_rng(0).normal(size=(6, 3)), np.array([0, 1] * 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"X": np.full((6, 3), np.nan)}, "Layer 0 holds a value that is not finite"),
        ({"X": np.zeros(6)}, "dimensions"),
        ({"X": np.zeros((0, 6, 3))}, "no layers"),
        ({"X": [X_OK, X_OK[:5]]}, "Layer 1 has the shape"),
        ({"y": Y_OK[:5]}, "do not fit 6 samples"),
        ({"y": np.zeros(6)}, "at least two classes"),
        ({"classes": [0, 2]}, "Label .*1.* is not among"),
        ({"C": 0}, "positive"),
        ({"C": [1.0, -1.0]}, "positive"),
        ({"C": []}, "positive"),
        ({"train": [[0, 2, 4]]}, "Fold 0 has training samples of one class only"),
        ({"train": [[0, 1], []]}, "Fold 1 has no training samples"),
        ({"train": [[0, 9]]}, "outside 0..5"),
        ({"train": np.ones((2, 5), bool)}, "cover 5 samples"),
        ({"sample_weight": [1, -1, 1, 1, 1, 1]}, "negative"),
        ({"sample_weight": [1.0]}, "one weight per sample"),
        ({"class_weight": "even"}, "'balanced'"),
        ({"class_weight": {7: 1.0}}, "7"),
    ],
)
def test_refusals(arguments, message):
    arguments = {"X": X_OK, "y": Y_OK, **arguments}
    with pytest.raises(ProbeError, match=message):
        fit_logistic(arguments.pop("X"), arguments.pop("y"), **arguments)
