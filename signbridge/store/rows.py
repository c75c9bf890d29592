"""Opening a file and choosing rows of it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from signbridge.errors import StoreError
from signbridge.store import hdf
from signbridge.store.check import DAMAGE
from signbridge.store.files import os_error
from signbridge.store.parts import parts_folder
from signbridge.store.schema import CHUNK_ROWS


class DamagedFileError(StoreError):
    """A file that HDF5 cannot open."""


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


def picked_rows(
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
        if os.path.exists(parts / "plan.json"):  # noqa: PTH110  (no error where it may not look)
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
        return hdf.open_reading(path)
    except BlockingIOError as error:
        raise StoreError(
            f"{path} is open for writing in another program: close it there first; a finished "
            "store is not to be edited."
        ) from error
    except DAMAGE as error:
        reason = str(error)
        if "truncated" in reason:
            what = "is cut off: copy it again or make it again"
        elif "signature not found" in reason:
            what = "is not an HDF5 file, so not an activation store: give a file made by extract.py"
        else:
            what = "cannot be opened as HDF5, it is damaged or not an activation store: check it"
        raise DamagedFileError(f"{path} {what}.") from error
