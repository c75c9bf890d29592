"""One layer's training part of one fold, in the coordinates in which it is solved."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from signbridge.probes.dataset.standardise import Standardisation, standardisation
from signbridge.probes.exact.nystroem import RowBlocks, StreamedDesign, nystroem_sketch
from signbridge.probes.exact.rowspace import EigenBasis, eigenbasis

_ROTATE_SAMPLES = 1024  # most samples for a rotation into the row space (n <= D) for one fit,
_ROTATE_MORE = 128  # how many more each further fit that uses the rotation is worth,
_ROTATE_MOST = 2048  # and the most of all
_ROTATE_FEATURES = 1024  # most features for a rotation in feature space (n > D)


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


def centred(
    X: Tensor, rows: Tensor | None, scaling: Standardisation | None, centre: Tensor
) -> Tensor:
    """Standardised, centred float64 copy of samples (all, or those at ``rows``)."""
    part = X if rows is None or len(rows) == len(X) else X[rows]
    out = part.to(torch.float64, copy=True) if scaling is None else scaling.apply(part)
    return out.sub_(centre)


@dataclass(frozen=True)
class Job:
    """Data of the fits of a layer and fold.

    Attributes:
        layer: index of the layer.
        fold: index of the fold.
        rows: indices of the training samples.
        scaling: standardisation fitted on them, or None.
        centre: (features,) mean that was subtracted (zero without an intercept).
        basis: rotation, or None where the fit is streamed.
        Z_all: (samples, r) coordinates of all samples, where decisions are wanted.
        narrow: float32 design of a streamed fit, or None.
        wide: float64 design of a streamed fit, or None.
        spectrum: (r,) weighted mean square of the coordinates.
    """

    layer: int
    fold: int
    rows: Tensor
    scaling: Standardisation | None
    centre: Tensor
    basis: EigenBasis | None
    Z_all: Tensor | None
    narrow: StreamedDesign | None
    wide: StreamedDesign | None
    spectrum: Tensor

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
        return (V @ self.basis.back) @ centred(X, self.rows, self.scaling, self.centre)


def make_job(
    X: Tensor,
    layer: int,
    fold: int,
    weight: Tensor,
    *,
    fits: int,
    fit_intercept: bool,
    standardise: bool,
    decision: bool,
    budget: int,
    seed: int,
) -> Job:
    """Prepare a layer's training part.

    Args:
        X: (samples, features) as stored.
        layer: index of the layer.
        fold: index of the fold.
        weight: (samples,) weights; those of 0 are outside the training part.
        fits: how many penalties and label vectors there are.
        fit_intercept: whether the features may be centred.
        standardise: whether the features are standardised on the training part.
        decision: whether coordinates of all samples are wanted.
        budget: bytes that converted features may take.
        seed: of the random sketch.
    """
    rows = weight.nonzero()[:, 0]
    weight = weight[rows] / weight[rows].sum()
    scaling = standardisation(X, rows) if standardise else None
    zero = torch.zeros(X.shape[1], dtype=torch.float64, device=X.device)
    if is_rotated(len(rows), X.shape[1], fits):
        data = centred(X, rows, scaling, zero)
        centre = weight @ data if fit_intercept else zero
        data -= centre
        basis = eigenbasis(data, weight)
        Z_all = basis.coordinates(centred(X, None, scaling, centre), data) if decision else None
        return Job(layer, fold, rows, scaling, centre, basis, Z_all, None, None, basis.spectrum)
    centre = zero
    if fit_intercept:
        blocks = RowBlocks(X, rows, scaling, zero)
        centre = torch.stack([weight[part] @ block for part, block in blocks]).sum(0)
    cells = len(rows) * X.shape[1]
    keep_wide = 12 * cells <= budget
    keep_narrow = 4 * cells <= budget
    narrow = RowBlocks(X, rows, scaling, centre, torch.float32, 4 * cells if keep_narrow else 0)
    wide = RowBlocks(X, rows, scaling, centre, torch.float64, 8 * cells if keep_wide else 0)
    spectrum = torch.zeros_like(zero)
    for part, block in wide:
        spectrum += weight[part] @ block.square()
    sketch = nystroem_sketch(narrow, weight, float(spectrum.sum()), seed)
    one = float(fit_intercept)
    return Job(
        layer,
        fold,
        rows,
        scaling,
        centre,
        None,
        None,
        StreamedDesign(narrow, sketch.to(torch.float32), one),
        StreamedDesign(wide, sketch, one),
        spectrum,
    )
