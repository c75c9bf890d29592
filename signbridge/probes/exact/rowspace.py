"""Rotate a layer's features into the eigenbasis in which its logistic fits are solved.

With n training samples and D features the minimiser lies in the span of the centred training
samples (representer theorem), so n <= D is solved exactly in at most n - 1 dimensions, and n > D in
D. In both cases the columns of the rotated matrix are orthogonal under the sample weights, which
makes a diagonal preconditioner a good one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_RANK = 1e-13  # eigenvalues of the Gram matrix below this share of the largest are rounding
_ILL_CONDITIONED = 1e-7  # below this share squaring the features costs too many digits: use QR


@dataclass(frozen=True)
class EigenBasis:
    """Coordinates of samples in the eigenbasis, and the way back to features.

    Attributes:
        Z: (n, r) coordinates of the training samples.
        spectrum: (r,) weighted mean square of every column of ``Z``.
        back: (r, n) if ``dual`` (times the centred training samples), else (r, D).
        dual: whether ``back`` is to be multiplied with the centred training samples.
    """

    Z: Tensor
    spectrum: Tensor
    back: Tensor
    dual: bool

    def coordinates(self, other: Tensor, X: Tensor) -> Tensor:
        """Coordinates (m, r) of other centred samples (m, D)."""
        return (other @ X.mT if self.dual else other) @ self.back.mT


def eigenbasis(X: Tensor, weight: Tensor) -> EigenBasis:
    """Eigenbasis of centred training samples.

    Args:
        X: (n, D) float64, centred under ``weight``.
        weight: (n,) positive sample weights that sum to one.
    """
    n, features = X.shape
    if n > features:
        values, vectors = torch.linalg.eigh((X * weight[:, None]).mT @ X)
        return EigenBasis(X @ vectors, values.clamp_min(0), vectors.mT.contiguous(), dual=False)
    root = weight.sqrt()
    gram = X @ X.mT
    values, vectors = torch.linalg.eigh(root[:, None] * gram * root)
    top = float(values[-1])
    if top <= 0:
        return EigenBasis(X.new_zeros(n, 1), X.new_zeros(1), X.new_zeros(1, n), dual=True)
    keep = values > _RANK * top
    values, vectors = values[keep], vectors[:, keep]
    if float(values[0]) >= _ILL_CONDITIONED * top:
        back = (vectors * root[:, None] / values.sqrt()).mT.contiguous()
        return EigenBasis(gram @ back.mT, values, back, dual=True)
    Q, R = torch.linalg.qr(X.mT)
    _, singular, rotation = torch.linalg.svd(root[:, None] * R.mT, full_matrices=False)
    keep = singular > 1e-14 * singular[0]
    rotation = rotation[keep]
    return EigenBasis(R.mT @ rotation.mT, singular[keep].square(), rotation @ Q.mT, dual=False)
