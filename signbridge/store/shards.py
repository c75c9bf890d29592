"""One shard: checked, written whole, and read back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from signbridge.errors import StoreError
from signbridge.runtime.files import temporary_name
from signbridge.store import files, hdf
from signbridge.store.guarded import GuardedFile, Opener
from signbridge.store.opening import open_plain
from signbridge.store.parts import Parts
from signbridge.store.schema import (
    SampleTable,
    Shard,
    StoreSpec,
    Values,
    Variable,
)

_PIECE = 1 << 17
# A large chunk begins with a page of memory, which the system copies a quarter faster; of smaller
# ones the gaps would be more than 1 % of the file.
_ALIGNED = {"alignment_threshold": 1 << 19, "alignment_interval": 1 << 12}


def checked_shard(
    shard: Shard, data: Mapping[str, Any], spec: StoreSpec, n_classes: int
) -> dict[str, Values]:
    """Check the names, shapes and kinds of a shard's data, before anything is written.

    Whether numbers are finite in the stored type is found while they are written, block by block
    in the processor's cache: another pass through all of them would cost as much as the copy.

    Raises:
        StoreError: If a variable is missing, unknown, or of the wrong shape or kind.
    """
    sizes = spec.sizes(len(shard), n_classes)
    wanted = {v.name: v for v in spec.captured}
    if set(data) != set(wanted):
        raise StoreError(
            f"Shard {shard.index} must hold exactly {', '.join(sorted(wanted))}, but was given "
            f"{', '.join(sorted(data)) or 'nothing'}."
        )
    checked: dict[str, Values] = {}
    for name, variable in wanted.items():
        shape = tuple(sizes[dim] for dim in variable.dims)
        if variable.dtype == "string":
            checked[name] = _checked_texts(data[name], shard, name)
        else:
            checked[name] = _checked_numbers(data[name], shape, variable, shard)
    return checked


def _checked_texts(values: Any, shard: Shard, name: str) -> list[str]:
    texts = list(values)
    if len(texts) != len(shard) or not all(isinstance(t, str) for t in texts):
        raise StoreError(
            f"Shard {shard.index} needs {len(shard)} texts of {name}, but was given {len(texts)}."
        )
    # A model may generate what HDF5 texts cannot hold; an answer is not worth losing a run for.
    return [t.replace("\0", "\ufffd").encode("utf-8", "replace").decode() for t in texts]


def _checked_numbers(
    values: Any,
    shape: tuple[int, ...],
    variable: Variable,
    shard: Shard,
) -> NDArray[Any]:
    array = np.asarray(values)
    if array.shape != shape:
        raise StoreError(
            f"Shard {shard.index} needs {variable.name} of shape {shape}, but was given "
            f"{array.shape}."
        )
    dtype = np.dtype(variable.dtype)
    if dtype.kind == "u":
        if array.dtype.kind not in "iub" or (
            array.dtype != dtype and (array.min() < 0 or array.max() > np.iinfo(dtype).max)
        ):
            raise StoreError(
                f"Shard {shard.index} has values of {variable.name} that are not integers from 0 "
                f"to {np.iinfo(dtype).max}."
            )
        return np.ascontiguousarray(array, dtype)
    if array.dtype.kind not in "fiu":
        raise StoreError(
            f"Shard {shard.index} needs numbers for {variable.name}, but was given {array.dtype}."
        )
    return array


def all_finite(array: NDArray[Any]) -> bool:
    """Whether no value is NaN or infinite."""
    if array.dtype.kind != "f":
        return True
    flat = array.reshape(-1)  # in pieces that stay in the processor's cache
    pieces = (flat[i : i + _PIECE] for i in range(0, flat.size, _PIECE))
    if not array.dtype.isnative:
        return all(bool(np.isfinite(piece).all()) for piece in pieces)
    # The bits of a float are in order as an integer, with infinity and NaN the largest: as signed
    # ones for the positive, as unsigned ones for the negative. The largest integer is found faster,
    # and without a temporary array.
    signed, unsigned = f"i{array.dtype.itemsize}", f"u{array.dtype.itemsize}"
    above = np.array(np.inf, array.dtype).view(signed)
    below = np.array(-np.inf, array.dtype).view(unsigned)
    return all(
        bool(piece.view(signed).max() < above and piece.view(unsigned).max() < below)
        for piece in pieces
    )


def _not_finite(
    array: NDArray[Any],
    variable: Variable,
    shard: Shard,
    spec: StoreSpec,
    samples: SampleTable,
) -> StoreError:
    """The error that names the first value that cannot be stored."""
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(variable.dtype, copy=False)
    place = tuple(int(i) for i in np.argwhere(~np.isfinite(cast))[0])
    value = float(array[place])
    sample = samples.sample_id[shard.start + place[0]]
    where = f"{variable.name}"
    if variable.has_layers:
        where += f" at layer {spec.layers[place[1]]}"
    where += f", feature {place[-1]}, of sample '{sample}'"
    if np.isnan(value):
        what = f"The value of {where} is NaN"
    elif np.isinf(value):
        what = f"The value of {where} is infinite"
    else:
        limit = f"{float(np.finfo(cast.dtype).max):,.0f}" if cast.dtype == np.float16 else "range"
        what = f"The value {value:g} of {where} exceeds {cast.dtype}'s {limit}"
    if cast.dtype == np.float16:
        advice = "nothing of its shard was stored: try again with --store_dtype float32"
        if not np.isfinite(value):
            advice += " (and a wider compute dtype if the model itself overflows)"
    else:
        advice = "nothing of its shard was stored: check the model and its compute dtype"
    return StoreError(f"{what}; {advice}.")


def write_shard_file(
    parts: Parts,
    shard: Shard,
    data: Mapping[str, Values],
    spec: StoreSpec,
    samples: SampleTable,
    opener: Opener | None = None,
) -> None:
    """Write a checked shard so that it is either recorded and whole, or not there.

    Raises:
        OSError: If the system refuses.
        StoreError: If a value is NaN, infinite or too large for the stored type; names sample,
            layer and site.
    """
    path = parts.shard_path(shard.index)
    temporary = temporary_name(path)
    file = GuardedFile(temporary, opener)
    try:
        try:
            with h5py.File(file, "w", **_ALIGNED) as h5:
                places = _lay_out(h5, data, spec)
        except Exception:
            file.raise_error()  # the cause, rather than what HDF5 made of it
            raise
        sha256 = file.write_blocks(_blocks(places, data, shard, spec, samples))
        file.finish()
        size = temporary.stat().st_size
        with suppress(FileNotFoundError):  # a record never speaks of a shard it was not made for
            parts.record_path(shard.index).unlink()
        files.replace(temporary, path)
        parts.write_record(shard, size, sha256)
    except BaseException:
        file.abandon()
        with suppress(OSError):
            temporary.unlink()
        raise


Place = tuple[int, str, tuple[int, ...], tuple[int, ...]]
"""Where a chunk goes: offset in the file, variable, first element, shape."""


def _lay_out(h5: h5py.File, data: Mapping[str, Values], spec: StoreSpec) -> list[Place]:
    """Write all but the large arrays, for whose chunks HDF5 only finds places in the file.

    Their bytes are then written without HDF5, whose one lock for all threads would keep a second
    shard from being written at the same time.
    """
    places: list[Place] = []
    for variable in spec.captured:
        values = data[variable.name]
        if not isinstance(values, np.ndarray):
            dataset = hdf.create_variable(h5, variable, (len(values),))
            hdf.put_rows(dataset, 0, values)
            continue
        dataset = hdf.create_variable(h5, variable, values.shape, allocate=True)
        found: list[Any] = []
        dataset.id.chunk_iter(found.append)
        places += [(c.byte_offset, variable.name, c.chunk_offset, dataset.chunks) for c in found]
    return sorted(places)


def _blocks(
    places: Sequence[Place],
    data: Mapping[str, Values],
    shard: Shard,
    spec: StoreSpec,
    samples: SampleTable,
) -> Iterator[tuple[int, memoryview]]:
    """The bytes of each chunk in the stored type, checked, in a buffer that fits in the cache."""
    variables = {variable.name: variable for variable in spec.captured}
    buffers: dict[str, NDArray[Any]] = {}
    for offset, name, first, shape in places:
        values = data[name]
        assert isinstance(values, np.ndarray)
        if name not in buffers:
            dtype = np.dtype(variables[name].dtype).newbyteorder("<")
            buffers[name] = np.zeros(shape, dtype)
        buffer = buffers[name]
        block = values[tuple(slice(i, i + n) for i, n in zip(first, shape, strict=True))]
        buffer[len(block) :] = 0  # the last chunk may reach beyond the rows
        with np.errstate(over="ignore", invalid="ignore"):
            np.copyto(buffer[: len(block)], block, casting="unsafe")
        if not all_finite(buffer):
            raise _not_finite(values, variables[name], shard, spec, samples)
        yield offset, buffer.view(np.uint8).reshape(-1).data


class ShardRows:
    """Rows read from shards, in ascending order, each shard verified before it is used.

    Few shards are open at a time; the next one is verified in a thread meanwhile.

    Args:
        parts: The parts.
        shards: All shards, in order.
    """

    def __init__(self, parts: Parts, shards: Sequence[Shard]) -> None:
        self._parts, self._shards = parts, shards
        self._files: dict[int, h5py.File] = {}
        self._datasets: dict[tuple[int, str], h5py.Dataset] = {}
        self._first = 0
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._whole: dict[int, Future[bool]] = {}

    def rows(self, variable: Variable, start: int, stop: int, layer: int | None) -> Values:
        """Rows ``start`` to ``stop`` of ``variable``, at position ``layer`` if it has layers.

        Raises:
            StoreError: If a shard is missing or damaged.
        """
        while self._shards[self._first].stop <= start:
            self._close(self._first)
            self._first += 1
        pieces: list[Any] = []
        for number in range(self._first, len(self._shards)):
            shard = self._shards[number]
            if shard.start >= stop:
                break
            low, high = max(start, shard.start) - shard.start, min(stop, shard.stop) - shard.start
            try:
                dataset = self._dataset(number, variable.name)
                pieces.append(hdf.get_rows(dataset, low, high, layer))
            except (OSError, KeyError, RuntimeError, ValueError) as error:
                raise self._damaged(shard) from error
        if variable.dtype == "string":
            return [text for piece in pieces for text in piece]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _dataset(self, number: int, name: str) -> h5py.Dataset:
        if (number, name) not in self._datasets:
            if number not in self._files:
                shard = self._shards[number]
                if not self._verification(number).result():
                    raise self._damaged(shard)
                path = self._parts.shard_path(shard.index)
                self._files[number] = open_plain(path)
                following = number + 1
                if following < len(self._shards) and self._parts.record(self._shards[following]):
                    self._verification(following)
            self._datasets[number, name] = self._files[number][name]
        return self._datasets[number, name]

    def _verification(self, number: int) -> Future[bool]:
        if number not in self._whole:
            self._whole[number] = self._pool.submit(self._parts.is_whole, self._shards[number])
        return self._whole[number]

    def _damaged(self, shard: Shard) -> StoreError:
        return StoreError(
            f"Shard {self._parts.shard_path(shard.index)} is missing or damaged: run the same "
            "command again to redo it."
        )

    def _close(self, number: int) -> None:
        for key in [key for key in self._datasets if key[0] == number]:
            del self._datasets[key]
        file = self._files.pop(number, None)
        if file is not None:
            file.close()

    def close(self) -> None:
        """Close all files."""
        for number in list(self._files):
            self._close(number)
        self._pool.shutdown(cancel_futures=True)


def shard_space(spec: StoreSpec, n_samples: int, n_classes: int) -> int:
    """A generous estimate of the bytes that shards or a final file of these samples take."""
    answers = 4 * 200 * n_samples if spec.responses else 0
    other = 6000 if spec.thumbnails else 1000
    return int(1.01 * spec.bytes_per_sample(n_classes) * n_samples) + answers + other * n_samples
