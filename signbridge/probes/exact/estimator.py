"""The exact logistic solver as a scikit-learn estimator."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from signbridge.errors import ProbeError
from signbridge.probes.exact.logistic import fit_logistic


class LogisticProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """L2 multinomial logistic regression, solved to a certified optimum.

    The minimiser is that of ``sklearn.linear_model.LogisticRegression`` with the same ``C``,
    ``fit_intercept`` and ``class_weight`` and a tolerance so tight that it no longer matters.
    Features should be standardised, as for any penalised model.

    Args:
        C: inverse of the L2 penalty's strength, above 0.
        class_weight: weights by label, ``"balanced"``, or None for 1.
        fit_intercept: whether an unpenalised intercept is fitted.
        tol: bound on the relative error of the coefficients (see ``relative_tolerance_``).
        max_iter: most iterations.
        device: torch device of the computation, e.g. ``"cuda"``; None is the CPU.
        threads: CPU threads during the fit; None leaves torch's setting.

    Attributes:
        classes_: (classes,) labels, sorted.
        coef_: (classes, features), or (1, features) for two classes.
        intercept_: (classes,), or (1,) for two classes.
        n_iter_: (1,) iterations.
        relative_tolerance_: gradient norm over the norm of the penalty's gradient.
        converged_: whether ``relative_tolerance_`` is ``tol`` or less.
        n_features_in_: features seen in ``fit``.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> round(LogisticProbe(C=1.0).fit(X, y).score(X, y), 3)
        0.973
    """

    def __init__(
        self,
        C: float = 1.0,
        *,
        class_weight: Mapping[Any, float] | str | None = None,
        fit_intercept: bool = True,
        tol: float = 1e-7,
        max_iter: int = 5000,
        device: str | None = None,
        threads: int | None = 1,
    ) -> None:
        self.C = C
        self.class_weight = class_weight
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.device = device
        self.threads = threads

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> LogisticProbe:
        """Fit to ``X`` (samples, features) and ``y`` (samples,).

        Raises:
            ValueError: for input that scikit-learn refuses too (not finite, one class, ...).
        """
        if np.ndim(self.C) > 0 or not isinstance(self.C, Real):
            raise ValueError(f"C is {self.C!r}: pass a positive finite number.")
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        self.classes_: NDArray[Any] = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError(
                f"LogisticProbe needs samples of at least 2 classes, but the data holds only one "
                f"class: {self.classes_[0]!r}"
            )
        if sample_weight is not None:
            sample_weight = _check_sample_weight(
                sample_weight, X, dtype=np.float64, ensure_non_negative=True
            )
        try:
            fit = fit_logistic(
                X,
                y,
                float(self.C),
                sample_weight=sample_weight,
                class_weight=self.class_weight,
                fit_intercept=self.fit_intercept,
                tol=self.tol,
                max_iter=self.max_iter,
                device=self.device,
                threads=self.threads,
            )
        except ProbeError as error:
            raise ValueError(str(error)) from error
        self.coef_: NDArray[np.float64] = np.asarray(fit.coef)
        self.intercept_: NDArray[np.float64] = np.asarray(fit.intercept)
        if len(self.classes_) == 2:
            self.coef_ = self.coef_[1:] - self.coef_[:1]
            self.intercept_ = self.intercept_[1:] - self.intercept_[:1]
        self.n_iter_ = np.atleast_1d(fit.n_iter)
        self.relative_tolerance_ = float(fit.relative_tolerance)
        self.converged_ = bool(fit.converged)
        if not self.converged_:
            early = self.n_iter_[0] < self.max_iter
            advice = (
                "float64 lets it come no closer: standardise the features, lower C or raise tol."
                if early
                else "raise max_iter or tol."
            )
            warnings.warn(
                f"LogisticProbe stopped after {int(self.n_iter_[0])} iterations at a relative "
                f"tolerance of {self.relative_tolerance_:.1e}: {advice}",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Logits (samples, classes), or (samples,) of the second class for two classes."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        logits: NDArray[np.float64] = X @ self.coef_.T + self.intercept_
        return logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Class probabilities (samples, classes)."""
        logits = self.decision_function(X)
        if logits.ndim == 1:
            return np.stack([expit(-logits), expit(logits)], axis=1)
        probability: NDArray[np.float64] = softmax(logits, axis=1)
        return probability

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Labels (samples,)."""
        logits = self.decision_function(X)
        index = (logits > 0).astype(int) if logits.ndim == 1 else logits.argmax(axis=1)
        labels: NDArray[Any] = self.classes_[index]
        return labels
