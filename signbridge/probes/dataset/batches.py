"""Which samples make which batch, and which process reads them."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from torch import Tensor

from signbridge.probes.dataset.splits import IntArray
from signbridge.store import CHUNK_ROWS


class Batch(TypedDict):
    """What the loaders give out.

    ``x``: standardised features, float32, shape (B, n_layers, n_features); ``y``: class indices,
    shape (B,); ``row``: sample indices in the store, shape (B,); ``size``: number of samples of the
    batch over all processes.
    """

    x: Tensor
    y: Tensor
    row: Tensor
    size: int


class BatchOrder:
    """The batches of every pass through some samples, from a seed alone.

    Nothing here depends on the number of processes, so a run on two devices sees the batches of a
    run on one. A pass is cut into stretches of shuffled chunks that are held in memory together,
    and a stretch into batches of nearly equal size.

    Args:
        rows: sample indices, ascending.
        batch_size: most samples of a batch.
        seed: seed of the shuffling.
        buffer_rows: most samples held at once; None holds all.
    """

    def __init__(
        self, rows: IntArray, batch_size: int, seed: int, buffer_rows: int | None = None
    ) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.seed = seed
        self.buffer_rows = buffer_rows

    @property
    def batches(self) -> int:
        """About how many batches a pass has."""
        return max(1, -(-len(self.rows) // self.batch_size))

    def passage(self, number: int) -> list[list[IntArray]]:
        """Stretches of a pass, each a list of batches of sample indices."""
        rng = np.random.default_rng([self.seed, number])
        if self.buffer_rows is None:
            return [self._cut(rng.permutation(self.rows))]
        chunks = np.unique(self.rows // CHUNK_ROWS)
        rng.shuffle(chunks)
        together = max(1, self.buffer_rows // CHUNK_ROWS)
        stretches = []
        for start in range(0, len(chunks), together):
            part = chunks[start : start + together]
            low = np.searchsorted(self.rows, part * CHUNK_ROWS)
            high = np.searchsorted(self.rows, (part + 1) * CHUNK_ROWS)
            held = [self.rows[a:b] for a, b in zip(low, high, strict=True)]
            stretches.append(self._cut(rng.permutation(np.concatenate(held))))
        return stretches

    def _cut(self, rows: IntArray) -> list[IntArray]:
        number = -(-len(rows) // self.batch_size)
        return np.array_split(rows, number) if number else []


def own_rows(rows: IntArray, rank: int, processes: int) -> IntArray:
    """Those of some samples that lie in the chunks which a process reads.

    Process r of n reads the chunks r, r + n, r + 2 n, ..., so no chunk is read twice, and in any
    batch each process has about its share.
    """
    return np.asarray(rows[rows // CHUNK_ROWS % processes == rank])


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
