"""HDF5 files: opening them, and creating, filling and reading their variables."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from signbridge.errors import StoreError
from signbridge.runtime.reading import parse_json
from signbridge.store.checksums import DIMENSION_ONLY
from signbridge.store.files import os_error
from signbridge.store.opening import ForeignPartError, open_reading, refuse_foreign_parts
from signbridge.store.parts import parts_folder
from signbridge.store.provenance import plain
from signbridge.store.schema import CHUNK_ROWS, FORMAT, INFO, Values, Variable

STRING = h5py.string_dtype("utf-8")

# What h5py raises on damaged files.
DAMAGE = (
    OSError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    OverflowError,
    MemoryError,
    UnicodeError,
    SystemError,
    NotImplementedError,
    AssertionError,
)


class DamagedFileError(StoreError):
    """A file that HDF5 cannot open."""


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
        h5 = open_reading(path)
        if read_attribute(h5.attrs.get("format")) == FORMAT:  # else it is refused for what it is
            refuse_foreign_parts(h5, in_shards=True)
        return h5
    except BlockingIOError as error:
        raise StoreError(
            f"{path} is open for writing in another program: close it there first; a finished "
            "store is not to be edited."
        ) from error
    except ForeignPartError as error:
        h5.close()
        raise DamagedFileError(
            f"{path} is not a store that can be trusted: {error}, which no store does; make it "
            "again, or ask for it as it was written."
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


def create_dimensions(h5: h5py.File, sizes: Mapping[str, int]) -> None:
    """Create a dimension scale for each dimension that has no variable of its name (netCDF-4)."""
    for name, size in sizes.items():
        if name not in h5:
            scale = h5.create_dataset(name, shape=(size,), dtype=">f4")
            scale.make_scale(f"{DIMENSION_ONLY}{size:10d}")


def create_variable(
    h5: h5py.File,
    variable: Variable,
    shape: tuple[int, ...],
    layout: h5py.VirtualLayout | None = None,
    *,
    allocate: bool = False,
) -> h5py.Dataset:
    """Create a variable's dataset, with its attributes, not yet its values or dimension scales.

    Args:
        h5: Where.
        variable: What.
        shape: Its shape.
        layout: What a virtual dataset refers to.
        allocate: Whether to give all chunks their place in the file at once.
    """
    name = variable.name
    if layout is not None:
        # A plain HDF5 tool that misses a shard should at least not see zeros.
        fill = np.nan if np.dtype(variable.dtype).kind == "f" else None
        if hasattr(layout, "dcpl"):  # equal content, equal bytes: no time of writing
            layout.dcpl.set_obj_track_times(False)
        dataset = h5.create_virtual_dataset(name, layout, fillvalue=fill)
    elif variable.dtype == "string":
        dataset = h5.create_dataset(name, shape, STRING)
    else:
        dtype = np.dtype(variable.dtype).newbyteorder("<")
        storage: dict[str, Any] = {}
        if variable.is_feature:
            properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            if allocate:
                properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            storage = {"chunks": chunk_shape(shape), "dcpl": properties}
        dataset = h5.create_dataset(name, shape, dtype, **storage)
    for key, value in variable.attrs.items():
        dataset.attrs[key] = attribute_value(value)
    return dataset


def chunk_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Chunks of 64 rows, one layer, all features."""
    rows = min(CHUNK_ROWS, shape[0])
    return (rows, 1, shape[2]) if len(shape) == 3 else (rows, *shape[1:])


def attach_dimensions(h5: h5py.File, variables: tuple[Variable, ...]) -> None:
    """Name the dimensions of all variables through their scales."""
    for variable in variables:
        if variable.dims == (variable.name,) and variable.dtype != "string":
            h5[variable.name].make_scale(variable.name)
    for variable in variables:
        for axis, dim in enumerate(variable.dims):
            if dim != variable.name:
                h5[variable.name].dims[axis].attach_scale(h5[dim])


