"""One layer's training part of one fold, in the coordinates in which it is solved.

With n training samples and D features the minimiser lies in the span of the centred training
samples (representer theorem), so n <= D is solved exactly in at most n - 1 dimensions, and n > D in
D. In both cases the columns of the rotated matrix are orthogonal under the sample weights, which
makes a diagonal preconditioner a good one. What is too large for a rotation is streamed: all folds
share one copy of the layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from signbridge.errors import ProbeError
from signbridge.probes.dataset.standardise import Standardisation, standardisation
from signbridge.probes.exact.design import (
    Design,
    FoldedDesign,
    RowBlocks,
    StreamedDesign,
    nystroem_sketch,
)
from signbridge.probes.exact.inputs import whole_number

_ROTATE_SAMPLES = 1024  # most samples for a rotation into the row space (n <= D) for one fit,
_ROTATE_MORE = 128  # how many more each further fit that uses the rotation is worth,
_ROTATE_MOST = 2048  # and the most of all
_FOLD_FEATURES = 1024  # most features for an eigenbasis of each fold where samples are more
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
    more = _ROTATE_MORE * (fits - 1) if samples <= features else 0
    return samples <= min(_ROTATE_MOST, _ROTATE_SAMPLES + more)


class Job:
    """What every way of solving knows of a layer and fold.

    Args:
        layer: index of the layer.
        fold: index of the fold.
        rows: indices of the samples that are solved with; those outside the fold weigh nothing.
        scaling: standardisation fitted on the training part, or None.

    Attributes:
        centre: (features,) mean that was subtracted (zero without an intercept).
        unit: power of two that the centred features were divided by, 1 but for extreme sizes and
            penalties; with the penalty in the same unit the fit is the same.
        basis: rotation, or None where the fit is streamed.
        Z_all: (samples, r) coordinates of all samples, where decisions are wanted.
        spectrum: (r,) weighted mean square of the coordinates.
    """

    centre: Tensor
    spectrum: Tensor
    unit = 1.0
    basis: EigenBasis | None = None
    Z_all: Tensor | None = None

    def __init__(
        self, layer: int, fold: int, rows: Tensor, scaling: Standardisation | None
    ) -> None:
        self.layer, self.fold, self.rows, self.scaling = layer, fold, rows, scaling

    @property
    def rank(self) -> int:
        """Coordinates besides the intercept's."""
        return len(self.spectrum)

    @property
    def size(self) -> float:
        """Root mean square of the samples' norms, in the features' own unit."""
        return self.unit * float(self.spectrum.sum().sqrt())

    def to_features(self, V: Tensor, X: Tensor) -> Tensor:
        """Coefficients (m, features) of parameters (m, r); ``X`` is the layer as stored."""
        if self.basis is not None:
            V = V @ self.basis.back
            if self.basis.dual:
                V = V @ _centred(X[self.rows], self.scaling, self.centre, self.unit)
        return V / self.unit


class RotatedJob(Job):
    """A layer's training part of one fold in its own eigenbasis.

    Args:
        X: (samples, features) as stored.
        layer: index of the layer.
        fold: index of the fold.
        weight: (samples,) weights; those of 0 are outside the training part.
        settings: what the user chose.
    """

    def __init__(
        self, X: Tensor, layer: int, fold: int, weight: Tensor, settings: Settings
    ) -> None:
        rows = weight.nonzero()[:, 0]
        scaling = standardisation(X, rows) if settings.standardise else None
        super().__init__(layer, fold, rows, scaling)
        total = float(weight.sum())
        weight = weight[rows] / total
        self.centre = torch.zeros(X.shape[1], dtype=torch.float64, device=X.device)
        data = _centred(X if len(rows) == len(X) else X[rows], scaling, self.centre)
        if settings.fit_intercept:
            self.centre = weight @ data
            data -= self.centre
        top = float(torch.linalg.vector_norm(data, torch.inf)) if data.numel() else 0.0
        if top <= len(data) * _EPS * float(torch.linalg.vector_norm(self.centre)):
            data.zero_()  # constant features: what centring has left is rounding
        elif scaling is None:
            sizes = torch.linalg.vector_norm(data, dim=0) / len(data) ** 0.5
            self.unit = _unit(sizes, self.centre, max(settings.C) * total, layer)
            if self.unit != 1:
                data /= self.unit
        self.basis = eigenbasis(data, weight)
        self.spectrum = self.basis.spectrum
        if settings.decision:
            every = _centred(X, scaling, self.centre, self.unit)
            self.Z_all = self.basis.coordinates(every, data)


