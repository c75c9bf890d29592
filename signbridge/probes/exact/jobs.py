"""One layer's training part of one fold, in the coordinates in which it is solved.

With n training samples and D features the minimiser lies in the span of the centred training
samples (representer theorem), so n <= D is solved exactly in at most n - 1 dimensions, and n > D in
D. In both cases the columns of the rotated matrix are orthogonal under the sample weights, which
makes a diagonal preconditioner a good one. What is too large for a rotation is streamed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from signbridge.probes.dataset.standardise import standardisation
from signbridge.probes.exact.design import RowBlocks, StreamedDesign, nystroem_sketch

_ROTATE_SAMPLES = 1024  # most samples for a rotation into the row space (n <= D) for one fit,
_ROTATE_MORE = 128  # how many more each further fit that uses the rotation is worth,
_ROTATE_MOST = 2048  # and the most of all
_ROTATE_FEATURES = 1024  # most features for a rotation in feature space (n > D)
_RANK = 1e-13  # eigenvalues of the Gram matrix below this share of the largest are rounding
_ILL_CONDITIONED = 1e-7  # below this share squaring the features costs too many digits: use QR


@dataclass(frozen=True)
class Settings:
    """What the user chose; see :func:`signbridge.probes.exact.logistic.fit_logistic`."""

    C: Sequence[float]
    fit_intercept: bool
    standardise: bool
    tol: float
    max_iter: int
    coef: bool
    decision: bool
    memory_limit: int
    seed: int


def is_rotated(samples: int, features: int, fits: int) -> bool:
    """Whether fits of this size are rotated into an eigenbasis, or streamed.

    Args:
        samples: number of training samples.
        features: number of features.
        fits: how many penalties and label vectors share the rotation.
    """
    if samples <= features:
        return samples <= min(_ROTATE_MOST, _ROTATE_SAMPLES + _ROTATE_MORE * (fits - 1))
    return features <= _ROTATE_FEATURES


class Job:
    """Data of the fits of a layer and fold.

    Args:
        X: (samples, features) as stored.
        layer: index of the layer.
        fold: index of the fold.
        weight: (samples,) weights; those of 0 are outside the training part.
        fits: how many penalties and label vectors there are.
        settings: what the user chose.

    Attributes:
        rows: indices of the training samples.
        scaling: standardisation fitted on them, or None.
        centre: (features,) mean that was subtracted (zero without an intercept).
        basis: rotation, or None where the fit is streamed.
        Z_all: (samples, r) coordinates of all samples, where decisions are wanted.
        streamed: designs of a streamed fit in float64 and float32, or None.
        spectrum: (r,) weighted mean square of the coordinates.
    """

    def __init__(
        self, X: Tensor, layer: int, fold: int, weight: Tensor, fits: int, settings: Settings
    ) -> None:
        self.layer, self.fold = layer, fold
        self.rows = weight.nonzero()[:, 0]
        weight = weight[self.rows] / weight[self.rows].sum()
        self.scaling = standardisation(X, self.rows) if settings.standardise else None
        self.centre = torch.zeros(X.shape[1], dtype=torch.float64, device=X.device)
        self.basis: EigenBasis | None = None
        self.Z_all: Tensor | None = None
        self.streamed: tuple[StreamedDesign, StreamedDesign] | None = None
        if not is_rotated(len(self.rows), X.shape[1], fits):
            self._stream(X, weight, settings)
            return
        data = self._centred(X, self.rows)
        if settings.fit_intercept:
            self.centre = weight @ data
            data -= self.centre
        self.basis = eigenbasis(data, weight)
        self.spectrum = self.basis.spectrum
        if settings.decision:
            self.Z_all = self.basis.coordinates(self._centred(X, None), data)

    def _stream(self, X: Tensor, weight: Tensor, settings: Settings) -> None:
        if settings.fit_intercept:
            blocks = RowBlocks(X, self.rows, self.scaling, self.centre)
            self.centre = torch.stack([weight[part] @ block for part, block in blocks]).sum(0)

        def blocks_of(dtype: torch.dtype, kept: bool) -> RowBlocks:
            budget = dtype.itemsize * cells if kept else 0
            return RowBlocks(X, self.rows, self.scaling, self.centre, dtype, budget)

        cells = len(self.rows) * X.shape[1]
        narrow = blocks_of(torch.float32, 4 * cells <= settings.memory_limit)
        wide = blocks_of(torch.float64, 12 * cells <= settings.memory_limit)
        self.spectrum = torch.zeros_like(self.centre)
        for part, block in wide:
            self.spectrum += weight[part] @ block.square()
        sketch = nystroem_sketch(narrow, weight, float(self.spectrum.sum()), settings.seed)
        one = float(settings.fit_intercept)
        self.streamed = (
            StreamedDesign(wide, sketch, one),
            StreamedDesign(narrow, sketch.to(torch.float32), one),
        )

    def _centred(self, X: Tensor, rows: Tensor | None) -> Tensor:
        """Standardised, centred float64 copy of samples (all, or those at ``rows``)."""
        part = X if rows is None or len(rows) == len(X) else X[rows]
        out = (
            part.to(torch.float64, copy=True) if self.scaling is None else self.scaling.apply(part)
        )
        return out.sub_(self.centre)

    @property
    def rank(self) -> int:
        """Coordinates besides the intercept's."""
        return len(self.spectrum)

    def logits(self, V: Tensor, X: Tensor) -> Tensor:
        """Logits (m, samples) of parameters (m, r), without the intercept, of all samples."""
        if self.Z_all is not None:
            return V @ self.Z_all.mT
        every = torch.arange(len(X), device=X.device)
        out = V.new_empty(len(V), len(X))
        for part, block in RowBlocks(X, every, self.scaling, self.centre):
            out[:, part] = V @ block.mT
        return out

    def to_features(self, V: Tensor, X: Tensor) -> Tensor:
        """Coefficients (m, features) of parameters (m, r); ``X`` is the layer as stored."""
        if self.basis is None:
            return V
        if not self.basis.dual:
            return V @ self.basis.back
        return (V @ self.basis.back) @ self._centred(X, self.rows)


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
