"""Thumbnails: written, read, continued, joined; and stores that have none."""

import json

import h5py
import pytest

from signbridge.store import StoreWriter, merge_stores, open_store, verify_store
from signbridge.store.merge import extend_store

WITH = {"thumbnails": True}


def thumbnails(path, rows=range(40)):
    with open_store(path) as store:
        return store.texts("thumbnail", rows) if "thumbnail" in store else None


def test_they_come_back_in_any_order_and_other_tools_read_them(make_store):
    path = make_store("s.h5", n=150, **WITH)
    assert verify_store(path) == []
    assert thumbnails(path, [149, 0, 64]) == ["/9j/0149", "/9j/0000", "/9j/0064"]
    with open_store(path) as store:
        assert store.format_version == "1.2"
        assert store.spec.thumbnails
        dataset = store.to_xarray()
        assert dataset["thumbnail"].dims == ("sample",)
        assert dataset["thumbnail"].values[3] == "/9j/0003"
        dataset.close()
    with h5py.File(path) as h5:
        assert h5["thumbnail"].asstr()[5] == "/9j/0005"
        assert h5["thumbnail"].attrs["media_type"] == "image/jpeg"


@pytest.mark.parametrize("begun", [True, False, None])
@pytest.mark.parametrize("wanted", [True, False])
def test_an_unfinished_store_goes_on_as_begun(begun, wanted, producer, make_store, tmp_path):
    path = tmp_path / "s.h5"
    producer.begin(path, n=40, thumbnails=bool(begun))
    if begun is None:  # as version 0.1 wrote it
        plan = tmp_path / "s.h5.parts" / "plan.json"
        old = json.loads(plan.read_text())
        del old["thumbnails"]
        plan.write_text(json.dumps(old))
    spec, samples, provenance, _ = producer.inputs(n=40, thumbnails=wanted)
    data = producer.inputs(n=40, thumbnails=bool(begun))[3]
    with StoreWriter(path, spec, samples, provenance, shard_size=16) as writer:
        assert writer.spec.thumbnails is bool(begun)
        (shard,) = writer.pending()
        writer.write_shard(shard.index, producer.rows(data, shard.start, shard.stop))
        writer.consolidate()
    whole = make_store("whole.h5", n=40, thumbnails=bool(begun))
    with open_store(path) as store, open_store(whole) as other:
        assert store.content_sha256 == other.content_sha256


@pytest.mark.parametrize("there", [True, False])
def test_a_finished_store_is_complete_with_or_without(there, producer, make_store):
    path = make_store("s.h5", n=40, thumbnails=there)
    spec, samples, provenance, _ = producer.inputs(n=40, thumbnails=not there)
    with StoreWriter(path, spec, samples, provenance) as writer:
        assert writer.complete


def test_layers_join_a_store_with_or_without(make_store):
    extra = {"layers": (9,), "baselines": {}, "responses": False, "class_logprob": False}
    more = make_store("more.h5", n=40, **extra)
    for there in (True, False):
        path = make_store(f"{there}.h5", n=40, thumbnails=there)
        before = thumbnails(path)
        extend_store(path, more)
        assert thumbnails(path) == before
        assert verify_store(path) == []


def test_samples_keep_them_where_all_have_them(make_store, tmp_path):
    a = make_store("a.h5", n=40, **WITH)
    b = make_store("b.h5", n=40, first=40, **WITH)
    bare = make_store("bare.h5", n=40, first=40)
    assert len(thumbnails(merge_stores([a, b], tmp_path / "ab.h5"), range(80))) == 80
    assert thumbnails(merge_stores([a, bare], tmp_path / "joined.h5")) is None
