"""The solver at the edges of what float64 holds, and with input of every layout."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from signbridge.errors import ProbeError
from signbridge.probes.exact.estimator import LogisticProbe
from signbridge.probes.exact.logistic import fit_logistic

CLASSES, SAMPLES, FEATURES = 4, 60, 20


def make(noise: float = 1.5, distance: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(SAMPLES) % CLASSES)
    centres = distance * rng.normal(size=(CLASSES, FEATURES))
    return centres[y] + noise * rng.normal(size=(SAMPLES, FEATURES)), y


X, Y = make()


def relative_tolerance(fit, X, y, C):
    """The certificate, computed anew in long doubles from coefficients in the features' units.

    The intercept's part counts as much as the features', where those are smaller than 1.
    """
    X = X.astype(np.longdouble)
    logits = X @ fit.coef.astype(np.longdouble).T + fit.intercept
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    own = np.arange(len(y)), y
    p[own] = 0
    p[own] = -p.sum(1)
    centred = X - X.mean(0)
    pull = fit.coef / (np.longdouble(C) * len(y))
    size = min(1.0, float(np.sqrt((centred**2).sum(1).mean())))
    parts = np.append((p.T @ centred / len(y) + pull).ravel(), size * p.mean(0))
    return float(np.sqrt((parts**2).sum() / (pull**2).sum()))


VIEWS = {
    "rows in reverse": (lambda a: a[::-1].copy()[::-1]),
    "columns in reverse": (lambda a: a[:, ::-1].copy()[:, ::-1]),
    "Fortran's order": np.asfortranarray,
    "every other row": (lambda a: np.repeat(a, 2, 0)[::2]),
    "big-endian": (lambda a: a.astype(">f8")),
    "long double": (lambda a: a.astype(np.longdouble)),
    "objects": (lambda a: a.astype(object)),
    "lists": (lambda a: a.tolist()),
}


@pytest.mark.parametrize("view", VIEWS)
def test_views_and_byte_orders_give_the_same(view):
    expected = fit_logistic(X, Y)
    fit = fit_logistic(VIEWS[view](X), Y)
    np.testing.assert_allclose(fit.coef, expected.coef, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(fit.predict_proba(VIEWS[view](X)), expected.predict_proba(X), 1e-6)


@pytest.mark.parametrize("kind", [">i4", "uint16", "int8", "bool"])
def test_whole_numbers_are_taken(kind):
    whole = (10 * X + 100).clip(0, 127).astype(kind)
    expected = fit_logistic(whole.astype(float), Y).coef
    np.testing.assert_allclose(fit_logistic(whole, Y).coef, expected, rtol=1e-6, atol=1e-9)


def test_labels_weights_and_layers_of_any_layout():
    weight = np.random.default_rng(1).uniform(size=SAMPLES)
    expected = fit_logistic(X, Y, sample_weight=weight).coef
    layers = np.stack([X, X])[::-1]
    big = fit_logistic(layers, Y.astype(">i4"), sample_weight=weight[::-1].copy()[::-1])
    np.testing.assert_allclose(big.coef[1], expected, rtol=1e-6, atol=1e-9)
    nested = fit_logistic([X.tolist(), X.tolist()], Y, sample_weight=weight.astype(">f8"))
    np.testing.assert_allclose(nested.coef[0], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("data", "C"),
    [
        ((1.5, 1.0), 1e6),
        ((1.5, 1.0), 1e8),
        ((1.5, 1.0), 1e12),
        ((0.05, 5.0), 1.0),
        ((0.05, 5.0), 1e4),
        ((0.05, 5.0), 1e8),
        ((0.05, 5.0), 1e12),
    ],
)
@pytest.mark.parametrize("samples", [15, SAMPLES])
def test_converged_is_the_certificate(data, C, samples):
    """Tiny objectives too: classes that separate, and penalties that hardly pull."""
    points, y = make(*data)
    points, y = points[:samples], y[:samples]
    fit = fit_logistic(points, y, C)
    assert bool(fit.converged) == (fit.relative_tolerance <= 1e-7)
    assert fit.n_iter < 2000
    if C <= 1e8:
        assert fit.converged
        assert relative_tolerance(fit, points, y, C) <= 1.1e-7


def objective(W, b, X, y, C):
    rows = log_softmax(X @ W.T + b, 1)[np.arange(len(y)), y]
    return -rows.mean() + (W**2).sum() / (2 * C * len(y))


@pytest.mark.parametrize("C", [1e4, 1e8, 1e12])
def test_separable_classes_reach_sklearns_optimum(C):
    points, y = make(0.05, 5.0)
    fit = fit_logistic(points, y, C)
    reference = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-12, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference.fit(points, y)
    best = objective(reference.coef_, reference.intercept_, points, y, C)
    assert objective(fit.coef, fit.intercept, points, y, C) <= best * (1 + 1e-6)


@pytest.mark.parametrize("factor", [1e-150, 1e-40, 1e-20, 1e-8, 1e8, 1e20, 1e40, 1e60])
def test_units_do_not_matter(factor):
    """Features times a, and C over its square: the same problem."""
    expected = fit_logistic(X, Y, 1.0, tol=1e-9)
    fit = fit_logistic(X * factor, Y, 1.0 / factor / factor, tol=1e-9)
    assert fit.converged
    np.testing.assert_allclose(fit.coef * factor, expected.coef, rtol=1e-6)
    np.testing.assert_allclose(fit.intercept, expected.intercept, rtol=1e-6)


@pytest.mark.parametrize("factor", [1e-150, 1e-40, 1e-20, 1e-8])
def test_small_features_under_a_strong_penalty(factor):
    """To the first order W is the penalty's inverse times the covariance with the classes."""
    fit = fit_logistic(X * factor, Y)
    assert fit.converged
    centred = X - X.mean(0)
    first_order = (np.eye(CLASSES)[Y] - 1 / CLASSES).T @ centred * factor
    np.testing.assert_allclose(fit.coef, first_order, rtol=1e-6 if factor < 1e-8 else 1e-3)


