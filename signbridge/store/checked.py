"""Reading with a check: every block is compared with its checksum the first time it is read."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from signbridge.errors import StoreError
from signbridge.store import hdf
from signbridge.store.checksums import block_sha256
from signbridge.store.schema import CHECKSUMS, Values
from signbridge.store.shards import all_finite

# Blocks that are read at once while those before are hashed.
_PIECE = 8


class CheckedBlocks:
    """Reads rows of a store and compares each checksum block that they touch, once.

    A block that has been read and found right is not hashed again, so reading a store many times
    costs one pass of SHA-256. Blocks at the ends of a range are read whole the first time.

    Args:
        path: The store, as messages name it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tables: dict[str, tuple[int, NDArray[np.bytes_]]] = {}
        self._right: dict[str, NDArray[np.bool_]] = {}

    def read(
        self, h5: h5py.File, name: str, start: int, stop: int, layer: int | None = None
    ) -> Values:
        """Read rows ``start`` to ``stop`` of a variable, of one position along its layers if given.

        Raises:
            StoreError: If a value does not match its checksum, or there is no checksum for it.
        """
        dataset = h5[name]
        rows, table = self._table(h5, name)
        if layer is None and table.ndim > 1:
            raise ValueError(f"{name} is read one layer at a time")
        right = self._right[name] if layer is None else self._right[name][:, layer]
        expected = table if layer is None else table[:, layer]
        stop = max(start, stop)
        first, last = start // rows, -(-stop // rows)
        if start == stop or right[first:last].all():
            return hdf.get_rows(dataset, start, stop, layer)
        low, high = first * rows, min(last * rows, dataset.shape[0])
        values, digests = _read_and_hash(dataset, low, high, layer, rows)
        for block, digest in enumerate(digests, first):
            if digest.encode() != bytes(expected[block]):
                raise self._damaged(h5, name, layer, block * rows, dataset.shape[0], rows)
        if isinstance(values, np.ndarray) and not all_finite(values):
            raise self._damaged(h5, name, layer, low, high, high - low, "hold NaN or infinity")
        right[first:last] = True
        return values[start - low : stop - low]

    def _table(self, h5: h5py.File, name: str) -> tuple[int, NDArray[np.bytes_]]:
        if name not in self._tables:
            table = h5[CHECKSUMS][name]
            rows, shape = int(table.attrs["rows_per_block"]), h5[name].shape
            wanted = (-(-shape[0] // max(1, rows)), *shape[1 : len(shape) - 1])
            if rows < 1 or table.shape != wanted:
                raise StoreError(
                    f"{self._path} is damaged: the checksums of {name} do not cover its values; "
                    f"run 'signbridge verify {self._path}' for all that is wrong."
                )
            self._right.setdefault(name, np.zeros(wanted, bool))
            self._tables[name] = rows, table[()]
        return self._tables[name]

    def _damaged(
        self,
        h5: h5py.File,
        name: str,
        layer: int | None,
        start: int,
        n: int,
        rows: int,
        what: str = "do not match their checksum",
    ) -> StoreError:
        where = name
        if layer is not None:
            where += f" at layer index {layer}"
            with suppress(Exception):  # its number says more, where it can be read
                where = f"{name} at layer {int(h5['layer'][layer])}"
        return StoreError(
            f"{self._path} is damaged: the values of {where}, rows {start} to "
            f"{min(start + rows, n) - 1}, {what}; run 'signbridge verify "
            f"{self._path}' for all that is wrong, and restore the file or make it again."
        )


def _read_and_hash(
    dataset: h5py.Dataset, low: int, high: int, layer: int | None, rows: int
) -> tuple[Values, list[str]]:
    """Rows ``low`` to ``high`` and the SHA-256 of each block; reading goes on while hashing."""
    if h5py.check_string_dtype(dataset.dtype) is not None:
        texts = hdf.get_rows(dataset, low, high)
        return texts, [block_sha256(texts[i : i + rows]) for i in range(0, high - low, rows)]
    step = rows * _PIECE
    if high - low <= step:
        values = np.asarray(hdf.get_rows(dataset, low, high, layer))
        return values, [block_sha256(values[i : i + rows]) for i in range(0, len(values), rows)]
    values = np.empty((high - low, *dataset.shape[1 if layer is None else 2 :]), dataset.dtype)
    digests: list[Future[str]] = []
    with ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1))) as pool:
        for begin in range(0, len(values), step):
            piece = values[begin : begin + step]
            piece[:] = hdf.get_rows(dataset, low + begin, low + begin + len(piece), layer)
            digests += [
                pool.submit(block_sha256, piece[i : i + rows]) for i in range(0, len(piece), rows)
            ]
    return values, [digest.result() for digest in digests]
