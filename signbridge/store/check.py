"""Is a store what it claims to be? The quick check of every opening, and the full one."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from signbridge.errors import first_line
from signbridge.runtime.progress import Progress
from signbridge.store import hdf
from signbridge.store.checksums import (
    DIMENSION_ONLY,
    STRUCTURE,
    block_sha256,
    content_sha256,
    structure,
)
from signbridge.store.provenance import provenance_sha256
from signbridge.store.schema import (
    CHECKSUMS,
    CLASS_VARIABLE,
    FORMAT,
    FORMAT_MAJOR,
    FORMAT_MINOR,
    FORMAT_VERSION,
    GROUP_VARIABLE,
    LAYER_VARIABLE,
    RESID_POST,
    SAMPLE_VARIABLES,
    SHARDS,
    Values,
)
from signbridge.store.shards import all_finite

_REQUIRED = (
    RESID_POST,
    LAYER_VARIABLE.name,
    CLASS_VARIABLE.name,
    *(v.name for v in SAMPLE_VARIABLES),
)
_SMALL = {*_REQUIRED, GROUP_VARIABLE.name} - {RESID_POST}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a store.

    Attributes:
        where: Variable, attribute or file concerned.
        what: What is wrong, one clause.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


def foreign_problem(h5: h5py.File, name: str) -> str | None:
    """Say in one sentence why this is no store of a version known here, or ``None``."""
    found = h5.attrs.get("format")
    found = found.decode("utf-8", "replace") if isinstance(found, bytes) else found
    if not isinstance(found, str) or found != FORMAT:
        return (
            f"{name} is an HDF5 file but not an activation store (its attribute 'format' is not "
            f"'{FORMAT}'): give a file made by extract.py."
        )
    version = h5.attrs.get("format_version")
    major, _ = parse_version(version)
    if major is not None and major > FORMAT_MAJOR:
        return (
            f"{name} has format version {version}, newer than {FORMAT_VERSION} which this "
            "SignBridge reads: upgrade SignBridge."
        )
    return None


def identity_problem(h5: h5py.File, name: str) -> str | None:
    """Say in one sentence why this is no finished store that can be read here, or ``None``."""
    problem = foreign_problem(h5, name)
    if problem:
        return problem
    version = h5.attrs.get("format_version")
    major, _ = parse_version(version)
    if major is None or major < 1:
        return f"{name} has the unreadable format version {version!r}: the file is damaged."
    complete = h5.attrs.get("complete")
    if complete is None or not np.all(np.asarray(complete) == 1):
        return (
            f"{name} is incomplete, its writer was stopped: run the extraction again with the same "
            "settings to finish it."
        )
    return None


def parse_version(version: Any) -> tuple[int | None, int]:
    """Split ``"1.0"`` into numbers; ``(None, 0)`` if it is no version."""
    if isinstance(version, bytes):
        version = version.decode("ascii", "replace")
    try:
        major, minor = str(version).split(".")
        return int(major), int(minor)
    except ValueError:
        return None, 0


def is_newer_minor(h5: h5py.File) -> bool:
    """Whether a later SignBridge of the same major format version wrote the file."""
    major, minor = parse_version(h5.attrs["format_version"])
    return major == FORMAT_MAJOR and minor > FORMAT_MINOR


def quick_problems(
    h5: h5py.File, path: Path, described: dict[str, Any] | None = None
) -> list[Problem]:
    """Check attributes, types, shapes and dimensions, and that no shard is missing.

    Takes milliseconds whatever the size of the store.

    Args:
        h5: The open store.
        path: Its path.
        described: Its structure, if known.
    """
    problems: list[Problem] = []
    try:
        stored = json.loads(h5[CHECKSUMS][STRUCTURE].asstr(errors="surrogateescape")[()])
        assert isinstance(stored, dict)
    except hdf.DAMAGE:
        return [Problem(f"{CHECKSUMS}/{STRUCTURE}", "missing or unreadable")]
    found = structure(h5) if described is None else described
    for place in sorted({*stored, *found}):
        problems += _differences(place, stored.get(place), found.get(place))
    problems += [Problem(name, "the variable is missing") for name in _REQUIRED if name not in h5]
    if not problems:
        problems += _shard_problems(h5, path)
    return problems


def _differences(place: str, stored: Any, found: Any) -> Iterator[Problem]:
    if stored == found:
        return
    shown = place or "the file"
    if found is None:
        yield Problem(shown, "missing")
    elif stored is None:
        yield Problem(shown, "was added after the store was written")
    else:
        for key in ("dtype", "shape", "dims"):
            if stored.get(key) != found.get(key):
                yield Problem(shown, f"its {key} is {found.get(key)}, not {stored.get(key)}")
        old, new = stored.get("attrs", {}), found.get("attrs", {})
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name):
                what = "missing" if name not in new else "changed after the store was written"
                yield Problem(f"attribute '{name}' of {shown}", what)


def shard_sizes(h5: h5py.File, path: Path) -> list[tuple[Path, int]]:
    """The shard files that a store of virtual datasets refers to, with their sizes."""
    if SHARDS not in h5:
        return []
    names = hdf.get_rows(h5[SHARDS]["name"], 0, len(h5[SHARDS]["name"]))
    sizes = h5[SHARDS]["size"][:]
    return [(path.parent / str(name), int(n)) for name, n in zip(names, sizes, strict=True)]


def _shard_problems(h5: h5py.File, path: Path) -> Iterator[Problem]:
    for shard, size in shard_sizes(h5, path):
        try:
            found = shard.stat().st_size
        except OSError:
            yield Problem(str(shard), "this shard of the store is missing")
            continue
        if found != size:
            yield Problem(str(shard), f"this shard has {found} bytes instead of {size}")


def full_problems(h5: h5py.File, path: Path, progress: Progress | None = None) -> Iterator[Problem]:
    """Check every value against its checksum, and what must hold between the values.

    Args:
        h5: The open store.
        path: Its path.
        progress: Called with blocks done and blocks to do.
    """
    described = structure(h5)
    problems = quick_problems(h5, path, described)
    yield from problems
    if problems:  # sizes cannot be relied upon
        return
    tables = dict(_tables(h5[CHECKSUMS]))
    problems = list(_coverage_problems(described, tables))
    yield from problems
    if problems:
        return
    done, total = 0, sum(table.size for table in tables.values())
    values: dict[str, Any] = {}
    with ThreadPoolExecutor(max_workers=2) as pool:  # reading and hashing at the same time
        waiting: deque[tuple[str, Future[str | None]]] = deque()
        for name, table in tables.items():
            checksums, rows = table[()], int(table.attrs["rows_per_block"])
            dataset = h5[name]
            for where in np.ndindex(checksums.shape):
                label, block = _read_block(dataset, name, rows, where)
                waiting.append((label, pool.submit(_block_problem, block, checksums[where])))
                if not isinstance(block, Exception) and name in _SMALL:
                    values.setdefault(name, []).extend(block)
                while len(waiting) > 8:
                    yield from _finished(*waiting.popleft())
                done += 1
                if progress:
                    progress(done, total)
        for label, future in waiting:
            yield from _finished(label, future)
    yield from _value_problems(h5, values)
    tables_read = {name: table[()] for name, table in tables.items()}
    if content_sha256(described, tables_read) != h5[CHECKSUMS].attrs.get("content_sha256"):
        yield Problem("attribute 'content_sha256' of checksums", "does not match the checksums")
    provenance = {
        key: hdf.read_attribute(h5.attrs[key])
        for key in hdf.read_attribute(h5.attrs["provenance_keys"])
    }
    if provenance_sha256(provenance) != h5.attrs["provenance_sha256"]:
        yield Problem("attribute 'provenance_sha256'", "does not match the provenance")


def _coverage_problems(
    described: dict[str, Any], tables: dict[str, h5py.Dataset]
) -> Iterator[Problem]:
    """Every dataset that holds values must have a checksum for each block of them."""
    values = {p for p, e in described.items() if "shape" in e and not _is_dimension_only(e)}
    for path in sorted(values ^ set(tables)):
        known = path in values
        yield Problem(path, "has no checksums" if known else "has checksums but no values")
    for path in sorted(values & set(tables)):
        shape, rows = described[path]["shape"] or [1], int(tables[path].attrs["rows_per_block"])
        wanted: tuple[int, ...] = (-(-shape[0] // max(1, rows)),)
        if len(shape) == 3:
            wanted = (*wanted, shape[1])
        if rows < 1 or tables[path].shape != wanted or tables[path].dtype != np.dtype("S64"):
            yield Problem(f"{CHECKSUMS}/{path}", "does not cover all values")


def _is_dimension_only(entry: dict[str, Any]) -> bool:
    return str(entry["attrs"].get("NAME", ["", ""])[1]).startswith(DIMENSION_ONLY)


def _block_problem(block: Values | Exception, checksum: bytes) -> str | None:
    if isinstance(block, Exception):
        return f"cannot be read ({first_line(block)})"
    if block_sha256(block).encode() != bytes(checksum):
        return "its values do not match their checksum"
    if isinstance(block, np.ndarray) and not all_finite(block):
        return "holds NaN or infinity"
    return None


def _finished(label: str, future: Future[str | None]) -> Iterator[Problem]:
    what = future.result()
    if what:
        yield Problem(label, what)


def _tables(group: h5py.Group, prefix: str = "") -> Iterator[tuple[str, h5py.Dataset]]:
    for name, item in sorted(group.items()):
        if isinstance(item, h5py.Group):
            yield from _tables(item, f"{prefix}{name}/")
        elif f"{prefix}{name}" != STRUCTURE:
            yield f"{prefix}{name}", item


def _read_block(
    dataset: h5py.Dataset, name: str, rows: int, where: tuple[int, ...]
) -> tuple[str, Values | Exception]:
    if dataset.shape == ():
        start, stop, label = 0, 1, name
    else:
        start = where[0] * rows
        stop = min(start + rows, dataset.shape[0])
        label = f"{name}, rows {start} to {stop - 1}"
    layer = where[1] if len(where) > 1 else None
    if layer is not None:
        label += f", layer index {layer}"
    try:
        if dataset.shape == ():
            return label, hdf.whole(dataset)
        return label, hdf.get_rows(dataset, start, stop, layer)
    except hdf.DAMAGE as error:
        return label, error


def _value_problems(h5: h5py.File, values: dict[str, Any]) -> Iterator[Problem]:
    n = h5[RESID_POST].shape[0]
    for variable in SAMPLE_VARIABLES:
        length = h5[variable.name].shape[0]
        if length != n:
            yield Problem(variable.name, f"has {length} values for {n} samples")
    ids = values.get("sample_id", [])
    if len(set(ids)) != len(ids):
        yield Problem("sample_id", "an id occurs more than once")
    n_classes = h5[CLASS_VARIABLE.name].shape[0]
    labels = np.asarray(values.get("label", []), np.int64)
    if ((labels < 0) | (labels >= n_classes)).any():
        yield Problem("label", f"a label is not between 0 and {n_classes - 1}")
    if (np.asarray(values.get("group", []), np.int64) < 0).any():
        yield Problem("group", "a group number is negative")
    names = values.get(GROUP_VARIABLE.name)
    if names is not None:
        if len(set(names)) != len(names) or "" in names:
            yield Problem(GROUP_VARIABLE.name, "a name is empty or occurs more than once")
        if max(values.get("group", []), default=-1) >= len(names):
            yield Problem("group", f"a group number is above {len(names) - 1}, the last name")
    layers = list(values.get("layer", []))
    if len(set(layers)) != len(layers):
        yield Problem("layer", "a layer number occurs more than once")
