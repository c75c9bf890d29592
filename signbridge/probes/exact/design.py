"""Design matrices of a batch of fits: logits, their adjoint, and the matching preconditioner.

A fit's parameters are ``V`` of shape (classes, columns); its logits are ``V @ Z.T``. The last
column of every design is the intercept's column of ones (or zeros where no intercept is fitted),
which carries no penalty.

What is too large to rotate is read in blocks of rows. Its preconditioner is a randomised low-rank
approximation of the features' second moments (Frangella, Tropp & Udell 2021, arXiv 2110.02820):
directions outside it are treated as having its smallest eigenvalue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from signbridge.probes.dataset.standardise import Standardisation

_RANK = 256
_TAIL = 4.0  # times the mean eigenvalue outside the sketch: the larger of those count most
_BLOCK_BYTES = 64 << 20


Preconditioner = Callable[[Tensor], Tensor]


class Design(Protocol):
    """What the minimiser asks of the data of M fits with n samples and r columns each."""

    def forward(self, V: Tensor) -> Tensor:
        """Logits (M, classes, n) of parameters (M, classes, r)."""

    def adjoint(self, R: Tensor) -> Tensor:
        """Parameters' gradient (M, classes, r) of residuals (M, classes, n)."""

    def preconditioner(self, curvature: Tensor, penalty: Tensor) -> Preconditioner:
        """What takes gradients (M, classes, r) times an approximate inverse Hessian.

        ``curvature`` (M, classes, 1) is the mean of p (1 - p), ``penalty`` (M, 1, r) the L2 weight.
        """

    def select(self, keep: Tensor) -> Design:
        """The design of the fits at the indices ``keep``."""


class BatchedDesign:
    """One rotated design matrix per fit.

    Args:
        Z: (M, n, r), columns orthogonal under the sample weights, the last one the intercept's.
        spectrum: (M, r), the weighted mean square of every column.
    """

    def __init__(self, Z: Tensor, spectrum: Tensor) -> None:
        self.Z = Z
        self.spectrum = spectrum

    def forward(self, V: Tensor) -> Tensor:
        """See :class:`Design`."""
        return torch.bmm(V, self.Z.mT)

    def adjoint(self, R: Tensor) -> Tensor:
        """See :class:`Design`."""
        return torch.bmm(R, self.Z)

    def preconditioner(self, curvature: Tensor, penalty: Tensor) -> Preconditioner:
        """See :class:`Design`; diagonal, because the columns are orthogonal."""
        return torch.addcmul(penalty, curvature, self.spectrum[:, None, :]).reciprocal_().mul

    def select(self, keep: Tensor) -> BatchedDesign:
        """See :class:`Design`."""
        return BatchedDesign(self.Z[keep], self.spectrum[keep])


class SharedDesign:
    """One rotated design matrix (n, r) that all fits share, with its ``spectrum`` (r,)."""

    def __init__(self, Z: Tensor, spectrum: Tensor) -> None:
        self.Z = Z
        self.spectrum = spectrum

    def forward(self, V: Tensor) -> Tensor:
        """See :class:`Design`."""
        return torch.mm(V.flatten(0, 1), self.Z.mT).view(*V.shape[:2], -1)

    def adjoint(self, R: Tensor) -> Tensor:
        """See :class:`Design`."""
        return torch.mm(R.flatten(0, 1), self.Z).view(*R.shape[:2], -1)

    def preconditioner(self, curvature: Tensor, penalty: Tensor) -> Preconditioner:
        """See :class:`Design`."""
        return torch.addcmul(penalty, curvature, self.spectrum).reciprocal_().mul

    def select(self, keep: Tensor) -> SharedDesign:
        """See :class:`Design`."""
        return self


