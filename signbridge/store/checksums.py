"""Checksums of logical content, so that they survive repacking and find any changed value.

A block of rows is hashed as the SHA-256 of its canonical bytes: numbers little-endian in C order,
each text as its length in bytes (8 bytes, little-endian) followed by its UTF-8 bytes. What no block
covers (attributes, dimension names, types, shapes) is described by :func:`structure`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from signbridge.runtime.files import canonical_json, sha256_text
from signbridge.store.provenance import plain
from signbridge.store.schema import CHECKSUMS, INFO, SHARDS, Values

STRUCTURE = "structure"
DIMENSION_ONLY = "This is a netCDF dimension but not a netCDF variable."
# References between variables and dimensions hold file addresses, which repacking changes.
_ADDRESS_ATTRIBUTES = frozenset({"DIMENSION_LIST", "REFERENCE_LIST"})


def block_sha256(values: Values) -> str:
    """SHA-256 of a block's canonical bytes, in hexadecimal."""
    if isinstance(values, list):
        digest = hashlib.sha256()
        for text in values:
            data = text.encode("utf-8", "surrogateescape")
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)
        return digest.hexdigest()
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return hashlib.sha256(np.ascontiguousarray(little).data).hexdigest()


class ChecksumTable:
    """Collects the checksums of one variable's blocks, hashing in a pool of threads."""

    def __init__(self, shape: tuple[int, ...], rows: int, pool: ThreadPoolExecutor) -> None:
        self._futures: dict[tuple[int, ...], Future[str]] = {}
        self._shape, self.rows, self._pool = shape, rows, pool

    def add(self, where: tuple[int, ...], values: Values) -> Future[str]:
        """Hash ``values``, which must not change until the future is done."""
        future = self._pool.submit(block_sha256, values)
        self._futures[where] = future
        return future

    def table(self) -> NDArray[np.bytes_]:
        """All checksums, as fixed-length texts of 64 characters."""
        table = np.zeros(self._shape, "S64")
        for where, future in self._futures.items():
            table[where] = future.result().encode()
        return table


def dtype_name(dtype: np.dtype[Any]) -> str:
    """The type's name in specifications: ``float16``, ``int64``, ``string``, ``ascii64``, ..."""
    text = h5py.check_string_dtype(dtype)
    if text is not None:
        return "string" if text.length is None else f"ascii{text.length}"
    return str(dtype.name)


def dimension_names(dataset: h5py.Dataset) -> list[str]:
    """Names of a dataset's dimensions, ``""`` where one has no scale."""
    names = [""] * dataset.ndim
    # HDF5 2.0 frees memory twice where it is asked for a scale whose attribute CLASS is another.
    for axis, references in enumerate(dataset.attrs.get("DIMENSION_LIST", ())):
        scale = dataset.file[references[0]] if len(references) else None
        if isinstance(scale, h5py.Dataset) and scale.attrs.get("CLASS") == b"DIMENSION_SCALE":
            names[axis] = (scale.name or "").lstrip("/")
    return names


def _attributes(item: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    described: dict[str, Any] = {}
    for name in sorted(item.attrs):
        if name in _ADDRESS_ATTRIBUTES:
            continue
        value = item.attrs[name]
        if isinstance(value, (str, bytes)):
            text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
            described[name] = ["string", text]
        elif isinstance(value, h5py.Empty):
            described[name] = ["empty", None]
        elif isinstance(value, np.ndarray) and value.dtype.kind in "OSU":
            described[name] = ["string", [_text(v) for v in value.ravel()]]
        else:
            array = np.asarray(value)
            described[name] = [str(array.dtype.name), plain(array)]
    return described


def _text(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def walk(group: h5py.Group, prefix: str = "") -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """All groups and datasets with their paths, in the order of their names, but the checksums."""
    for name in sorted(group):
        path = f"{prefix}{name}"
        if path == CHECKSUMS:
            continue
        item = group[name]
        yield path, item
        if isinstance(item, h5py.Group) and path.count("/") < 4:
            yield from walk(item, f"{path}/")


def structure(h5: h5py.File) -> dict[str, Any]:
    """Describe everything in a store but the values of its datasets.

    Chunking, compression and storage are left out: they may change without changing content. So are
    the checksums, which are compared with the values themselves.
    """
    described: dict[str, Any] = {"": {"attrs": _attributes(h5)}}
    for path, item in walk(h5):
        entry: dict[str, Any] = {"attrs": _attributes(item)}
        if isinstance(item, h5py.Dataset):
            entry |= {
                "dtype": dtype_name(item.dtype),
                "shape": list(item.shape),
                "dims": dimension_names(item),
            }
        described[path] = entry
    return described


def content_sha256(described: Mapping[str, Any], tables: Mapping[str, NDArray[Any]]) -> str:
    """One fingerprint of a store's content: its variables, their attributes and the provenance.

    What tells how a file was made rather than what it holds (``/info``, whether its data lies in
    shards) is left out, so an interrupted and an uninterrupted run have the same fingerprint.
    """
    content: dict[str, Any] = {}
    for path, entry in described.items():
        if path.split("/")[0] in (INFO, SHARDS):
            continue
        content[path] = dict(entry)
        if path in tables:
            content[path]["blocks"] = hashlib.sha256(
                b"".join(bytes(v) for v in tables[path].ravel())
            ).hexdigest()
    return sha256_text(canonical_json(content))
