"""Is a store what it claims to be? The quick check of every opening, and the full one."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from signbridge.errors import first_line
from signbridge.runtime.progress import Progress
from signbridge.runtime.reading import parse_json
from signbridge.store import hdf
from signbridge.store.checksums import (
    STRUCTURE,
    block_sha256,
    content_sha256,
    structure,
)
from signbridge.store.rules import (
    REQUIRED,
    SMALL,
    Problem,
    is_dimension_only,
    is_utf8,
    layout_problems,
    shard_problems,
    value_problems,
)
from signbridge.store.schema import (
    CHECKSUMS,
    FORMAT,
    FORMAT_MAJOR,
    FORMAT_MINOR,
    FORMAT_VERSION,
    INFO,
    Values,
)
from signbridge.store.shards import all_finite


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

    Takes milliseconds whatever the size of the store. What must hold between the values is for
    :func:`signbridge.store.rules.value_problems`.

    Args:
        h5: The open store.
        path: Its path.
        described: Its structure, if known.
    """
    problems: list[Problem] = []
    try:
        stored = parse_json(h5[CHECKSUMS][STRUCTURE].asstr(errors="surrogateescape")[()])
        assert isinstance(stored, dict)
    except hdf.DAMAGE:
        return [Problem(f"{CHECKSUMS}/{STRUCTURE}", "missing or unreadable")]
    found = structure(h5) if described is None else described
    for place in sorted({*stored, *found}):
        problems += _differences(place, stored.get(place), found.get(place))
    problems += [Problem(name, "the variable is missing") for name in REQUIRED if name not in h5]
    if problems:  # the rest cannot be relied upon
        return problems
    problems += layout_problems(h5, found)
    problems += _coverage_problems(found, dict(_tables(h5[CHECKSUMS])))
    return problems or list(shard_problems(h5, path))


def fingerprint_problems(h5: h5py.File, described: dict[str, Any]) -> Iterator[Problem]:
    """Check the fingerprint of the content, by which results name the store that they are of.

    Args:
        h5: The open store.
        described: Its structure.
    """
    tables = {name: table[()] for name, table in _tables(h5[CHECKSUMS])}
    found = h5[CHECKSUMS].attrs.get("content_sha256")
    if content_sha256(described, tables) != hdf.read_attribute(found):
        yield Problem("attribute 'content_sha256' of checksums", "does not match the checksums")


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


def full_problems(
    h5: h5py.File,
    path: Path,
    progress: Progress | None = None,
    known: Collection[str] = (),
) -> Iterator[Problem]:
    """Check every value against its checksum, and what must hold between the values.

    Args:
        h5: The open store.
        path: Its path.
        progress: Called with blocks done and blocks to do.
        known: Variables whose values were compared with their checksums already.
    """
    described = structure(h5)
    problems = quick_problems(h5, path, described)
    yield from problems
    if problems:  # sizes cannot be relied upon
        return
    tables = {name: table for name, table in _tables(h5[CHECKSUMS]) if name not in known}
    done, total = 0, sum(table.size for table in tables.values())
    values: dict[str, Any] = {}
    with ThreadPoolExecutor(max_workers=2) as pool:  # reading and hashing at the same time
        waiting: deque[tuple[str, Future[str | None]]] = deque()
        for name, table in tables.items():
            checksums, rows = table[()], int(table.attrs["rows_per_block"])
            dataset = h5[name]
            for where in np.ndindex(checksums.shape):
                label, block = _read_block(dataset, name, rows, where)
                waiting.append((label, pool.submit(block_problem, block, checksums[where])))
                if not isinstance(block, Exception) and name in SMALL:
                    values.setdefault(name, []).extend(block)
                while len(waiting) > 8:
                    yield from _finished(*waiting.popleft())
                done += 1
                if progress:
                    progress(done, total)
        for label, future in waiting:
            yield from _finished(label, future)
    yield from value_problems(values)
    try:
        hdf.read_info(h5)
    except hdf.DAMAGE as error:
        yield Problem(INFO, f"cannot be read ({first_line(error)})")
    yield from fingerprint_problems(h5, described)


def _coverage_problems(
    described: dict[str, Any], tables: dict[str, h5py.Dataset]
) -> Iterator[Problem]:
    """Every dataset that holds values must have a checksum for each block of them."""
    values = {p for p, e in described.items() if "shape" in e and not is_dimension_only(e)}
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


def block_problem(block: Values | Exception, checksum: bytes) -> str | None:
    """What is wrong with a block of values, or the error that reading it gave."""
    if isinstance(block, Exception):
        return f"cannot be read ({first_line(block)})"
    if block_sha256(block).encode() != bytes(checksum):
        return "its values do not match their checksum"
    if isinstance(block, np.ndarray) and not all_finite(block):
        return "holds NaN or infinity"
    if isinstance(block, list) and not is_utf8(block):
        return "holds a text that is not UTF-8"
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