class FoldedDesign:
    """Samples that fits of several folds share, each fold in an eigenbasis of its own.

    A fold's rotation, standardisation and centring are one affine map of the weights, so the fits
    of all folds are rows of one product with the samples.

    Args:
        Z: (n, features + 1) shared samples, the last column ones.
        maps: (M, r + 1, features + 1) from a fit's parameters to weights and constant.
        spectrum: (M, r + 1), the weighted mean square of every coordinate.
    """

    def __init__(self, Z: Tensor, maps: Tensor, spectrum: Tensor) -> None:
        self.Z, self.maps, self.spectrum = Z, maps, spectrum

    def forward(self, V: Tensor) -> Tensor:
        """See :class:`Design`."""
        weights = torch.bmm(V, self.maps)
        return torch.mm(weights.flatten(0, 1), self.Z.mT).view(*V.shape[:2], -1)

    def adjoint(self, R: Tensor) -> Tensor:
        """See :class:`Design`."""
        inner = torch.mm(R.flatten(0, 1), self.Z).view(*R.shape[:2], -1)
        return torch.bmm(inner, self.maps.mT)

    def preconditioner(self, curvature: Tensor, penalty: Tensor) -> Preconditioner:
        """See :class:`Design`; diagonal, because the coordinates are orthogonal."""
        return torch.addcmul(penalty, curvature, self.spectrum[:, None, :]).reciprocal_().mul

    def select(self, keep: Tensor) -> FoldedDesign:
        """See :class:`Design`."""
        return FoldedDesign(self.Z, self.maps[keep], self.spectrum[keep])