class StreamedLayer:
    """A layer in blocks of rows, standardised once for all folds.

    Args:
        X: (samples, features) as stored.
        layer: index of the layer.
        weight: (folds, samples) weights; those of 0 are outside a training part.
        settings: what the user chose.
    """

    def __init__(self, X: Tensor, layer: int, weight: Tensor, settings: Settings) -> None:
        self.X, self.layer, self.settings = X, layer, settings
        self.inside = weight > 0
        rows = self.inside.any(0).nonzero()[:, 0]
        total = weight.sum(1)
        share = weight[:, rows] / total[:, None]
        self.own = None
        self.scaling = None
        scale, base = torch.ones(2, 1, X.shape[1], dtype=torch.float64, device=X.device)
        base = base - 1
        if settings.standardise:
            self.own = [standardisation(X, part.nonzero()[:, 0]) for part in self.inside]
            self.scaling = self.own[0] if len(self.own) == 1 else standardisation(X, rows)
            mean, deviation = self.scaling.mean, self.scaling.deviation
            scale = deviation / torch.stack([one.deviation for one in self.own])
            base = (torch.stack([one.mean for one in self.own]) - mean) / deviation
        self.unit = 1.0
        self.centre = torch.zeros(X.shape[1], dtype=torch.float64, device=X.device)
        if settings.fit_intercept:
            self.centre = self._moments(self._blocks(rows, torch.float64, False), share)[0].mean(0)
        if self.scaling is None:
            square = self._moments(self._blocks(rows, torch.float64, False), share)[1]
            strength = max(settings.C) * float(total.max())
            self.unit = _unit(square.mean(0).sqrt(), self.centre, strength, layer)
        cells = len(rows) * X.shape[1]
        self.folded = X.shape[1] <= _FOLD_FEATURES and 12 * cells <= settings.memory_limit
        self._make(rows)
        first, second = self._moments(self.wide, share)
        self.scale = scale.expand_as(first)
        at = base - self.centre  # zero of a fold's standardised features
        self.shift = first if settings.fit_intercept else (at / self.unit).expand_as(first)
        self.offset = self.scale * (self.unit * self.shift - at)
        spread = second - 2 * first * self.shift + self.shift.square()
        # Beside the squares that it is a difference of, so little is rounding.
        spread[spread.sum(1) <= 1e-14 * second.sum(1)] = 0
        self.spectrum = self.scale.square() * spread.clamp_min(0)
        if self.folded:
            parts = zip(share, self.scale, self.shift, self.spectrum, strict=True)
            self.bases = [self._basis(*part) for part in parts]
            self.spectrum = torch.stack([basis.spectrum for basis in self.bases])
            back = torch.stack([basis.back for basis in self.bases]) * self.scale[:, None]
            constant = -(back @ self.shift[..., None])
            self.maps = torch.cat([back, constant], 2)
        else:
            trace = float(second.sum() / len(share))
            self.sketch = nystroem_sketch(self.narrow, share.mean(0), trace, settings.seed)

    def _basis(self, share: Tensor, scale: Tensor, shift: Tensor, spectrum: Tensor) -> EigenBasis:
        """The eigenbasis of one fold's features."""
        gram = torch.zeros(len(scale), len(scale), dtype=torch.float64, device=scale.device)
        for part, block in self.wide:
            centred = (block - shift) * scale
            gram.addmm_(centred.mT * share[part], centred)
        if not bool(spectrum.any()):
            gram.zero_()
        values, vectors = torch.linalg.eigh(gram)
        return EigenBasis(gram[:0], values.clamp_min(0), vectors.mT.contiguous(), dual=False)

    def _make(self, rows: Tensor) -> None:
        """Make the samples at ``rows`` ready to be solved with, kept as far as memory allows."""
        self.rows = rows
        cells = len(rows) * self.X.shape[1]
        self.narrow = self._blocks(rows, torch.float32, 4 * cells <= self.settings.memory_limit)
        self.wide = self._blocks(rows, torch.float64, 12 * cells <= self.settings.memory_limit)

    def _blocks(self, rows: Tensor, dtype: torch.dtype, kept: bool) -> RowBlocks:
        budget = dtype.itemsize * len(rows) * self.X.shape[1] if kept else 0
        return RowBlocks(self.X, rows, self.scaling, self.centre, self.unit, dtype, budget)

    @staticmethod
    def _moments(blocks: RowBlocks, share: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted means and mean squares (folds, features)."""
        first = share.new_zeros(len(share), blocks.X.shape[1])
        second = torch.zeros_like(first)
        for part, block in blocks:
            first.addmm_(share[:, part], block)
            second.addmm_(share[:, part], block.square())
        return first, second

    def jobs(self, folds: Sequence[int]) -> list[Job]:
        """The jobs of some folds, which are solved together."""
        rows = self.inside[list(folds)].any(0).nonzero()[:, 0]
        if not torch.equal(rows, self.rows):
            del self.wide, self.narrow  # the next ones must not lie beside these
            self._make(rows)
        made = []
        for fold in folds:
            job = Job(self.layer, fold, rows, None if self.own is None else self.own[fold])
            job.unit, job.spectrum = self.unit, self.spectrum[fold]
            job.basis = self.bases[fold] if self.folded else None
            job.centre = self.offset[fold] * float(self.settings.fit_intercept)
            made.append(job)
        return made

    def designs(self, folds: Tensor) -> tuple[Design, Design]:
        """The data of fits of some folds (M,) in float64 and float32."""
        one = float(self.settings.fit_intercept)
        if self.folded:
            last = self.maps.new_zeros(len(folds), 1, self.maps.shape[2])
            last[..., -1] = one
            maps = torch.cat([self.maps[folds], last], 1)
            spectrum = torch.cat([self.spectrum[folds], last[..., -1].clamp_min(1)], 1)
            Z = torch.ones(len(self.rows), maps.shape[2], dtype=maps.dtype, device=maps.device)
            for part, block in self.wide:
                Z[part, :-1] = block
            return FoldedDesign(Z, maps, spectrum), FoldedDesign(
                Z.float(), maps.float(), spectrum.float()
            )
        scale, shift = self.scale[folds][:, None], self.shift[folds][:, None]
        wide = StreamedDesign(self.wide, self.sketch, scale, shift, one)
        narrow = self.sketch.to(torch.float32)
        return wide, StreamedDesign(self.narrow, narrow, scale.float(), shift.float(), one)

    def logits(self, V: Tensor, folds: Tensor) -> Tensor:
        """Logits (M, m, samples) of parameters (M, m, r + 1) of some folds, without intercepts."""
        V = V[..., :-1]
        if self.folded:
            both = torch.bmm(V, self.maps[folds])
            weights, constant = both[..., :-1], both[..., -1:]
        else:
            weights = V * self.scale[folds][:, None]
            constant = -(weights @ self.shift[folds][..., None])
        every = torch.arange(len(self.X), device=V.device)
        blocks = self.wide
        if len(self.rows) < len(every):
            blocks = self._blocks(every, torch.float64, False)
        flat, constant = weights.flatten(0, 1), constant.reshape(-1, 1)
        out = flat.new_empty(len(flat), len(every))
        for part, block in blocks:
            torch.addmm(constant, flat, block.mT, out=out[:, part])
        return out.view(*V.shape[:2], -1)


def _unit(sizes: Tensor, centre: Tensor, strength: float, layer: int) -> float:
    """The unit of features of these root mean squares (features,) about the centre.

    Args:
        sizes: of the features.
        centre: that was subtracted.
        strength: the largest C times the sum of the weights.
        layer: whose they are.
    """
    # A feature can move a logit by C * weight * size^2 at most. What cannot, or is constant up to
    # rounding, does no harm beside large ones.
    heard = (strength * sizes.square() >= _EPS) & (sizes > _CONSTANT * centre.abs())
    if bool(heard.any()):
        least, most = float(sizes[heard].min()), float(sizes.max())
        if least < _EPS * most:
            raise ProbeError(
                f"Layer {layer} has features of sizes from {least:.0e} to {most:.0e}, "
                "more than float64 holds beside each other: standardise them."
            )
    # The greater of the features and what the penalty leaves them becomes about 1.
    size = max(float(torch.linalg.vector_norm(sizes)), strength**-0.5)
    least, most = _PLAIN_UNITS
    return 1.0 if least <= size <= most else 2.0 ** round(math.log2(size))


def _centred(
    X: Tensor, scaling: Standardisation | None, centre: Tensor, unit: float = 1.0
) -> Tensor:
    """Standardised, centred float64 copy of samples, in units."""
    out = X.to(torch.float64, copy=True) if scaling is None else scaling.apply(X)
    out.sub_(centre)
    return out if unit == 1 else out.div_(unit)


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
