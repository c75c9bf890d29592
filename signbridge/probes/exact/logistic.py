"""Exact L2 multinomial logistic regression over layers, folds, label vectors and penalties."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from signbridge.probes.exact.fitter import Fitter
from signbridge.probes.exact.inputs import (
    Layers,
    class_weights,
    encode_labels,
    penalties,
    thread_number,
    training_weights,
)
from signbridge.probes.exact.jobs import Settings
from signbridge.probes.exact.result import Array, LogisticFit, like
from signbridge.runtime.threads import cpu_threads


def fit_logistic(
    X: Array,
    y: ArrayLike | Tensor,
    C: float | Sequence[float] = 1.0,
    *,
    train: Any = None,
    sample_weight: ArrayLike | Tensor | None = None,
    class_weight: Mapping[Any, float] | str | None = None,
    classes: ArrayLike | None = None,
    standardise: bool = False,
    fit_intercept: bool = True,
    tol: float = 1e-7,
    max_iter: int = 5000,
    coef: bool = True,
    decision: bool = False,
    device: torch.device | str | None = None,
    threads: int | None = 1,
    memory_limit: int = 2 << 30,
    seed: int = 0,
    solved: Callable[[float], None] | None = None,
) -> LogisticFit:
    """Fit L2 multinomial logistic probes to a certified optimum.

    Each fit minimises ``sum_i w_i CE_i / sum_i w_i + lambda / 2 * ||W||^2`` with
    ``lambda = 1 / (C * sum_i w_i)`` and a free intercept: the objective of scikit-learn's
    ``LogisticRegression``. Where exactly two classes have training samples it is scikit-learn's
    binary objective, whose single row is the difference of the two rows returned here.

    Up to 1,024 training samples (up to 2,048 if no more than features, where penalties or label
    vectors share the work) are solved in the eigenbasis of the row space or of the features. Of
    more samples all folds share one copy, in blocks of rows: in an eigenbasis for each fold up to
    1,024 features, with a Nystroem preconditioner beyond. All use Newton's method with conjugate
    gradients; its directions are computed in float32, and a fit is done when its gradient, computed
    in float64, says so.

    Args:
        X: features, (samples, features) or (layers, samples, features), NumPy or torch of any
            floating type, or a sequence of layers each loaded only when its turn comes.
            Standardised already, unless ``standardise`` is set.
        y: labels (samples,), or several label vectors (labels, samples).
        C: inverse penalty, or a list; a list is solved from strong to weak, each from the last.
        train: training parts of the folds, as a boolean array (folds, samples) or a sequence of
            index arrays; all samples, without a fold axis, by default.
        sample_weight: (samples,) non-negative.
        class_weight: weights by label, or ``"balanced"`` (over the classes present in each fold).
        classes: all labels that may occur; those in ``y`` by default.
        standardise: standardise inside each fold with its training part's mean and deviation.
        fit_intercept: whether an unpenalised intercept is fitted.
        tol: a fit has converged when ``||gradient|| <= tol * ||lambda W||``; then the relative
            error of W is at most about ``tol``. A very large C can put this out of float64's
            reach: the fit then ends where rounding has the last word, and is not converged.
        max_iter: most iterations of a fit: of conjugate gradients, and one for every Newton step.
        coef: whether to return coefficients.
        decision: whether to return the logits of all samples, those held out included. With
            ``coef=False`` this spares the memory of (fits, classes, features).
        device: torch device of the computation; that of ``X`` by default.
        threads: CPU threads during the call (restored afterwards); None leaves torch's setting.
            Many small fits are as fast on one thread as on several.
        memory_limit: bytes for converted features and the batch's arrays; on top come one layer
            as stored, the result, and up to about 300 MB of row blocks for large fits.
        seed: of the Nystroem sketch.
        solved: called with the share of the fits that has been solved since the last call.

    Returns:
        The fits, in arrays of the kind that ``X`` is.

    Raises:
        ProbeError: for features that are not finite, shapes that do not fit together, a fold with
            training samples of one class only, or a value out of its range.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> X, y = rng.normal(size=(3, 40, 100)), np.arange(40) % 4
        >>> fit = fit_logistic(X, y, [0.1, 1.0])
        >>> fit.axes, fit.coef.shape, bool(fit.converged.all())
        (('layer', 'C'), (3, 2, 4, 100), True)
    """
    layers = Layers(X, device)
    known, codes, many = encode_labels(y, layers.samples, classes)
    weight, folded = training_weights(train, sample_weight, layers.samples)
    values, path = penalties(C)
    settings = Settings(
        C=values.tolist(),
        fit_intercept=fit_intercept,
        standardise=standardise,
        tol=tol,
        max_iter=max_iter,
        coef=coef,
        decision=decision,
        memory_limit=memory_limit,
        seed=seed,
    )
    weights = class_weights(class_weight, known, codes, weight)
    threads = thread_number(threads)
    fitter = Fitter(layers, codes, weights, len(known), settings, solved)
    with torch.no_grad(), cpu_threads(threads if layers.device.type == "cpu" else None):
        fitter.run()
    had = {"layer": layers.layered, "fold": folded, "labels": many, "C": path}
    pick = tuple(slice(None) if there else 0 for there in had.values())
    example = torch.empty(0) if layers.torch else 0

    def give(tensor: Tensor | None, index: tuple[Any, ...] = pick) -> Array | None:
        return None if tensor is None else like(tensor[index], example)

    return LogisticFit(
        axes=tuple(name for name, there in had.items() if there),
        classes=known,
        C=values,
        coef=give(fitter.coef),
        intercept=give(fitter.intercept),
        mean=give(fitter.mean, pick[:2]),
        deviation=give(fitter.deviation, pick[:2]),
        decision=give(fitter.decision),
        gradient_norm=give(fitter.gradient_norm),
        relative_tolerance=give(fitter.gradient_norm / fitter.penalty_norm.clamp_min(1e-300)),
        converged=give(fitter.converged),
        n_iter=give(fitter.n_iter),
    )