@pytest.mark.parametrize("factor", [1e8, 1e20, 1e40, 1e100])
def test_large_features_end_soon_and_say_so(factor):
    fit = fit_logistic(X * factor, Y)
    assert bool(fit.converged) == (fit.relative_tolerance <= 1e-7)
    assert fit.n_iter < 2000
    assert np.isfinite(fit.coef).all()
    unpenalised = fit_logistic(X, Y, 1e10)
    np.testing.assert_allclose(
        fit.predict_proba(X * factor), unpenalised.predict_proba(X), atol=1e-4
    )
    with pytest.warns(ConvergenceWarning, match="float64 lets it come no closer"):
        LogisticProbe().fit(X * factor, Y)


@pytest.mark.parametrize("samples", [15, SAMPLES])
@pytest.mark.parametrize("magnitudes", [20, 60, 250])
def test_columns_over_many_magnitudes(samples, magnitudes):
    scale = 10.0 ** np.linspace(-magnitudes / 2, magnitudes / 2, FEATURES)
    wide, y = X[:samples] * scale, Y[:samples]
    with pytest.raises(ProbeError, match=r"sizes from .* to .*standardise them"):
        fit_logistic(wide, y)
    fit = fit_logistic(wide, y, standardise=True)
    assert fit.converged
    same = fit_logistic(X[:samples], y, standardise=True)
    np.testing.assert_allclose(fit.predict_proba(wide), same.predict_proba(X[:samples]), atol=1e-6)


def test_columns_that_cannot_matter_do_no_harm():
    """Constants with rounding, and values near the smallest beside massive ones."""
    dead = np.random.default_rng(2).normal(size=(SAMPLES, 2)) * 1e-30
    constant = 0.1 * np.ones((SAMPLES, 1)) + np.spacing(0.1) * (np.arange(SAMPLES)[:, None] % 2)
    large = 1e4 * X[:, :1]
    fit = fit_logistic(np.hstack([X[:, 1:], large, dead, constant]), Y)
    without = fit_logistic(np.hstack([X[:, 1:], large]), Y)
    assert fit.converged
    np.testing.assert_allclose(fit.coef[:, :FEATURES], without.coef, rtol=1e-5, atol=1e-9)


def test_streamed_fits_choose_the_same_unit(monkeypatch):
    from signbridge.probes.exact import fitter

    expected = fit_logistic(X * 1e30, Y, 1e-60, decision=True)
    monkeypatch.setattr(fitter, "is_rotated", lambda *_: False)
    fit = fit_logistic(X * 1e30, Y, 1e-60, decision=True)
    assert fit.converged
    np.testing.assert_allclose(fit.coef, expected.coef, rtol=1e-5)
    np.testing.assert_allclose(fit.decision, expected.decision, rtol=1e-5)
    with pytest.raises(ProbeError, match="standardise them"):
        fit_logistic(X * 10.0 ** np.linspace(-30, 30, FEATURES), Y)


