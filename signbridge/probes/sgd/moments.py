"""What one or two passes over the training part say of it: moments and a sketch of the curvature.

Each process reads its own chunks; sums over the processes make the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from signbridge.errors import ProbeError
from signbridge.probes.dataset.features import FeatureSource
from signbridge.probes.dataset.standardise import Standardisation, from_moments
from signbridge.probes.exact.nystroem import sketch_of_image, trial_matrix
from signbridge.probes.sgd.order import IntArray

Reduce = Callable[[Tensor, str], Tensor]
"""Sum (``sum``) or maximum (``max``) of a tensor over the processes."""

_FLOAT32 = float(torch.finfo(torch.float32).eps)


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


@dataclass(frozen=True)
class Curvature:
    """Leading part of each layer's second moments, for the preconditioner.

    Attributes:
        vectors: (layers, width, rank) float32, orthonormal columns, zero where a layer has fewer.
        values: (layers, rank) float32.
        tail: (layers,) float32, for all other directions.
    """

    vectors: Tensor
    values: Tensor
    tail: Tensor


def curvature_of(
    blocks: Iterator[tuple[IntArray, Tensor]],
    layers: int,
    features: int,
    samples: int,
    seed: int,
    reduce: Reduce,
) -> Curvature:
    """Nystroem sketch of each layer's second moments, in one pass.

    Args:
        blocks: sample indices and standardised features (samples, layers, features).
        layers: number of layers.
        features: their width.
        samples: number of samples over all processes.
        seed: of the random matrix.
        reduce: over the processes.
    """
    trial = trial_matrix(features, seed)
    narrow = trial.float()
    image = torch.zeros(layers, *trial.shape, dtype=torch.float64)
    trace = torch.zeros(layers, dtype=torch.float64)
    for _, block in blocks:
        x = block.transpose(0, 1)
        image += torch.bmm(x.mT, x @ narrow)
        trace += x.square().sum((1, 2))
    image = reduce(image, "sum") / samples
    trace = reduce(trace, "sum") / samples
    parts = [sketch_of_image(image[k], trial, float(trace[k]), _FLOAT32) for k in range(layers)]
    rank = max(len(part.values) for part in parts)
    vectors = torch.zeros(layers, features, rank)
    values = torch.zeros(layers, rank)
    for k, part in enumerate(parts):
        vectors[k, :, : len(part.values)] = part.vectors
        values[k, : len(part.values)] = part.values
    return Curvature(vectors, values, torch.tensor([part.tail for part in parts]))


def spans(rows: IntArray, chunk: int, most: int) -> list[tuple[int, int]]:
    """Chunk-aligned stretches that hold some samples, neighbouring chunks joined.

    Args:
        rows: sample indices, ascending.
        chunk: samples of a chunk.
        most: most samples of a stretch.
    """
    out: list[tuple[int, int]] = []
    for number in np.unique(rows // chunk).tolist():
        start, stop = number * chunk, (number + 1) * chunk
        if out and out[-1][1] == start and stop - out[-1][0] <= max(most, chunk):
            out[-1] = out[-1][0], stop
        else:
            out.append((start, stop))
    return out
