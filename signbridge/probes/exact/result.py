"""The result of a batch of logistic fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from signbridge.errors import ProbeError
from signbridge.probes.exact.inputs import real_tensor

Array: TypeAlias = Any
"""A NumPy array or a torch tensor: results are of the kind that the features were."""


@dataclass(frozen=True)
class LogisticFit:
    """Fitted probes, with a certificate for each.

    ``...`` stands for the axes named in ``axes``, in that order; an axis is there only if the input
    had it. Absent classes (classes without a training sample in a fit) have zero coefficients and
    the intercept -inf, so their probability is exactly 0. For two classes the two rows are each
    other's negative and their difference is scikit-learn's single row.

    Attributes:
        axes: of "layer", "fold", "labels", "C" those that the input had.
        classes: (classes,) the labels, sorted.
        C: (penalties,) inverse L2 strengths, as given.
        coef: (..., classes, features) float64, or None if not asked for.
        intercept: (..., classes) float64, centred over the classes of the fit; None with ``coef``.
        mean: (layer, fold, features) of the standardisation done inside the fit, else None; axes
            that the input had not are dropped here too.
        deviation: the deviation belonging to ``mean``.
        decision: (..., samples, classes) logits of all samples of the input, also of those outside
            the fit's training part; None if not asked for.
        gradient_norm: (...) Euclidean norm of the gradient of ``mean CE + lambda/2 ||W||^2`` at the
            returned parameters; of features smaller than 1 (root mean square norm of a sample) the
            intercept's part is taken times that norm, so that it is in their unit.
        relative_tolerance: (...) ``gradient_norm / ||lambda W||``, which bounds the relative error
            of the coefficients, as lambda bounds the curvature from below.
        converged: (...) bool: ``relative_tolerance <= tol``.
        n_iter: (...) iterations.
    """

    axes: tuple[str, ...]
    classes: NDArray[Any]
    C: NDArray[np.float64]
    coef: Array | None
    intercept: Array | None
    mean: Array | None
    deviation: Array | None
    decision: Array | None
    gradient_norm: Array
    relative_tolerance: Array
    converged: Array
    n_iter: Array

    def not_converged(self) -> list[dict[str, int]]:
        """The fits that were not solved, each as its index along every axis."""
        bad = np.argwhere(~np.asarray(torch.as_tensor(self.converged).cpu()))
        return [dict(zip(self.axes, map(int, index), strict=True)) for index in bad]

    def decision_function(self, X: Array) -> Array:
        """Logits (..., samples, classes) of new samples.

        Args:
            X: (samples, features), or (layer, samples, features) where the fit has layers; in the
                units of the features that were fitted.

        Raises:
            ProbeError: if the coefficients were not kept, or the shape does not fit.
        """
        if self.coef is None or self.intercept is None:
            raise ProbeError("The fit kept no coefficients: pass coef=True to fit_logistic.")
        coef, intercept = torch.as_tensor(self.coef), torch.as_tensor(self.intercept)
        data = real_tensor(X, "X").to(coef.device, torch.float64)
        layered = "layer" in self.axes
        shape_fits = data.shape[-1] == coef.shape[-1] and data.ndim == 2 + layered
        if not shape_fits or (layered and len(data) != len(coef)):
            raise ProbeError(
                f"Features of shape {tuple(data.shape)} do not fit coefficients of shape "
                f"{tuple(coef.shape)}: pass (layers, samples, features) as in the fit."
            )
        if layered and "fold" in self.axes:
            data = data[:, None]
        if self.mean is not None and self.deviation is not None:
            mean, deviation = torch.as_tensor(self.mean), torch.as_tensor(self.deviation)
            data = (data - mean[..., None, :]) / deviation[..., None, :]
        for _ in range(coef.ndim - data.ndim):
            data = data.unsqueeze(-3)
        logits = data @ coef.mT + intercept[..., None, :]
        return like(logits, X)

    def predict_proba(self, X: Array) -> Array:
        """Class probabilities (..., samples, classes) of new samples; see decision_function."""
        logits = torch.as_tensor(self.decision_function(X))
        return like(torch.softmax(logits, -1), X)

    def predict(self, X: Array) -> NDArray[Any]:
        """Labels (..., samples) of new samples; see decision_function."""
        logits = torch.as_tensor(self.decision_function(X))
        labels: NDArray[Any] = self.classes[logits.argmax(-1).cpu().numpy()]
        return labels


def like(tensor: Tensor, example: Array) -> Array:
    """``tensor`` as the kind of array that ``example`` is."""
    return tensor if isinstance(example, Tensor) else tensor.cpu().numpy()
