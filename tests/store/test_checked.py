"""Reading compares what it gives out with the checksums: no damaged value is used silently."""

import os
import pickle
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

from signbridge.errors import StoreError
from signbridge.store import checked as checked_module
from signbridge.store import open_store

N, LAYERS, HIDDEN = 200, (0, 2, 5), 12


@pytest.fixture(scope="module")
def whole(producer, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "store.h5"
    producer.produce(str(path), n=N)
    return path


@pytest.fixture
def damaged(whole, tmp_path):
    """A copy with one byte flipped in the chunk that holds a row of a variable."""

    def damage(name, row, layer=None, byte=1):
        copy = tmp_path / "copy.h5"
        shutil.copyfile(whole, copy)
        with h5py.File(copy) as h5:
            dataset = h5[name]
            place = (row,) if dataset.ndim == 1 else (row, 0) if layer is None else (row, layer, 0)
            if dataset.chunks:
                chunk = tuple(i // c * c for i, c in zip(place, dataset.chunks))
                offset = dataset.id.get_chunk_info_by_coord(chunk).byte_offset
                row -= chunk[0]
            else:
                offset = dataset.id.get_offset()
            offset += row * dataset.dtype.itemsize * (dataset.shape[-1] if dataset.ndim > 1 else 1)
        data = bytearray(copy.read_bytes())
        data[offset + byte] ^= 0x10
        copy.write_bytes(data)
        return copy

    return damage


def test_a_flipped_bit_is_found_where_it_is_read_and_nowhere_else(damaged, producer):
    path = damaged("resid_post", 70, layer=1)
    expected = producer.inputs(n=N)[3]["resid_post"].astype(np.float16)
    with open_store(path) as store:
        np.testing.assert_array_equal(store.layer(0), expected[:, 0])
        np.testing.assert_array_equal(store.layer(2, slice(0, 64)), expected[:64, 1])
        np.testing.assert_array_equal(store.layer(2, [199, 130, 5]), expected[[199, 130, 5], 1])
        for rows in (None, [64], slice(100, 101), slice(None, None, 50), store.labels == 1):
            with pytest.raises(StoreError) as error:
                store.layer(2, rows)
            said = str(error.value)
            assert "resid_post at layer 2, rows 64 to 127" in said
            assert f"signbridge verify {path}" in said
            assert "\n" not in said
        with pytest.raises(StoreError, match="rows 64 to 127"):
            list(store.blocks(size=64))


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("pixels", lambda store: store.feature("pixels", [190])),
        ("vision", lambda store: store.feature("vision", slice(190, None))),
        ("class_logprob", lambda store: store.class_logprob),
        ("label", lambda store: store.labels),
        ("group", lambda store: store.groups),
    ],
)
def test_every_variable_is_compared(name, read, damaged):
    path = damaged(name, 190)
    with pytest.raises(StoreError, match=f"of {name},"), open_store(path) as store:
        read(store)


@pytest.mark.parametrize("name", ["sample_id", "class_name", "response", "layer"])
def test_texts_and_layers_are_compared(name, whole, tmp_path):
    copy = tmp_path / "copy.h5"
    shutil.copyfile(whole, copy)
    with h5py.File(copy, "r+") as h5:
        h5[name][1] = 3 if name == "layer" else "other"
    attribute = {
        "sample_id": "sample_ids",
        "class_name": "class_names",
        "response": "responses",
        "layer": "layers",
    }[name]
    with pytest.raises(StoreError, match=f"of {name}, rows 0"), open_store(copy) as store:
        getattr(store, attribute)


def test_the_other_checks_read_without_comparing(damaged):
    path = damaged("resid_post", 70, layer=1)
    for verify in ("none", "quick"):
        with open_store(path, verify=verify) as store:
            assert store.layer(2).shape == (N, HIDDEN)
    with pytest.raises(StoreError, match=r"resid_post, rows 64 to 127, layer index 1"):
        open_store(path, verify="full")


def test_a_block_is_hashed_once(whole, monkeypatch):
    hashed = []

    def count(values):
        hashed.append(len(values))
        return original(values)

    original = checked_module.block_sha256
    monkeypatch.setattr(checked_module, "block_sha256", count)
    with open_store(whole) as store:
        assert sorted(hashed) == [3, 4, N, N, N]  # layer, class_name, label, group, sample_id
        hashed.clear()
        for _ in range(3):
            store.layer(2, [3, 70])
            store.layer(2, slice(1, 5))
        assert hashed == [64, 64]  # blocks 0 and 1
        store.layer(2)
        store.layer(2)
    assert sorted(hashed) == [8, 64, 64, 64, 64, 64]


