"""A whole store file: streamed from any source of rows, verified, and only then given its name."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from signbridge.errors import StoreError, first_line
from signbridge.runtime.files import canonical_json, temporary_name
from signbridge.runtime.progress import Progress, StageProgress, stage
from signbridge.store import files, hdf
from signbridge.store.check import block_problem, full_problems
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

# Written before the disk is waited for and read back.
_READ_BACK_BYTES = 64 << 20


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
        progress: Told how far writing has come.
        finished: What an error of the system is to say of what was finished before.

    Raises:
        StoreError: If there is not enough room, the system refuses, the source finds its rows
            damaged, or the written file does not verify.
    """
    with files.clear_errors(path, finished=finished), NewStoreFile(path, content, opener) as file:
        file.add(len(content.samples), stage(progress, "making the file"))
        file.publish(stage(progress, "verifying the file"))


class NewStoreFile:
    """A store in the making, under a temporary name; nothing is left of it unless it is published.

    Rows are added in order. What was added is read back from the disk and compared at once, so that
    little is left to do at the end, however large the store. Memory stays bounded: by what is
    written before it is read back. As a context manager it discards what was not published.

    Args:
        path: The store's file, which stays what it was until the end.
        content: What goes into it; its ``info`` may change until the end.
        opener: Opens the file to write; replaced in tests.

    Raises:
        OSError: If the system refuses to write, here and in every method.
        StoreError: If there is not enough room.
    """

    def __init__(self, path: Path, content: Content, opener: Opener | None = None) -> None:
        refuse_link(path)
        if not content.shards:
            n_classes = len(content.samples.class_names)
            files.check_space(path, shard_space(content.spec, len(content.samples), n_classes))
        self._path, self._content = path, content
        self._temporary = temporary_name(path)
        self._open = ExitStack()
        self._blocks = 0  # that were added
        try:
            opened = self._open.enter_context(new_hdf5(self._temporary, opener))
            self._h5, self._file = opened
            threads = max(1, min(4, os.cpu_count() or 1))
            self._pool = self._open.enter_context(ThreadPoolExecutor(threads))
            self._begin()
        except BaseException:
            self._open.__exit__(*sys.exc_info())
            raise

    def _begin(self) -> None:
        h5, content = self._h5, self._content
        h5.attrs["format"] = FORMAT
        named = content.samples.group_names is not None
        # What the file holds, so that who knows no later version reads it without a warning.
        version = "1.2" if content.spec.thumbnails else "1.1" if named else "1.0"
        h5.attrs["format_version"] = version
        h5.attrs["complete"] = np.int8(0)
        for key, value in content.provenance.items():
            h5.attrs[key] = hdf.attribute_value(value)
        h5.attrs["provenance_keys"] = hdf.attribute_value(sorted(content.provenance))
        h5.attrs["provenance_sha256"] = provenance_sha256(content.provenance)

        about = (LAYER_VARIABLE, CLASS_VARIABLE, *([GROUP_VARIABLE] if named else []))
        variables = (*about, *SAMPLE_VARIABLES, *content.spec.captured)
        for variable in variables:
            layout = _virtual_layout(variable, content)
            hdf.create_variable(h5, variable, content.shape(variable), layout)
        hdf.create_dimensions(h5, content.sizes())
        hdf.attach_dimensions(h5, variables)
        self._tables = {v.name: _table(v, content.shape(v), self._pool) for v in variables}
        # Opening them again is slow.
        self._datasets = {v.name: h5[v.name] for v in content.spec.captured}
        _put_known(h5, self._tables, content, self._file)

    def add(
        self,
        stop: int,
        progress: Progress | None = None,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """Add the whole blocks of rows before ``stop``, and read back what lies in chunks.

        Args:
            stop: The source has the rows before this one.
            progress: Called with samples done and samples to do.
            is_wanted: Asked before each block whether to go on.

        Raises:
            StoreError: If the source finds its rows damaged, or what the disk holds is not what was
                written.
        """
        samples = len(self._content.samples)
        edges = list(block_edges(samples, CHUNK_ROWS))
        written: list[_Written] = []
        size = 0
        for start, end in edges[self._blocks :]:
            if end > stop or not is_wanted():
                break
            for written_now in self._add_block(self._blocks, start, end):
                written.append(written_now)
                size += written_now.size
            self._blocks += 1
            if size >= _READ_BACK_BYTES:
                self._read_back(written)
                written, size = [], 0
            if progress:
                progress(end, samples)
        self._read_back(written)

    def _add_block(self, block: int, start: int, stop: int) -> Iterator[_Written]:
        content = self._content
        for variable in content.spec.captured:
            layers = range(len(content.spec.layers)) if variable.has_layers else (None,)
            dataset = self._datasets[variable.name]
            for layer in layers:
                values = content.source.rows(variable, start, stop, layer)
                where = (block,) if layer is None else (block, layer)
                sha256 = self._tables[variable.name].add(where, values)
                if not (content.shards and variable.is_feature):
                    hdf.put_rows(dataset, start, values, layer)
                self._file.raise_error()
                if dataset.chunks is not None and isinstance(values, np.ndarray):
                    place = (start,) if layer is None else (start, layer)
                    yield _Written(variable.name, place, values.shape, values.nbytes, sha256)

    def _read_back(self, written: Sequence[_Written]) -> None:
        """Compare the disk's bytes with the checksums of what was to be written."""
        if not written:
            return
        self._file.sync()  # and let go, so that the disk is read, not what the system still holds
        checked = []
        for piece in written:
            dataset = self._datasets[piece.variable]
            offset = (*piece.place, *[0] * (dataset.ndim - len(piece.place)))
            data = np.frombuffer(dataset.id.read_direct_chunk(offset)[1], dataset.dtype)
            values = data[: math.prod(piece.shape)].reshape(piece.shape)
            sha256 = piece.sha256.result().encode()
            checked.append((piece, self._pool.submit(block_problem, values, sha256)))
            self._file.raise_error()
        for piece, problem in checked:
            if problem.result() is not None:
                where = f"{piece.variable}, row {piece.place[0]} and further: {problem.result()}"
                raise self._does_not_verify(where)

    def publish(self, progress: Progress | None = None) -> None:
        """Write what is known only at the end, check what is not yet, and give it its name.

        Args:
            progress: Called with blocks checked and blocks to check.

        Raises:
            StoreError: If the written file does not verify.
        """
        h5, content, tables = self._h5, self._content, self._tables
        hdf.write_info(h5, content.info)
        _write_shard_list(h5, content.shards)
        for name in (INFO, SHARDS):
            for key, dataset in h5.get(name, {}).items():
                path = f"{name}/{key}"
                tables[path] = ChecksumTable((1,), max(1, dataset.size), self._pool)
                tables[path].add((0,), hdf.whole(dataset))
        _write_checksums(h5, tables)
        h5.attrs["complete"] = np.int8(1)  # last
        self._datasets.clear()
        self._open.close()
        try:
            self._verify(progress)
            files.replace(self._temporary, self._path)
        except BaseException:
            with suppress(OSError):
                self._temporary.unlink()
            raise

    def _verify(self, progress: Progress | None) -> None:
        """Check the file as a reader finds it, but for the values that were read back before."""
        try:
            with suppress(OSError), self._temporary.open("rb") as file:
                files.let_go(file.fileno())
            with hdf.open_hdf5(self._temporary) as h5:
                known = {name for name, item in h5.items() if getattr(item, "chunks", None)}
                problem: object = next(full_problems(h5, self._temporary, progress, known), None)
        except hdf.DAMAGE as error:
            problem = first_line(error)
        if problem is not None:
            raise self._does_not_verify(problem)

    def _does_not_verify(self, problem: object) -> StoreError:
        return StoreError(
            f"The file written for {self._path} does not verify ({problem}), so it was discarded: "
            "check disk and memory, then run the same command again."
        )

    def __enter__(self) -> NewStoreFile:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Discard what was not published."""
        error = error or _Discarded()
        self._open.__exit__(type(error), error, None)


class _Discarded(Exception):  # noqa: N818  (no error, but takes the way of one)
    """Ends a file in the making."""


@dataclass(frozen=True)
class _Written:
    """A chunk that was written."""

    variable: str
    place: tuple[int, ...]  # its first row, and its position along the layers
    shape: tuple[int, ...]
    size: int  # bytes
    sha256: Future[str]


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
