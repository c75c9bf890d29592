"""A whole store file: streamed from any source of rows, verified, and only then given its name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from signbridge.errors import StoreError, first_line
from signbridge.runtime.files import canonical_json, temporary_name
from signbridge.runtime.progress import Progress, StageProgress, stage
from signbridge.store import files, hdf
from signbridge.store.check import full_problems
from signbridge.store.checksums import STRUCTURE, ChecksumTable, content_sha256, structure
from signbridge.store.guarded import GuardedFile, Opener, new_hdf5
from signbridge.store.output import refuse_link
from signbridge.store.provenance import provenance_sha256
from signbridge.store.schema import (
    CHECKSUMS,
    CHUNK_ROWS,
    CLASS_VARIABLE,
    FORMAT,
    GROUP_VARIABLE,
    INFO,
    LAYER_VARIABLE,
    SAMPLE_VARIABLES,
    SHARDS,
    SampleTable,
    StoreSpec,
    Values,
    Variable,
    block_edges,
)
from signbridge.store.shards import shard_space


class RowSource(Protocol):
    """Gives captured rows, asked for in ascending order."""

    def rows(self, variable: Variable, start: int, stop: int, layer: int | None) -> Values:
        """Rows ``start`` to ``stop`` of ``variable``, at position ``layer`` if it has layers."""


@dataclass(frozen=True)
class ShardFile:
    """A shard file that a store of virtual datasets refers to."""

    name: str  # relative to the folder of the store
    start: int
    stop: int
    size: int
    sha256: str


@dataclass
class Content:
    """All that goes into a store file."""

    spec: StoreSpec
    samples: SampleTable
    provenance: Mapping[str, Any]
    info: Mapping[str, Any]
    source: RowSource
    shards: Sequence[ShardFile] = field(default_factory=tuple)  # non-empty: virtual datasets

    def sizes(self) -> dict[str, int]:
        """The length of every dimension."""
        sizes = self.spec.sizes(len(self.samples), len(self.samples.class_names))
        if self.samples.group_names is not None:
            (dimension,) = GROUP_VARIABLE.dims
            sizes[dimension] = len(self.samples.group_names)
        return sizes

    def shape(self, variable: Variable) -> tuple[int, ...]:
        """The shape of ``variable``."""
        sizes = self.sizes()
        return tuple(sizes[dim] for dim in variable.dims)


def publish_store(
    path: Path,
    content: Content,
    *,
    opener: Opener | None = None,
    progress: StageProgress | None = None,
    finished: str = "",
) -> None:
    """Write a store so that ``path`` is what it was before, or holds all of it, verified.

    Args:
        path: The store's file.
        content: What goes into it.
        opener: Opens the file to write; replaced in tests.
        progress: Told how far writing and verifying have come.
        finished: What an error of the system is to say of what was finished before.

    Raises:
        StoreError: If there is not enough room, the system refuses, the source finds its rows
            damaged, or the written file does not verify.
    """
    temporary = temporary_name(path)
    try:
        with files.clear_errors(path, finished=finished):
            refuse_link(path)
            if not content.shards:
                n_classes = len(content.samples.class_names)
                needed = shard_space(content.spec, len(content.samples), n_classes)
                files.check_space(path, needed)
            _write_store_file(temporary, content, opener, stage(progress, "making the file"))
            _verify(temporary, path, stage(progress, "verifying the file"))
            files.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _write_store_file(
    target: Path,
    content: Content,
    opener: Opener | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a complete store to ``target``, which must not exist, and fsync it.

    Memory stays bounded: one block of rows at a time. On any error ``target`` is removed.

    Args:
        target: The file.
        content: What goes into it.
        opener: Opens it; replaced in tests.
        progress: Called with samples done and samples to do.

    Raises:
        OSError: If the system refuses to write.
        StoreError: If the source finds its rows damaged.
    """
    with new_hdf5(target, opener) as (h5, file):
        _fill(h5, content, file, progress)


def _verify(temporary: Path, path: Path, progress: Progress | None) -> None:
    """Check every value of a file just written, before it takes its place at ``path``."""
    try:
        with suppress(OSError), temporary.open("rb") as file:
            files.let_go(file.fileno())  # so that the disk is read, not what the system still holds
        with hdf.open_hdf5(temporary) as h5:
            problem: object = next(full_problems(h5, temporary, progress), None)
    except hdf.DAMAGE as error:
        problem = first_line(error)
    if problem is not None:
        raise StoreError(
            f"The file written for {path} does not verify ({problem}), so it was discarded: check "
            "disk and memory, then run the same command again."
        )