class RowBlocks:
    """Standardised, centred training samples in blocks of rows.

    The converted blocks are kept if they fit into ``budget`` bytes; otherwise they are made anew
    from the stored features in every pass.

    Args:
        X: (samples, features) as stored, any floating type.
        rows: indices of the samples to serve.
        scaling: standardisation, or None.
        centre: (features,) float64, subtracted next.
        unit: what all is divided by last.
        dtype: of the blocks; the conversion itself runs in float64.
        budget: bytes that may be kept.
    """

    def __init__(
        self,
        X: Tensor,
        rows: Tensor,
        scaling: Standardisation | None,
        centre: Tensor,
        unit: float = 1.0,
        dtype: torch.dtype = torch.float64,
        budget: int = 0,
    ) -> None:
        self.X, self.rows, self.scaling, self.centre = X, rows, scaling, centre
        self.unit, self.dtype = unit, dtype
        # A processor's cache and a card's launches: blocks that fit the one would starve the other.
        most = _BLOCK_BYTES if X.device.type == "cpu" else max(_BLOCK_BYTES, budget // 4)
        size = max(1, most // (8 * X.shape[1]))
        count = len(rows)
        self.parts = [slice(s, min(s + size, count)) for s in range(0, count, size)]
        self.kept: list[Tensor] | None = None
        if count * X.shape[1] * dtype.itemsize <= budget:
            self.kept = [self._make(part) for part in self.parts]

    def _make(self, part: slice) -> Tensor:
        block = self.X[self.rows[part]]
        if self.scaling is not None:
            block = self.scaling.apply(block)
        block = block.to(torch.float64) - self.centre
        return (block if self.unit == 1 else block.div_(self.unit)).to(self.dtype)

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        """Pairs of the rows' positions and the block (rows, features)."""
        for i, part in enumerate(self.parts):
            yield part, self._make(part) if self.kept is None else self.kept[i]


@dataclass(frozen=True)
class Sketch:
    """Leading eigenvectors (features, rank) and eigenvalues (rank,) of X' diag(w) X.

    ``tail`` stands for the eigenvalues outside.
    """

    vectors: Tensor
    values: Tensor
    tail: float

    def to(self, dtype: torch.dtype) -> Sketch:
        """The same in another floating type."""
        return Sketch(self.vectors.to(dtype), self.values.to(dtype), self.tail)


def nystroem_sketch(blocks: RowBlocks, weight: Tensor, trace: float, seed: int) -> Sketch:
    """Randomised Nystroem approximation of ``X' diag(weight) X``.

    Args:
        blocks: the samples.
        weight: (samples,) weights that sum to one.
        trace: sum of all eigenvalues.
        seed: of the random test matrix.
    """
    test = trial_matrix(blocks.X.shape[1], seed).to(weight.device)
    image = torch.zeros_like(test)
    narrow = test.to(blocks.dtype)
    for part, block in blocks:
        image += (block.mT @ (weight[part, None].to(block.dtype) * (block @ narrow))).to(image)
    return sketch_of_image(image, test, trace, float(torch.finfo(blocks.dtype).eps))


def sketch_rank(features: int) -> int:
    """Most columns of a sketch."""
    return min(_RANK, features)


def trial_matrix(features: int, seed: int) -> Tensor:
    """Random orthonormal columns (features, rank), float64, that a sketch is made from."""
    generator = torch.Generator().manual_seed(seed)
    rank = sketch_rank(features)
    values = torch.randn(features, rank, generator=generator, dtype=torch.float64)
    test: Tensor = torch.linalg.qr(values).Q
    return test


def sketch_of_image(image: Tensor, test: Tensor, trace: float, eps: float) -> Sketch:
    """Nystroem approximation of a matrix of second moments from its product with a test matrix.

    Args:
        image: (features, rank) float64, the matrix times ``test``; changed.
        test: (features, rank) float64, orthonormal columns.
        trace: sum of all eigenvalues.
        eps: relative precision of the products in ``image``.
    """
    features = len(test)
    # The products' own precision decides how small a shift keeps the core positive definite.
    shift = 16 * eps * float(torch.linalg.matrix_norm(image))
    image += shift * test
    core = test.mT @ image
    values, rotation = torch.linalg.eigh(0.5 * (core + core.mT))
    root = image @ (rotation / values.clamp_min(max(shift, 1e-300)).sqrt())
    squared, rotation = torch.linalg.eigh(root.mT @ root)
    squared, rotation = squared.flip(0), rotation.flip(1)
    keep = squared > 1e-12 * squared[0].clamp_min(1e-300)
    squared, rotation = squared[keep], rotation[:, keep]
    values = (squared - shift).clamp_min(0)
    rest = max(0.0, trace - float(values.sum())) / max(1, features - len(values))
    return Sketch(root @ (rotation / squared.sqrt()), values, max(float(values[-1]), _TAIL * rest))


class StreamedDesign:
    """Samples in blocks, shared by all fits; the last column of the parameters is the intercept.

    Every fold is standardised and centred in its own way, ``scale * (x - shift)`` of a shared
    sample ``x``. That is folded into the weights, so the fits of all folds are rows of one product.

    Args:
        blocks: the samples.
        sketch: of their second moments, in the blocks' floating type.
        scale: (M, 1, features), of each fit.
        shift: (M, 1, features).
        intercept: 1.0, or 0.0 for fits without one.
    """

    def __init__(
        self, blocks: RowBlocks, sketch: Sketch, scale: Tensor, shift: Tensor, intercept: float
    ) -> None:
        self.blocks = blocks
        self.sketch = sketch
        self.scale, self.shift = scale, shift
        self.intercept = intercept

    def forward(self, V: Tensor) -> Tensor:
        """See :class:`Design`."""
        W = V[..., :-1] * self.scale
        b = self.intercept * V[..., -1] - torch.linalg.vecdot(W, self.shift)
        flat, b = W.flatten(0, 1), b.view(-1, 1)
        out = V.new_empty(len(flat), len(self.blocks.rows))
        for part, block in self.blocks:
            torch.addmm(b, flat, block.mT, out=out[:, part])
        return out.view(*V.shape[:2], -1)

    def adjoint(self, R: Tensor) -> Tensor:
        """See :class:`Design`."""
        flat = R.flatten(0, 1)
        total = R.sum(2, keepdim=True)
        inner = torch.zeros_like(flat[:, :1]).expand(-1, self.scale.shape[2])
        for number, (part, block) in enumerate(self.blocks):
            inner = torch.addmm(inner, flat[:, part], block, beta=float(number > 0))
        features = torch.addcmul(inner.view(*R.shape[:2], -1), total, self.shift, value=-1)
        return torch.cat([features * self.scale, self.intercept * total], 2)

    def preconditioner(self, curvature: Tensor, penalty: Tensor) -> Preconditioner:
        """See :class:`Design`."""
        vectors, lam = self.sketch.vectors, penalty[..., :1]
        outside = torch.addcmul(lam, curvature, lam.new_tensor(self.sketch.tail)).reciprocal_()
        gain = torch.addcmul(lam, curvature, self.sketch.values).reciprocal_().sub_(outside)
        free = curvature.reciprocal()

        def precondition(G: Tensor) -> Tensor:
            inner = G[..., :-1]
            along = (inner.flatten(0, 1) @ vectors).view(gain.shape) * gain
            out = torch.addmm((inner * outside).flatten(0, 1), along.flatten(0, 1), vectors.mT)
            return torch.cat([out.view(inner.shape), G[..., -1:] * free], -1)

        return precondition

    def select(self, keep: Tensor) -> StreamedDesign:
        """See :class:`Design`."""
        return StreamedDesign(
            self.blocks, self.sketch, self.scale[keep], self.shift[keep], self.intercept
        )
