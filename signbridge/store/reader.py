"""Reading an activation store: needs h5py and NumPy, nothing else."""

from __future__ import annotations

import importlib.util
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from signbridge.errors import StoreError
from signbridge.runtime.progress import Progress
from signbridge.store.contents import StoreFile, Verify
from signbridge.store.schema import CHUNK_ROWS, RESID_POST


def open_store(
    path: str | os.PathLike[str], verify: Verify = "read", progress: Progress | None = None
) -> Store:
    """Open a finished activation store for reading.

    Args:
        path: The store's file.
        verify: ``"quick"`` compares attributes, types, shapes and dimensions with what was written
            and looks whether all shards are there (milliseconds); ``"read"`` does so too, and
            compares every block of values with its checksum the first time it is read; ``"full"``
            does all that and reads everything once before it returns; ``"none"`` only looks
            whether it is a store.
        progress: With ``"full"``, called with the blocks done and the blocks to do.

    Returns:
        The store, a context manager.

    Raises:
        StoreError: If the file is absent, unreadable, not a store, of a newer format, incomplete,
            or fails the check. With ``"read"`` and ``"full"`` reading raises it too, naming the
            variable and the rows that are damaged.
    """
    return Store(path, verify, progress)


class Store(StoreFile):
    """A finished activation store, open for reading.

    It may be used from several threads, pickled, and used in forked or spawned workers: each
    process opens the file for itself. Only what is asked for is read.

    Args:
        path: The store's file.
        verify: As in :func:`open_store`.
        progress: As in :func:`open_store`.

    Attributes:
        path: The store's file.

    Raises:
        StoreError: As in :func:`open_store`.
    """

    def layer(self, layer: int, rows: ArrayLike | slice | None = None, torch: bool = False) -> Any:
        """Read one layer's vectors, without reading the others.

        Args:
            layer: Decoder layer number.
            rows: Sample indices (any order), a mask of shape ``(n,)``, a slice, or all.
            torch: Whether to give a torch tensor rather than a NumPy array.

        Returns:
            Array of shape ``(rows, hidden)`` in the stored type.

        Raises:
            StoreError: If the layer is not stored, a row does not exist, or reading fails.
        """
        if layer not in self.layers:
            raise StoreError(
                f"Layer {layer} is not in {self.path}, which has layers "
                f"{', '.join(map(str, self.layers))}."
            )
        return self._read(RESID_POST, self.layers.index(layer), rows, torch)

    def feature(
        self, name: str | int, rows: ArrayLike | slice | None = None, torch: bool = False
    ) -> Any:
        """Read a feature: a layer by its number, ``"resid_post/5"``, or a baseline by its name.

        Args:
            name: Which feature.
            rows: As in :meth:`layer`.
            torch: As in :meth:`layer`.

        Returns:
            Array of shape ``(rows, features)`` in the stored type.

        Raises:
            StoreError: If there is no such feature, a row does not exist, or reading fails.
        """
        if isinstance(name, (int, np.integer)):
            return self.layer(int(name), rows, torch)
        site, _, number = name.partition("/")
        if site == RESID_POST and number.isdigit():
            return self.layer(int(number), rows, torch)
        if name not in self.baselines:
            features = [f"{RESID_POST}/{layer}" for layer in self.layers] + list(self.baselines)
            raise StoreError(
                f"The feature '{name}' is not in {self.path}, which has {', '.join(features)}."
            )
        return self._read(name, None, rows, torch)

    def blocks(
        self,
        layers: Sequence[int] | None = None,
        size: int = 1024,
        order: Iterable[int] | None = None,
    ) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """Read several layers in blocks of consecutive samples, for what does not fit in memory.

        Args:
            layers: Layer numbers; all by default.
            size: Samples in a block, rounded up to whole chunks of 64.
            order: Numbers of the blocks in the wanted order, e.g. shuffled; ascending by default.

        Yields:
            ``(start, stop, vectors)`` with vectors of shape ``(stop - start, layers, hidden)``.

        Raises:
            StoreError: If a layer or block does not exist, or reading fails.
        """
        wanted = self.layers if layers is None else tuple(layers)
        size = -(-max(1, size) // CHUNK_ROWS) * CHUNK_ROWS
        count = -(-self.n_samples // size)
        for block in range(count) if order is None else order:
            if not 0 <= block < count:
                raise StoreError(f"Block {block} does not exist: there are {count} blocks.")
            start, stop = block * size, min((block + 1) * size, self.n_samples)
            vectors = np.empty((stop - start, len(wanted), self.hidden_size), self.dtype)
            for position, layer in enumerate(wanted):
                vectors[:, position] = self.layer(layer, slice(start, stop))
            yield start, stop, vectors

    def _read(
        self, name: str, position: int | None, rows: ArrayLike | slice | None, torch: bool
    ) -> Any:
        indices = _row_indices(rows, self.n_samples, self.path)
        values: Any
        with self._reading():
            self._refuse_missing_shards()
            if isinstance(indices, slice):
                start, stop, step = indices.indices(self.n_samples)
                values = self._rows(name, start, stop, position)[::step]
            else:
                values = _picked_rows(
                    lambda start, stop: np.asarray(self._rows(name, start, stop, position)),
                    indices,
                )
        if not torch:
            return values
        import torch as torch_module

        return torch_module.from_numpy(np.ascontiguousarray(values))

    def to_xarray(self) -> Any:
        """Open the store as an :class:`xarray.Dataset` with named dimensions, read lazily.

        Raises:
            StoreError: If xarray or h5netcdf is not installed.
        """
        if not all(importlib.util.find_spec(name) for name in ("xarray", "h5netcdf")):
            raise StoreError(
                "xarray or h5netcdf is not installed: 'pip install xarray h5netcdf' does it."
            )
        import xarray

        with self._reading():
            self._handle()
            return xarray.open_dataset(self._absolute, engine="h5netcdf")


def _row_indices(rows: ArrayLike | slice | None, n: int, path: Path) -> slice | NDArray[np.int64]:
    """Turn a choice of rows into an ascending slice or into indices.

    Raises:
        StoreError: If a row does not exist, or the choice is no list of integers or mask.
    """
    if rows is None:
        return slice(None)
    if isinstance(rows, slice):
        if rows.step is None or rows.step > 0:
            return rows
        return np.arange(n)[rows]
    wanted = np.asarray(rows)
    if wanted.dtype == bool:
        if wanted.shape != (n,):
            raise StoreError(f"A mask of rows of {path} needs shape ({n},), not {wanted.shape}.")
        return np.flatnonzero(wanted)
    if wanted.size == 0:
        return np.zeros(0, np.int64)
    if wanted.ndim != 1 or wanted.dtype.kind not in "iu":
        raise StoreError(
            f"Rows of {path} must be a list of integers, not {wanted.dtype} of shape "
            f"{wanted.shape}."
        )
    if wanted.min() < 0 or wanted.max() >= n:
        raise StoreError(
            f"{path} has rows 0 to {n - 1}, but rows {wanted.min()} to {wanted.max()} were asked "
            "for."
        )
    return wanted.astype(np.int64)


def _picked_rows(
    read: Callable[[int, int], NDArray[Any]], indices: NDArray[np.int64]
) -> NDArray[Any]:
    """Read rows in any order, by whole chunks: HDF5's own point selection is 50 times slower.

    Args:
        read: Reads consecutive rows.
        indices: The wanted rows.
    """
    none = read(0, 0)
    picked = np.empty((len(indices), *none.shape[1:]), none.dtype)
    order = np.argsort(indices, kind="stable")
    ordered = indices[order]
    chunks = ordered // CHUNK_ROWS
    # Runs of neighbouring chunks are read at once, up to 32 of them.
    cuts = [0, *(np.flatnonzero(np.diff(chunks) > 1) + 1), len(order)] if len(order) else []
    for first, end in itertools.pairwise(cuts):
        while first < end:
            limit = (chunks[first] + 32) * CHUNK_ROWS
            last = first + int(np.searchsorted(ordered[first:end], limit, side="left"))
            low, high = int(ordered[first]), int(ordered[last - 1]) + 1
            picked[order[first:last]] = read(low, high)[ordered[first:last] - low]
            first = last
    return picked