def _fill(h5: h5py.File, content: Content, file: GuardedFile, progress: Progress | None) -> None:
    h5.attrs["format"] = FORMAT
    named = content.samples.group_names is not None
    # What the file holds, so that who knows no later version reads it without a warning.
    h5.attrs["format_version"] = "1.2" if content.spec.thumbnails else "1.1" if named else "1.0"
    h5.attrs["complete"] = np.int8(0)
    for key, value in content.provenance.items():
        h5.attrs[key] = hdf.attribute_value(value)
    h5.attrs["provenance_keys"] = hdf.attribute_value(sorted(content.provenance))
    h5.attrs["provenance_sha256"] = provenance_sha256(content.provenance)

    captured = content.spec.captured
    about = (LAYER_VARIABLE, CLASS_VARIABLE, *([GROUP_VARIABLE] if named else []))
    variables = (*about, *SAMPLE_VARIABLES, *captured)
    for variable in variables:
        layout = _virtual_layout(variable, content)
        hdf.create_variable(h5, variable, content.shape(variable), layout)
    hdf.create_dimensions(h5, content.sizes())
    hdf.attach_dimensions(h5, variables)

    with ThreadPoolExecutor(max_workers=max(1, min(4, os.cpu_count() or 1))) as pool:
        tables = {v.name: _table(v, content.shape(v), pool) for v in variables}
        _put_known(h5, tables, content, file)
        _put_captured(h5, tables, content, file, progress)
        hdf.write_info(h5, content.info)
        _write_shard_list(h5, content.shards)
        for name in (INFO, SHARDS):
            for key, dataset in h5.get(name, {}).items():
                path = f"{name}/{key}"
                tables[path] = ChecksumTable((1,), max(1, dataset.size), pool)
                tables[path].add((0,), hdf.whole(dataset))
        _write_checksums(h5, tables)
    h5.attrs["complete"] = np.int8(1)  # last


def _table(variable: Variable, shape: tuple[int, ...], pool: ThreadPoolExecutor) -> ChecksumTable:
    blocks = len(block_edges(shape[0], variable.block_rows))
    table_shape = (blocks, shape[1]) if variable.has_layers else (blocks,)
    return ChecksumTable(table_shape, variable.block_rows, pool)


def _put_known(
    h5: h5py.File, tables: Mapping[str, ChecksumTable], content: Content, file: GuardedFile
) -> None:
    columns: list[tuple[Variable, Values]] = [
        (LAYER_VARIABLE, np.array(content.spec.layers, np.int64)),
        (CLASS_VARIABLE, list(content.samples.class_names)),
    ]
    if content.samples.group_names is not None:
        columns.append((GROUP_VARIABLE, list(content.samples.group_names)))
    columns += [(v, content.samples.column(v.name)) for v in SAMPLE_VARIABLES]
    for variable, values in columns:
        for block, (start, stop) in enumerate(block_edges(len(values), variable.block_rows)):
            hdf.put_rows(h5[variable.name], start, values[start:stop])
            tables[variable.name].add((block,), values[start:stop])
            file.raise_error()


def _put_captured(
    h5: h5py.File,
    tables: Mapping[str, ChecksumTable],
    content: Content,
    file: GuardedFile,
    progress: Progress | None,
) -> None:
    before: list[Future[str]] = []
    datasets = {v.name: h5[v.name] for v in content.spec.captured}  # opening them again is slow
    for block, (start, stop) in enumerate(block_edges(len(content.samples), CHUNK_ROWS)):
        hashing: list[Future[str]] = []
        for variable in content.spec.captured:
            layers = range(len(content.spec.layers)) if variable.has_layers else (None,)
            for layer in layers:
                values = content.source.rows(variable, start, stop, layer)
                where = (block,) if layer is None else (block, layer)
                hashing.append(tables[variable.name].add(where, values))
                if not (content.shards and variable.is_feature):
                    hdf.put_rows(datasets[variable.name], start, values, layer)
                file.raise_error()
        for future in before:  # at most two blocks wait in memory to be hashed
            future.result()
        before = hashing
        if progress:
            progress(stop, len(content.samples))


def _virtual_layout(variable: Variable, content: Content) -> h5py.VirtualLayout | None:
    if not content.shards or not variable.is_feature:
        return None
    shape = content.shape(variable)
    layout = h5py.VirtualLayout(shape, variable.dtype)
    for shard in content.shards:
        rows = shard.stop - shard.start
        layout[shard.start : shard.stop] = h5py.VirtualSource(
            shard.name.replace("%", "%%"),  # HDF5 reads a single % as the start of a pattern
            variable.name,
            shape=(rows, *shape[1:]),
        )
    return layout


def _write_shard_list(h5: h5py.File, shards: Sequence[ShardFile]) -> None:
    if not shards:
        return
    group = h5.create_group(SHARDS)
    group.create_dataset("name", data=np.array([s.name for s in shards], object), dtype=hdf.STRING)
    group.create_dataset("start", data=np.array([s.start for s in shards], np.int64))
    group.create_dataset("stop", data=np.array([s.stop for s in shards], np.int64))
    group.create_dataset("size", data=np.array([s.size for s in shards], np.int64))
    group.create_dataset(
        "sha256", data=np.array([s.sha256 for s in shards], object), dtype=hdf.STRING
    )


def _write_checksums(h5: h5py.File, tables: Mapping[str, ChecksumTable]) -> None:
    group = h5.create_group(CHECKSUMS)
    finished = {path: table.table() for path, table in tables.items()}
    for path, table in finished.items():
        dataset = group.create_dataset(path, data=table)
        dataset.attrs["rows_per_block"] = tables[path].rows
    described = structure(h5)
    described[""]["attrs"]["complete"] = ["int8", 1]
    group.attrs["content_sha256"] = content_sha256(described, finished)
    group.create_dataset(STRUCTURE, data=canonical_json(described), dtype=hdf.STRING)
