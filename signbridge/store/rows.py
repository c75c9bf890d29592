"""Opening a file and choosing rows of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from signbridge.errors import StoreError
from signbridge.store.check import DAMAGE
from signbridge.store.files import os_error
from signbridge.store.parts import parts_folder
from signbridge.store.schema import CHUNK_ROWS


def row_indices(rows: ArrayLike | slice | None, n: int, path: Path) -> slice | NDArray[np.int64]:
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


def span(dataset: h5py.Dataset, position: int | None, start: int, stop: int) -> NDArray[Any]:
    """Read consecutive rows, of one position along the layer dimension if given."""
    values: NDArray[Any] = (
        dataset[start:stop] if position is None else dataset[start:stop, position]
    )
    return values


def picked_rows(
    dataset: h5py.Dataset, position: int | None, indices: NDArray[np.int64]
) -> NDArray[Any]:
    """Read rows in any order, by whole chunks: HDF5's own point selection is 50 times slower."""
    picked = np.empty((len(indices), dataset.shape[-1]), dataset.dtype)
    order = np.argsort(indices, kind="stable")
    chunks = indices[order] // CHUNK_ROWS
    # Runs of neighbouring chunks are read at once, up to 32 of them.
    cuts = np.flatnonzero(np.diff(chunks) > 1) + 1
    for run in np.split(order, cuts) if len(order) else []:
        first = 0
        while first < len(run):
            low = int(indices[run[first]])
            last = first + int(
                np.searchsorted(indices[run[first:]], low + 32 * CHUNK_ROWS, side="left")
            )
            part = run[first:last]
            high = int(indices[part[-1]]) + 1
            picked[part] = span(dataset, position, low, high)[indices[part] - low]
            first = last
    return picked


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file for reading, or say in one sentence why not."""
    parts = parts_folder(path)
    try:
        if path.is_dir():
            raise StoreError(f"{path} is a folder, not an activation store: give the .h5 file.")
        if path.exists() and not path.is_file():
            raise StoreError(f"{path} is not a regular file: give the .h5 file of a store.")
        with path.open("rb") as file:
            empty = not file.read(1)
    except FileNotFoundError:
        if (parts / "plan.json").exists():
            raise StoreError(
                f"{path} is not finished yet, its parts are in {parts}: run the same extraction "
                "again to complete it."
            ) from None
        raise StoreError(
            f"There is no activation store {path}: check the path or run extract.py first."
        ) from None
    except OSError as error:
        raise os_error(error, path) from error
    if empty:
        raise StoreError(f"{path} is empty, not an activation store: make it again.")
    try:
        try:
            return h5py.File(path, "r")
        except OSError as error:
            # A finished store is never written to, so it can do without a lock, which read-only and
            # network file systems may not have. It is no default, since the library refuses to open
            # a file twice in one process, here and by the user, with and without.
            if "lock" not in str(error):
                raise
            return h5py.File(path, "r", locking=False)
    except DAMAGE as error:
        reason = str(error)
        if "truncated" in reason:
            what = "is cut off: copy it again or make it again"
        elif "signature not found" in reason:
            what = "is not an HDF5 file, so not an activation store: give a file made by extract.py"
        else:
            what = "cannot be opened as HDF5, it is damaged or not an activation store: check it"
        raise StoreError(f"{path} {what}.") from error
