"""Feature standardisation with the training part's mean and deviation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from signbridge.errors import ProbeError
from signbridge.probes.dataset.features import FeatureSource
from signbridge.probes.dataset.splits import IntArray

_BLOCK_BYTES = 32 << 20

Reduce = Callable[[Tensor, str], Tensor]
"""Sum (``sum``) or maximum (``max``) of a tensor over the processes."""


@dataclass(frozen=True)
class Standardisation:
    """Mean and deviation of every feature; a constant feature has the deviation 1.

    Attributes:
        mean: (..., features), float64.
        deviation: (..., features), float64, population deviation (divided by N), never 0.
    """

    mean: Tensor
    deviation: Tensor

    def apply(self, X: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
        """Standardise ``X`` (..., samples, features) in float64 and return it as ``dtype``."""
        centred = X.to(torch.float64) - self.mean.to(X.device)[..., None, :]
        return centred.div_(self.deviation.to(X.device)[..., None, :]).to(dtype)


def standardisation(X: Tensor, rows: Tensor | None = None) -> Standardisation:
    """Mean and population deviation over the samples of ``X``, as scikit-learn's StandardScaler.

    Sums run in float64 over blocks of rows, so float16 features neither overflow nor lose digits,
    and only a block is ever held in float64. A feature that is constant up to rounding has the
    deviation 1.

    Args:
        X: (..., samples, features), any floating or integer dtype.
        rows: indices of the samples to use (the training part); all by default.

    Raises:
        ValueError: if no samples are left.
    """
    count = X.shape[-2] if rows is None else len(rows)
    if count == 0:
        raise ValueError("standardisation needs at least one sample")

    size = max(1, _BLOCK_BYTES // (8 * max(1, X[..., 0, :].numel())))

    def total(of: Callable[[Tensor], Tensor]) -> Tensor:
        sums: Tensor | None = None
        for start in range(0, count, size):
            block = X if rows is None else X[..., rows[start : start + size], :]
            if rows is None:
                block = block[..., start : start + size, :]
            part = of(block.to(torch.float64))
            sums = part if sums is None else sums + part
        assert sums is not None
        return sums

    mean = total(lambda block: block.sum(-2)) / count
    # A second pass over differences takes away the first one's rounding.
    mean = mean + total(lambda block: (block - mean[..., None, :]).sum(-2)) / count
    variance = total(lambda block: (block - mean[..., None, :]).square_().sum(-2)) / count
    return from_moments(mean, variance, count)


def from_moments(mean: Tensor, variance: Tensor, count: int) -> Standardisation:
    """The standardisation of float64 means and population variances over ``count`` samples."""
    # scikit-learn's bound on what rounding alone leaves of a constant feature's variance.
    eps = torch.finfo(torch.float64).eps
    constant = variance <= count * eps * variance + (count * mean * eps).square()
    return Standardisation(mean, torch.where(constant, 1.0, variance.sqrt()))


def alone(values: Tensor, how: str) -> Tensor:
    """The :data:`Reduce` of a single process."""
    return values


def standardisation_of(
    source: FeatureSource, blocks: Iterator[tuple[IntArray, Tensor]], reduce: Reduce
) -> Standardisation:
    """Mean and deviation of each feature in one pass (Chan, Golub & LeVeque 1983).

    Args:
        source: where the features come from, to name a value that is not finite.
        blocks: sample indices and features (samples, layers, width) of this process's share.
        reduce: over the processes.

    Returns:
        Float64, each of shape (layers, width).

    Raises:
        ProbeError: a feature is not finite.
    """
    shape = len(source), source.n_features
    count, mean, square = 0, torch.zeros(shape, dtype=torch.float64), torch.zeros(1)
    square = torch.zeros_like(mean)
    bad = torch.tensor(-1)
    for rows, stored in blocks:
        block = stored.double()
        if not bool(torch.isfinite(block).all()):
            place = int((~torch.isfinite(block)).flatten().nonzero()[0, 0])
            sample, number = place // block[0].numel(), place // shape[1] % shape[0]
            bad = torch.tensor(int(rows[sample]) * shape[0] + number)
            break
        middle = block.mean(0)
        step = middle - mean
        square += (block - middle).square_().sum(0)
        square += step.square() * (count * len(block) / (count + len(block)))
        count += len(block)
        mean += step * (len(block) / count)
    bad = reduce(bad, "max")
    if bad >= 0:
        source.refuse(source.features[int(bad) % shape[0]], int(bad) // shape[0])
    total = int(reduce(torch.tensor(count), "sum"))
    if total == 0:
        raise ProbeError("probes cannot be trained: their training part is empty.")
    middle = reduce(mean * count, "sum") / total
    spread = reduce(square + count * (mean - middle).square(), "sum") / total
    return from_moments(middle, spread, total)