REFUSED = [
    ({"X": X + 1j}, "Layer 0 is of the type complex128: pass real numbers"),
    ({"X": torch.tensor(X + 0j)}, "Layer 0 is of the type torch.complex128"),
    ({"X": X.astype(str)}, "Layer 0 is of the type <U"),
    ({"X": X.astype("M8[s]")}, "Layer 0 is of the type datetime64"),
    ({"X": np.ma.masked_less(X, 0)}, "Layer 0 has masked values"),
    ({"X": [[1.0], [1.0, 2.0]]}, "rows of different lengths"),
    ({"X": [X[None], X[None]]}, "Features have 4 dimensions"),
    ({"X": X * 1e200}, r"Layer 0 holds values as large as .*e\+200"),
    ({"X": np.sign(X) * 1.7e308}, r"Layer 0 holds values as large as 2e\+308"),
    ({"X": X * 1e200, "standardise": True}, "divide the features"),
    ({"y": np.array([0, "a"] * 30, dtype=object)}, "no order among them"),
    ({"y": np.where(Y == 0, np.nan, Y)}, "The labels hold a value that is not finite"),
    ({"C": 1j}, "C is 1j"),
    ({"C": "strong"}, "C is 'strong'"),
    ({"C": None}, "C is None"),
    ({"C": 1e-320}, "beyond float64: choose a larger C"),
    ({"class_weight": {0: -1.0}}, "class_weight gives 0 the weight -1.0"),
    ({"class_weight": {0: np.inf}}, "class_weight gives 0 the weight inf"),
    ({"class_weight": {0: np.nan}}, "class_weight gives 0 the weight nan"),
    ({"class_weight": {0: "x"}}, "class_weight gives 0 the weight 'x'"),
    ({"class_weight": [1, 2]}, r"class_weight is \[1, 2\]"),
    ({"class_weight": dict.fromkeys(range(CLASSES), 0)}, "without training samples"),
    ({"class_weight": dict.fromkeys(range(CLASSES), 1e308)}, "sum overflows"),
    ({"sample_weight": np.full(SAMPLES, 1j)}, "sample_weight is of the type complex128"),
    ({"sample_weight": np.full(SAMPLES, 1e308)}, "sum of sample_weight overflows"),
    ({"train": []}, "train holds no folds"),
    ({"train": np.zeros((0, SAMPLES), bool)}, "train holds no folds"),
    ({"train": [0, 1, 2]}, "train is no list of folds"),
    ({"train": 5}, "train is no list of folds"),
    ({"train": [[0.5, 1]]}, "A fold holds values of the type float64"),
    ({"train": [["a"]]}, "A fold holds values of the type <U1"),
    ({"threads": 0}, "threads is 0: pass a whole number, 1 to 1024"),
    ({"threads": 1.5}, "threads is 1.5"),
    ({"threads": 10**6}, "threads is 1000000"),
    ({"device": "gpu"}, "device is 'gpu'"),
    ({"device": "cuda:99"}, "device is 'cuda:99'"),
    ({"device": "meta"}, "device is 'meta'"),
    ({"device": 1.5}, "device is 1.5"),
    ({"tol": np.nan}, "tol is nan"),
    ({"tol": -1.0}, "tol is -1.0"),
    ({"tol": None}, "tol is None"),
    ({"max_iter": 0}, "max_iter is 0"),
    ({"max_iter": 1.5}, "max_iter is 1.5"),
    ({"memory_limit": 0}, "memory_limit is 0"),
    ({"seed": -1}, "seed is -1"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), REFUSED, ids=lambda v: v if type(v) is str else ""
)
def test_refusals(arguments, message):
    given = {"X": X, "y": Y, **arguments}
    with pytest.raises(ProbeError, match=message) as refusal:
        fit_logistic(given.pop("X"), given.pop("y"), **given)
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).endswith(".")


@pytest.mark.parametrize(
    "options",
    [
        {"tol": np.nan},
        {"threads": 0},
        {"device": "gpu"},
        {"class_weight": {0: -1.0}},
        {"C": "strong"},
        {"C": [1.0, 2.0]},
        {"max_iter": 0},
    ],
)
def test_the_estimator_refuses_as_sklearn_does(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name} (is|gives)"):
        LogisticProbe(**options).fit(X, Y)


def test_new_samples_of_any_layout():
    fit = fit_logistic(X, Y)
    with pytest.raises(ProbeError, match="X is of the type complex128"):
        fit.predict(X + 1j)
    assert (fit.predict(X[::-1])[::-1] == fit.predict(X)).all()
