"""Writing one shard: what is checked on the way, and what the system is asked for."""

import hashlib
import itertools
import json
import os
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest

from signbridge.errors import StoreError
from signbridge.store import StoreWriter, open_store
from signbridge.store.shards import all_finite


@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", "<f8"])
def test_every_float16_is_judged_as_numpy_does(dtype):
    values = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    with np.errstate(invalid="ignore"):  # signalling NaN
        values = values.astype(dtype)
    finite = np.isfinite(values)
    assert [all_finite(values[i : i + 1]) for i in range(len(values))] == finite.tolist()
    assert all_finite(values[finite])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_one_value_anywhere_is_found(dtype, value):
    array = np.full((5, 1, 70_000), np.finfo(dtype).max, dtype)
    array[::2] *= -1
    assert all_finite(array)
    assert all_finite(array[:0])
    for place in (0, 131_071, 131_072, -1):
        wrong = array.copy()
        wrong.reshape(-1)[place] = value
        assert not all_finite(wrong)


def test_overflow_in_a_late_chunk_names_the_first_sample_and_leaves_nothing(producer, tmp_path):
    spec, samples, provenance, data = producer.inputs(n=150)
    data["resid_post"][140, 0, 3] = 1e6  # an earlier place in the file than the next
    data["resid_post"][70, 2, 7] = -1e6
    with StoreWriter(tmp_path / "s.h5", spec, samples, provenance) as writer:
        before = sorted((tmp_path / "s.h5.parts").iterdir())
        with pytest.raises(StoreError, match=r"-1e\+06 of resid_post at layer 5.*'train/70'"):
            writer.write_shard(0, data)
        assert sorted((tmp_path / "s.h5.parts").iterdir()) == before


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16, np.int32])
def test_numbers_are_cast_as_numpy_casts(kind, producer, tmp_path):
    spec, samples, provenance, data = producer.inputs(n=150)
    data["resid_post"] = (data["resid_post"] * 1000).astype(kind)[::-1]  # not contiguous either
    path = tmp_path / "s.h5"
    with StoreWriter(path, spec, samples, provenance) as writer:
        writer.write_shard(0, data)
        writer.consolidate()
    with open_store(path) as store:
        for place, layer in enumerate(store.layers):
            expected = data["resid_post"][:, place].astype(np.float16)
            np.testing.assert_array_equal(store.layer(layer), expected)


def test_shards_written_at_the_same_time(producer, make_store, tmp_path):
    reference = make_store("reference.h5", n=200)
    spec, samples, provenance, data = producer.inputs(n=200)
    path = tmp_path / "s.h5"
    with StoreWriter(path, spec, samples, provenance, producer.info(), shard_size=16) as writer:

        def write(shard):
            writer.write_shard(shard.index, producer.rows(data, shard.start, shard.stop))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, reversed(writer.pending())))
        writer.consolidate()
    assert path.read_bytes() == reference.read_bytes()


LARGE = {"n": 128, "hidden": 8192, "layers": (0, 1, 2, 3, 4, 5, 6, 7)}  # 17 MB in chunks of 1 MB


def write_large(producer, folder):
    spec, samples, provenance, data = producer.inputs(**LARGE)
    with StoreWriter(folder / "s.h5", spec, samples, provenance) as writer:
        writer.write_shard(0, data)
        assert writer.pending() == []
    return folder / "s.h5.parts" / "shard-00000.h5", data


def test_a_large_shard_is_written_out_while_it_is_made(producer, monkeypatch, tmp_path):
    asked, synced = [], []
    fsync = os.fsync

    def advise(fd, start, size, advice):
        assert advice == os.POSIX_FADV_DONTNEED
        assert not synced  # of the shard: the first fsync after the plan's
        asked.append((start, start + size))

    spec, samples, provenance, data = producer.inputs(**LARGE)
    with StoreWriter(tmp_path / "s.h5", spec, samples, provenance) as writer:
        monkeypatch.setattr(os, "posix_fadvise", advise, raising=False)
        monkeypatch.setattr(os, "POSIX_FADV_DONTNEED", 4, raising=False)
        monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(fd), fsync(fd))[1])
        writer.write_shard(0, data)
    path = tmp_path / "s.h5.parts" / "shard-00000.h5"
    covered = 0
    for start, stop in asked:
        assert start <= covered + 4096  # chunks begin with a page, so there are small gaps
        covered = max(covered, stop)
    assert covered > path.stat().st_size - (4 << 20)
    # After the first, which may reach over the room left for chunks, nothing is asked for twice.
    assert all(b[0] >= a[1] for a, b in itertools.pairwise(asked[1:]))
    assert len(asked) >= 4


@pytest.mark.parametrize("system", ["refuses", "has no such call"])
def test_advice_that_cannot_be_given_changes_nothing(system, producer, monkeypatch, tmp_path):
    def refuse(*_):
        raise OSError(22, "Invalid argument")

    if system == "refuses":
        monkeypatch.setattr(os, "posix_fadvise", refuse, raising=False)
    else:
        monkeypatch.delattr(os, "posix_fadvise", raising=False)
    path, data = write_large(producer, tmp_path)
    with h5py.File(path) as h5:
        np.testing.assert_array_equal(h5["resid_post"][()], data["resid_post"].astype(np.float16))


def test_the_record_is_of_the_file_and_large_chunks_begin_with_a_page(producer, tmp_path):
    path, data = write_large(producer, tmp_path)
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert record["size"] == path.stat().st_size < 1.01 * data["resid_post"].nbytes / 2
    offsets = []
    with h5py.File(path) as h5:
        h5["resid_post"].id.chunk_iter(lambda chunk: offsets.append(chunk.byte_offset))
    assert len(offsets) == 16
    assert all(offset % 4096 == 0 for offset in offsets)