def test_many_blocks_are_read_in_pieces(make_store, producer):
    what = {"n": 1300, "hidden": 4, "layers": (1, 9), "baselines": {}, "responses": False}
    path = make_store("many.h5", shard_size=500, **what)
    expected = producer.inputs(**what)[3]["resid_post"].astype(np.float16)
    for rows in (slice(None), slice(3, 1299), slice(700, 1300, 3)):
        with open_store(path) as store:
            np.testing.assert_array_equal(store.layer(9, rows), expected[rows, 1])
    order = np.random.default_rng(0).permutation(1300)
    with open_store(path) as store:
        np.testing.assert_array_equal(store.layer(9, order), expected[order, 1])
    with h5py.File(path) as h5:
        offset = h5["resid_post"].id.get_chunk_info_by_coord((1280, 1, 0)).byte_offset
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    with open_store(path) as store:
        np.testing.assert_array_equal(store.layer(9, slice(0, 1280)), expected[:1280, 1])
        with pytest.raises(StoreError, match="layer 9, rows 1280 to 1299"):
            store.layer(9)


def test_workers_compare_too(damaged):
    store = open_store(damaged("resid_post", 70, layer=1))
    code = (
        "import pickle, sys\n"
        "store = pickle.load(sys.stdin.buffer)\n"
        "print(store.layer(0).shape)\n"
        "try:\n    store.layer(2)\nexcept Exception as error:\n    print(error)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(store), capture_output=True, check=True
    )
    assert out.stdout.decode().startswith("(200, 12)\n")
    assert "do not match their checksum" in out.stdout.decode()


def test_checksums_that_do_not_cover_the_values(whole, tmp_path):
    copy = tmp_path / "copy.h5"
    for rows in (0, 100):
        shutil.copyfile(whole, copy)
        with h5py.File(copy, "r+") as h5:
            h5["checksums/resid_post"].attrs["rows_per_block"] = rows
        with pytest.raises(StoreError, match="does not cover all values"):
            open_store(copy)
        with open_store(copy, verify="none") as store:
            store.__setstate__({**store.__getstate__(), "checks": True})  # as in a worker
            with pytest.raises(StoreError, match="do not cover"):
                store.layer(0)
    with h5py.File(copy, "r+") as h5:
        del h5["checksums/resid_post"]
    with pytest.raises(StoreError, match="resid_post: has no checksums"):
        open_store(copy)


def test_damage_in_kept_shards_is_found(make_store):
    path = make_store("kept.h5", n=150, keep_shards=True)
    with open_store(path) as store:
        vector = store.layer(2)[50].tobytes()
    shard = path.parent / "kept.h5.parts" / "shard-00003.h5"
    data = bytearray(shard.read_bytes())
    data[data.find(vector)] ^= 1
    shard.write_bytes(data)
    with open_store(path) as store, pytest.raises(StoreError, match="layer 2, rows 0 to 63"):
        store.layer(2)


# -- a store that is replaced while it is open ----------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_worker_does_not_mix_two_stores(make_store, producer):
    """Labels of the old file with vectors of the new one would be wrong without a word."""
    path = make_store("s.h5", n=N)
    store = open_store(path)
    labels = store.labels
    pickled = pickle.dumps(store)
    other = make_store("other.h5", n=N, first=1)
    os.replace(other, path)
    assert store.layer(0).shape == (N, HIDDEN)  # this process still has the old file
    assert (store.labels == labels).all()
    with pytest.raises(StoreError, match="has been replaced by another store"):
        pickle.loads(pickled)
    pid = os.fork()
    if pid == 0:
        try:
            store.layer(0)
        except StoreError as error:
            os._exit(7 if "has been replaced" in str(error) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_the_same_content_made_again_is_no_replacement(make_store):
    path = make_store("s.h5", n=N)
    pickled = pickle.dumps(open_store(path))
    os.replace(make_store("again.h5", n=N, shard_size=64), path)
    assert pickle.loads(pickled).n_samples == N


# -- while probing --------------------------------------------------------------------------------


def test_a_sweep_over_a_damaged_store_ends_with_one_sentence(tmp_path, producer, capsys):
    pytest.importorskip("lightning")
    from signbridge.cli.main import main

    path = tmp_path / "store.h5"
    producer.produce(str(path), n=N)
    with h5py.File(path) as h5:
        offset = h5["resid_post"].id.get_chunk_info_by_coord((64, 2, 0)).byte_offset
    data = bytearray(path.read_bytes())
    data[offset + 5] ^= 0x40
    path.write_bytes(data)
    arguments = ["--store", str(path), "--output", str(tmp_path / "out"), "--bootstrap", "20"]
    assert main(["train_probes", *arguments]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert "resid_post at layer 5, rows 64 to 127" in said[-1]
    assert "signbridge verify" in said[-1]
    assert not (tmp_path / "out" / "scores.csv").exists()
