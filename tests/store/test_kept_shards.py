"""Stores that refer to their shards."""

import h5py
import numpy as np
import pytest

from signbridge.errors import StoreError
from signbridge.store import StoreWriter, open_store, verify_store


def test_kept_shards_have_the_same_content(producer, make_store, tmp_path, monkeypatch):
    plain = make_store("plain.h5", n=150)
    (tmp_path / "100%b").mkdir()  # HDF5 takes a % in the name of a shard for a pattern
    path = make_store("100%b/kept %s.h5", n=150, keep_shards=True)
    assert len(list(path.with_name(path.name + ".parts").glob("shard-*.h5"))) == 10
    assert verify_store(path) == []
    assert producer.snapshot(path) == producer.snapshot(plain)
    monkeypatch.chdir(path.parent)
    assert producer.snapshot(path.name) == producer.snapshot(plain)
    moved = tmp_path / "moved"
    path.parent.rename(moved)
    monkeypatch.chdir(tmp_path)
    assert producer.snapshot(moved / path.name) == producer.snapshot(plain)


def test_a_missing_or_damaged_kept_shard_is_an_error(make_store):
    path = make_store("kept.h5", n=150, keep_shards=True)
    shard = path.parent / "kept.h5.parts" / "shard-00003.h5"
    store = open_store(path)
    data = shard.read_bytes()
    shard.unlink()
    with pytest.raises(StoreError, match=r"shard-00003\.h5: this shard of the store is missing"):
        open_store(path)
    with pytest.raises(StoreError, match=r"shard-00003\.h5 .* is missing"):
        store.layer(2)
    assert "shard-00003.h5" in str(verify_store(path)[0])
    with h5py.File(path) as h5:  # a plain tool sees NaN rather than a credible number
        assert np.isnan(h5["resid_post"][50, 0]).all()
    shard.write_bytes(data[:-8])
    with pytest.raises(StoreError, match="bytes instead of"):
        open_store(path)
    shard.write_bytes(data)
    place = data.find(open_store(path).layer(2)[50].tobytes())
    changed = bytearray(data)
    changed[place] ^= 1
    shard.write_bytes(changed)
    assert "rows 0 to 63, layer index 1" in str(verify_store(path)[0])


def test_overwriting_kept_shards_never_leaves_a_store_without_them(producer, make_store, tmp_path):
    path = make_store("kept.h5", n=60, keep_shards=True)
    spec, samples, provenance, _ = producer.inputs(n=60)
    with StoreWriter(path, spec, samples, provenance, overwrite=True) as writer:
        assert not path.exists()
        assert len(writer.pending()) == len(writer.shards)
