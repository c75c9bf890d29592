"""LogisticProbe as scikit-learn sees it."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from signbridge.probes.exact.estimator import LogisticProbe


@parametrize_with_checks([LogisticProbe()])
def test_sklearn_compatible(estimator, check):
    check(estimator)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 3.0}])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_equals_logistic_regression(classes, class_weight, fit_intercept):
    X, y = load_iris(return_X_y=True)
    X, y = X[y < classes][:-20], y[y < classes][:-20]
    weight = np.random.default_rng(0).uniform(0, 2, len(y))
    options = {"C": 0.7, "class_weight": class_weight, "fit_intercept": fit_intercept}
    ours = LogisticProbe(tol=1e-10, **options).fit(X, y, sample_weight=weight)
    reference = LogisticRegression(solver="newton-cholesky", tol=1e-12, max_iter=1000, **options)
    reference.fit(X, y, sample_weight=weight)
    assert ours.coef_.shape == reference.coef_.shape
    np.testing.assert_allclose(ours.coef_, reference.coef_, atol=1e-7)
    np.testing.assert_allclose(ours.intercept_, reference.intercept_, atol=1e-6)
    np.testing.assert_allclose(ours.predict_proba(X), reference.predict_proba(X), atol=1e-8)
    np.testing.assert_allclose(ours.decision_function(X), reference.decision_function(X), atol=1e-6)
    assert ours.converged_


def test_string_labels():
    X, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    probe = LogisticProbe().fit(X, names)
    assert list(probe.classes_) == ["setosa", "versicolor", "virginica"]
    assert probe.score(X, names) > 0.95


def test_stopping_early_is_said():
    X, y = load_iris(return_X_y=True)
    with pytest.warns(ConvergenceWarning, match="stopped after 3 iterations"):
        probe = LogisticProbe(max_iter=3).fit(X, y)
    assert not probe.converged_


@pytest.mark.parametrize("C", [0.0, -1.0, np.nan, np.inf])
def test_impossible_penalty(C):
    with pytest.raises(ValueError, match="positive"):
        LogisticProbe(C=C).fit(*load_iris(return_X_y=True))