def put_rows(dataset: h5py.Dataset, start: int, values: Values, layer: int | None = None) -> None:
    """Store a block that begins at row ``start``, a multiple of the chunk's rows if chunked.

    Args:
        dataset: Where to.
        start: First row.
        values: Texts, or numbers of the dataset's own type: ``(rows, features)`` where ``layer``
            is given or the dataset has two dimensions.
        layer: Position along the layer dimension.
    """
    if isinstance(values, list):
        dataset[start : start + len(values)] = np.array(values, dtype=object)
        return
    if dataset.chunks is None:
        dataset[start : start + len(values)] = values
        return
    # A whole chunk goes straight to the file: no copy through the chunk cache.
    rows = dataset.chunks[0]
    if len(values) < rows:
        padded = np.zeros((rows, *values.shape[1:]), values.dtype)
        padded[: len(values)] = values
        values = padded
    offset = (start, 0) if layer is None else (start, layer, 0)
    dataset.id.write_direct_chunk(offset, np.ascontiguousarray(values))


def get_rows(dataset: h5py.Dataset, start: int, stop: int, layer: int | None = None) -> Values:
    """Read rows ``start`` to ``stop``, of one position along the layer dimension if given."""
    if h5py.check_string_dtype(dataset.dtype) is not None:
        if dataset.dtype.kind == "S":
            return [v.decode("ascii", "replace") for v in dataset[start:stop]]
        return list(dataset.asstr(errors="surrogateescape")[start:stop])
    block: NDArray[Any] = dataset[start:stop] if layer is None else dataset[start:stop, layer]
    return block


def whole(dataset: h5py.Dataset) -> Values:
    """All values of a small dataset; a scalar as one row."""
    if h5py.check_string_dtype(dataset.dtype) is not None:
        value = dataset.asstr(errors="surrogateescape")[()]
        return [value] if isinstance(value, str) else list(value)
    return np.atleast_1d(np.asarray(dataset[()]))


def attribute_value(value: Any) -> Any:
    """A value as h5py stores it best: texts as UTF-8, lists of texts as variable-length ones."""
    value = plain(value)
    if isinstance(value, list) and (not value or isinstance(value[0], str)):
        return np.array(value, dtype=STRING)
    if isinstance(value, list):
        return np.asarray(value)
    return value


def read_attribute(value: Any) -> Any:
    """The plain Python value of an attribute."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "OS":
        return [v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in value]
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return plain(value)


def write_info(h5: h5py.File, info: Mapping[str, Any]) -> None:
    """Write unguarded facts as datasets of ``/info``; what is nested is written as JSON."""
    group = h5.create_group(INFO)
    for key in sorted(info):
        value = plain(info[key])
        if value is None:
            continue
        name = str(key).replace("/", "_")
        if isinstance(value, str):
            group.create_dataset(name, data=value.replace("\0", "\ufffd"), dtype=STRING)
        elif isinstance(value, (bool, int, float)):
            group.create_dataset(name, data=value)
        elif value and isinstance(value, list) and all(isinstance(v, str) for v in value):
            texts = [v.replace("\0", "\ufffd") for v in value]
            group.create_dataset(name, data=np.array(texts, dtype=object), dtype=STRING)
        else:
            text = json.dumps(value, sort_keys=True, default=str)
            group.create_dataset(name, data=text, dtype=STRING).attrs["encoding"] = "json"


def read_info(h5: h5py.File) -> dict[str, Any]:
    """Read ``/info`` back."""
    found: dict[str, Any] = {}
    for name, dataset in sorted(h5.get(INFO, {}).items()):
        text = h5py.check_string_dtype(dataset.dtype) is not None
        value = dataset.asstr(errors="surrogateescape")[()] if text else dataset[()]
        if dataset.attrs.get("encoding") == "json":
            value = parse_json(value)
        found[name] = (
            [str(v) for v in value] if isinstance(value, np.ndarray) and text else plain(value)
        )
    return found
