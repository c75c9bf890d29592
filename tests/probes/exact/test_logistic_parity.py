"""The solver reaches scikit-learn's optimum, over shapes, penalties and awkward data."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from signbridge.probes.exact.logistic import fit_logistic


def make(samples, features, classes, kind="plain", seed=0):
    """Standardised features (samples, features) and labels with every class present."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(samples) % classes)
    if kind == "imbalanced":
        y = np.where(rng.random(samples) < 0.7, 0, y)
        y[:classes] = np.arange(classes)
    noise = 0.05 if kind == "separable" else 1.5
    X = rng.normal(size=(classes, features))[y] + noise * rng.normal(size=(samples, features))
    if kind == "outliers":
        X[:, :2] *= rng.standard_t(1.1, size=(samples, 2)) * 100
    if kind == "duplicates":
        X[:, features // 2 :] = X[:, : features - features // 2]
        X[samples // 2 :] = X[: samples - samples // 2]
    if kind == "constant":
        X[:, ::3] = 4.0
    deviation = X.std(0)
    return (X - X.mean(0)) / np.where(deviation < 1e-12, 1, deviation), y


def objective(W, b, X, y, C):
    return -log_softmax(X @ W.T + b, 1)[np.arange(len(y)), y].mean() + (W**2).sum() / (
        2 * C * len(y)
    )


def gradient(W, b, X, y, C):
    """Gradient of the mean objective in the original features, and the penalty's part of it."""
    residual = (softmax(X @ W.T + b, axis=1) - np.eye(len(b))[y]) / len(y)
    pull = W / (C * len(y))
    return np.hypot(np.linalg.norm(residual.T @ X + pull), np.linalg.norm(residual.sum(0))), pull


KINDS = ["plain", "separable", "imbalanced", "outliers", "duplicates", "constant"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("samples", "features"), [(40, 90), (120, 25), (60, 60)])
def test_optimum_over_data(kind, samples, features):
    X, y = make(samples, features, 4, kind)
    for C in (1e-4, 1e-2, 1.0, 100.0):
        fit = fit_logistic(X, y, C, tol=1e-8)
        assert fit.converged
        norm, pull = gradient(fit.coef, fit.intercept, X, y, C)
        floor = 4e-13 * np.sqrt((X**2).sum(1).mean() + 1)
        assert norm <= max(2e-8 * np.linalg.norm(pull), floor)
        reference = LogisticRegression(C=C, tol=1e-10, max_iter=100_000).fit(X, y)
        assert objective(fit.coef, fit.intercept, X, y, C) <= (
            objective(reference.coef_, reference.intercept_, X, y, C) + 1e-14
        )
        # 1e-10 stops scikit-learn at gradients near 1e-8: its error, by strong convexity, is
        # at most gradient / lambda.
        own, _ = gradient(reference.coef_, reference.intercept_, X, y, C)
        error = np.linalg.norm(fit.coef - reference.coef_)
        assert error <= 1.01 * own * C * samples + 1e-7 * np.linalg.norm(fit.coef)
        assert error <= 2e-3 * np.linalg.norm(fit.coef)
        np.testing.assert_allclose(fit.predict_proba(X), reference.predict_proba(X), atol=2e-5)


@pytest.mark.parametrize(
    ("samples", "features", "classes"), [(40, 60, 2), (90, 20, 2), (40, 50, 10), (200, 12, 24)]
)
@pytest.mark.parametrize("C", [1e-4, 1e-1, 10.0, 1e3])
def test_coefficients_against_newton(samples, features, classes, C):
    """Newton's method ends far closer to the optimum than scikit-learn's L-BFGS."""
    X, y = make(samples, features, classes)
    fit = fit_logistic(X, y, C, tol=1e-9)
    reference = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-13, max_iter=500)
    reference.fit(X, y)
    W, b = fit.coef, fit.intercept
    if classes == 2:
        W, b = W[1:] - W[:1], b[1:] - b[:1]
    scale = np.linalg.norm(reference.coef_)
    assert np.linalg.norm(W - reference.coef_) <= 1e-6 * scale
    centred = reference.intercept_ - (reference.intercept_.mean() if classes > 2 else 0)
    np.testing.assert_allclose(b, centred, atol=1e-5 * max(1.0, scale))
    np.testing.assert_allclose(fit.predict_proba(X), reference.predict_proba(X), atol=1e-7)


def test_strongest_and_weakest_penalty_in_one_path():
    X, y = make(50, 80, 5)
    C = [1e5, 1e-4, 1.0, 1e3]  # the order given is kept
    path = fit_logistic(X, y, C, tol=1e-9)
    assert path.converged.all()
    for i, c in enumerate(C):
        alone = fit_logistic(X, y, c, tol=1e-9)
        error = np.linalg.norm(path.coef[i] - alone.coef) / np.linalg.norm(alone.coef)
        assert error <= max(2e-9, 4 * max(path.relative_tolerance[i], alone.relative_tolerance))


@pytest.mark.parametrize(("samples", "features"), [(120, 80), (80, 120)])
@pytest.mark.parametrize(
    ("memory_limit", "fold_features", "cache"),
    [(1 << 30, 1024, 1 << 30), (1 << 30, 1024, 1), (1 << 30, 0, 1 << 30), (1, 1024, 1)],
)
@pytest.mark.parametrize("intercept", [True, False])
def test_streamed_equals_rotated(
    samples, features, memory_limit, fold_features, cache, intercept, monkeypatch
):
    """The ways for large data, forced onto small data: folds of one copy, together and in turn."""
    from signbridge.probes.exact import design, fitter, jobs

    X, y = make(samples, features, 4)
    X = X.astype(np.float32) * 3 + 1
    part = np.random.default_rng(0).integers(4, size=samples)
    options = {
        "train": [np.flatnonzero(part != k) for k in (1, 2, 3)],
        "sample_weight": 1 + (np.arange(samples) % 3),
        "fit_intercept": intercept,
        "standardise": samples > features,
        "decision": True,
        "tol": 1e-9,
    }
    expected = fit_logistic(X, y, [0.01, 10.0], **options)
    monkeypatch.setattr(fitter, "is_rotated", lambda *_: False)
    monkeypatch.setattr(fitter, "_CACHE_BYTES", cache)
    monkeypatch.setattr(jobs, "_FOLD_FEATURES", fold_features)
    monkeypatch.setattr(design, "_RANK", 16)
    monkeypatch.setattr(design, "_BLOCK_BYTES", 8 * features * 33)
    streamed = fit_logistic(X, y, [0.01, 10.0], memory_limit=memory_limit, **options)
    assert expected.converged.all()
    assert streamed.converged.all()
    for at in np.ndindex(3, 2):
        scale = np.linalg.norm(expected.coef[at])
        assert np.linalg.norm(streamed.coef[at] - expected.coef[at]) <= 1e-8 * scale
    np.testing.assert_allclose(streamed.decision, expected.decision, atol=1e-6)
    np.testing.assert_allclose(streamed.decision_function(X), streamed.decision, atol=1e-9)


def test_one_layers_features_are_held_at_a_time(monkeypatch):
    """Large data's converted copies are most of the memory that a sweep takes."""
    from signbridge.probes.exact import fitter, jobs

    monkeypatch.setattr(fitter, "is_rotated", lambda *_: False)
    made, alive = [], []

    def watched(*arguments):
        alive.append(sum(layer() is not None for layer in made))
        layer = jobs.StreamedLayer(*arguments)
        made.append(weakref.ref(layer))
        return layer

    monkeypatch.setattr(fitter, "StreamedLayer", watched)
    X, y = make(60, 20, 3)
    parts = [np.arange(40), np.arange(20, 60), np.arange(0, 60, 2)]
    fit = fit_logistic(np.stack([X, X[::-1]]), y, 1.0, train=parts, standardise=True)
    assert fit.converged.all()
    assert alive == [0, 0]


@pytest.mark.slow
def test_streamed_at_its_own_size():
    X, y = make(2600, 1100, 10)
    fit = fit_logistic(X, y, 1.0, tol=1e-8)
    norm, pull = gradient(fit.coef, fit.intercept, X, y, 1.0)
    assert fit.converged
    assert norm <= 2e-8 * np.linalg.norm(pull)
