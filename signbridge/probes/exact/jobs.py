"""One layer's training part of one fold, in the coordinates in which it is solved.

With n training samples and D features the minimiser lies in the span of the centred training
samples (representer theorem), so n <= D is solved exactly in at most n - 1 dimensions, and n > D in
D. In both cases the columns of the rotated matrix are orthogonal under the sample weights, which
makes a diagonal preconditioner a good one. What is too large for a rotation is streamed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from signbridge.errors import ProbeError
from signbridge.probes.dataset.standardise import standardisation
from signbridge.probes.exact.design import RowBlocks, StreamedDesign, nystroem_sketch
from signbridge.probes.exact.inputs import whole_number

_ROTATE_SAMPLES = 1024  # most samples for a rotation into the row space (n <= D) for one fit,
_ROTATE_MORE = 128  # how many more each further fit that uses the rotation is worth,
_ROTATE_MOST = 2048  # and the most of all
_ROTATE_FEATURES = 1024  # most features for a rotation in feature space (n > D)
_EPS = torch.finfo(torch.float64).eps
_CONSTANT = 1e-12  # of its mean: the deviation below which a feature passes for constant
_RANK = 1e-13  # eigenvalues of the Gram matrix below this share of the largest are rounding
_ILL_CONDITIONED = 1e-7  # below this share squaring the features costs too many digits: use QR
_PLAIN_UNITS = 1e-3, 1e6  # sizes of samples (root mean square) that float32 holds with ease


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

    def __post_init__(self) -> None:
        tol = self.tol
        if not isinstance(tol, Real) or not 0 <= tol < float("inf"):
            raise ProbeError(f"tol is {tol!r}: pass a finite number, 0 or more, such as 1e-7.")
        whole_number(self.max_iter, "max_iter", 1)
        whole_number(self.memory_limit, "memory_limit", 1)
        whole_number(self.seed, "seed", 0, 2**63 - 1)


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
        weight: sum of their weights.
        scaling: standardisation fitted on them, or None.
        centre: (features,) mean that was subtracted (zero without an intercept).
        unit: power of two that the centred features were divided by, 1 but for extreme sizes and
            penalties; with the penalty in the same unit the fit is the same.
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
        self.weight = float(weight.sum())
        weight = weight[self.rows] / self.weight
        self.scaling = standardisation(X, self.rows) if settings.standardise else None
        self.centre = torch.zeros(X.shape[1], dtype=torch.float64, device=X.device)
        self.unit = 1.0
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
        top = float(torch.linalg.vector_norm(data, torch.inf)) if data.numel() else 0.0
        if top <= len(data) * _EPS * float(torch.linalg.vector_norm(self.centre)):
            data.zero_()  # constant features: what centring has left is rounding
        elif self.scaling is None:
            sizes = torch.linalg.vector_norm(data, dim=0) / len(data) ** 0.5
            self._choose_unit(sizes, settings)
            if self.unit != 1:
                data /= self.unit
        self.basis = eigenbasis(data, weight)
        self.spectrum = self.basis.spectrum
        if settings.decision:
            self.Z_all = self.basis.coordinates(self._centred(X, None), data)

    def _stream(self, X: Tensor, weight: Tensor, settings: Settings) -> None:
        def blocks_of(dtype: torch.dtype, kept: bool) -> RowBlocks:
            budget = dtype.itemsize * cells if kept else 0
            return RowBlocks(X, self.rows, self.scaling, self.centre, self.unit, dtype, budget)

        def second_moments(blocks: RowBlocks) -> Tensor:
            return torch.stack([weight[part] @ block.square() for part, block in blocks]).sum(0)

        cells = len(self.rows) * X.shape[1]
        if settings.fit_intercept:
            blocks = blocks_of(torch.float64, kept=False)
            self.centre = torch.stack([weight[part] @ block for part, block in blocks]).sum(0)
        if self.scaling is None:
            moments = second_moments(blocks_of(torch.float64, kept=False))
            self._choose_unit(moments.sqrt(), settings)
        narrow = blocks_of(torch.float32, 4 * cells <= settings.memory_limit)
        wide = blocks_of(torch.float64, 12 * cells <= settings.memory_limit)
        self.spectrum = second_moments(wide)
        sketch = nystroem_sketch(narrow, weight, float(self.spectrum.sum()), settings.seed)
        one = float(settings.fit_intercept)
        self.streamed = (
            StreamedDesign(wide, sketch, one),
            StreamedDesign(narrow, sketch.to(torch.float32), one),
        )

    def _choose_unit(self, sizes: Tensor, settings: Settings) -> None:
        """Choose the unit by the columns' root mean squares (features,) about the centre."""
        # A feature can move a logit by C * weight * size^2 at most. What cannot, or is constant up
        # to rounding, does no harm beside large ones.
        heard = max(settings.C) * self.weight * sizes.square() >= _EPS
        heard &= sizes > _CONSTANT * self.centre.abs()
        if bool(heard.any()):
            least, most = float(sizes[heard].min()), float(sizes.max())
            if least < _EPS * most:
                raise ProbeError(
                    f"Layer {self.layer} has features of sizes from {least:.0e} to {most:.0e}, "
                    "more than float64 holds beside each other: standardise them."
                )
        # The greater of the features and what the penalty leaves them becomes about 1.
        size = max(float(torch.linalg.vector_norm(sizes)), (max(settings.C) * self.weight) ** -0.5)
        least, most = _PLAIN_UNITS
        if not least <= size <= most:
            self.unit = 2.0 ** round(math.log2(size))

    def _centred(self, X: Tensor, rows: Tensor | None) -> Tensor:
        """Standardised, centred float64 copy of samples (all, or those at ``rows``), in units."""
        part = X if rows is None or len(rows) == len(X) else X[rows]
        out = (
            part.to(torch.float64, copy=True) if self.scaling is None else self.scaling.apply(part)
        )
        out.sub_(self.centre)
        return out if self.unit == 1 else out.div_(self.unit)

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
        for part, block in RowBlocks(X, every, self.scaling, self.centre, self.unit):
            out[:, part] = V @ block.mT
        return out

    def to_features(self, V: Tensor, X: Tensor) -> Tensor:
        """Coefficients (m, features) of parameters (m, r); ``X`` is the layer as stored."""
        if self.basis is not None:
            V = V @ self.basis.back
            if self.basis.dual:
                V = V @ self._centred(X, self.rows)
        return V / self.unit

    @property
    def size(self) -> float:
        """Root mean square of the samples' norms, in the features' own unit."""
        return self.unit * float(self.spectrum.sum().sqrt())


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
