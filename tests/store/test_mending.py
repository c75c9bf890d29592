"""A store whose shards stay, and some of them are lost: the same command makes them again."""

import h5py
import pytest

from signbridge.errors import StoreError
from signbridge.store import StoreWriter, open_store, verify_store
from signbridge.store.verify import check_store

WHAT = {"n": 150, "shard_size": 16, "keep_shards": True}


def shard_files(path):
    return sorted(path.with_name(path.name + ".parts").glob("shard-*.h5"))


def snapshot_of_files(path):
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in shard_files(path)}


def damage_shards(path, how):
    files = shard_files(path)
    if how == "all removed":
        for file in files:
            file.unlink()
        return {file.name for file in files}
    if how == "flipped":
        with h5py.File(files[3]) as h5:
            offset = h5["resid_post"].id.get_chunk_info(0).byte_offset
        data = bytearray(files[3].read_bytes())
        data[offset] ^= 8
        files[3].write_bytes(data)
    elif how == "cut":
        files[3].write_bytes(files[3].read_bytes()[:-1])
    else:
        files[3].unlink()
    return {files[3].name}


@pytest.mark.parametrize("how", ["removed", "cut", "flipped", "all removed"])
def test_what_is_lost_is_made_again(how, producer, make_store):
    path = make_store("s.h5", **WHAT)
    content, link = producer.snapshot(path), path.read_bytes()
    before = snapshot_of_files(path)
    lost = damage_shards(path, how)
    assert check_store(path)
    producer.produce(str(path), **WHAT)
    after = snapshot_of_files(path)
    assert {name for name in after if after[name][0] != before[name][0]} == lost
    assert {name: v[1] for name, v in after.items()} == {name: v[1] for name, v in before.items()}
    assert producer.snapshot(path) == content
    assert path.read_bytes() == link
    assert verify_store(path) == []


def test_a_damaged_file_of_links_is_made_again_from_its_shards(producer, make_store):
    path = make_store("s.h5", **WHAT)
    whole, before = path.read_bytes(), snapshot_of_files(path)
    with h5py.File(path, "r+") as h5:
        h5["label"][7] = 0
        h5["group"][9] = 3
    with StoreWriter(path, *producer.inputs(n=150)[:3], producer.info(), keep_shards=True) as w:
        assert not w.complete
        assert w.pending() == []
        w.consolidate()
    assert path.read_bytes() == whole
    assert snapshot_of_files(path) == before


def test_without_keep_shards_it_becomes_one_file(producer, make_store):
    path = make_store("s.h5", **WHAT)
    whole = make_store("whole.h5", n=150).read_bytes()
    shard_files(path)[2].unlink()
    producer.produce(str(path), n=150, shard_size=16)
    assert path.read_bytes() == whole
    assert not path.with_name("s.h5.parts").exists()


def test_other_settings_are_still_refused(producer, make_store):
    path = make_store("s.h5", **WHAT)
    for file in shard_files(path):
        file.unlink()
    spec, samples, provenance, _ = producer.inputs(n=150)
    for change in ({"seed": 7}, {"prompt": "x"}):
        with pytest.raises(StoreError, match=next(iter(change))):
            StoreWriter(path, spec, samples, {**provenance, **change}, keep_shards=True)
    with pytest.raises(StoreError, match="number of samples"):
        StoreWriter(path, *producer.inputs(n=149)[:3], keep_shards=True)
    assert path.exists()
    assert path.with_name("s.h5.parts").joinpath("plan.json").exists()


def test_without_its_plan_it_cannot_be_mended(producer, make_store):
    path = make_store("s.h5", **WHAT)
    shard_files(path)[2].unlink()
    path.with_name("s.h5.parts").joinpath("plan.json").unlink()
    with pytest.raises(StoreError, match=r"shard-00002\.h5.* is missing.*--overwrite true"):
        producer.produce(str(path), **WHAT)


def test_a_damaged_single_file_is_never_replaced_without_being_asked(producer, make_store):
    path = make_store("s.h5", n=150)
    with h5py.File(path, "r+") as h5:
        h5["label"][7] = 0
    damaged = path.read_bytes()
    with pytest.raises(StoreError, match="--overwrite true"):
        producer.produce(str(path), n=150)
    assert path.read_bytes() == damaged


def test_the_extract_command_makes_lost_shards_again(tmp_path, monkeypatch, capsys):
    pytest.importorskip("transformers")
    from signbridge.extraction.extract import extract_activations
    from signbridge.extraction.module import ExtractionModule
    from signbridge.images import open_images
    from signbridge.model.description import describe_model

    images, tiny = open_images("sample", classes=2, per_class=6), describe_model("tiny")
    path = tmp_path / "kept.h5"
    options = {"layers": [0, 3], "accelerator": "cpu", "devices": 1, "num_workers": 0}
    options |= {"keep_shards": True, "shard_size": 4, "quantization": "none", "batch_size": 4}
    extract_activations(images, tiny, path, **options)
    with open_store(path) as store:
        content, vectors = store.content_sha256, store.layer(3)
    rows = []
    step = ExtractionModule.predict_step

    def counted(self, batch, index):
        rows.append((batch.rows.start, batch.rows.stop))
        return step(self, batch, index)

    monkeypatch.setattr(ExtractionModule, "predict_step", counted)
    shard_files(path)[1].unlink()
    extract_activations(images, tiny, path, **options)
    assert rows == [(4, 8)]
    with open_store(path, verify="full") as store:
        assert store.content_sha256 == content
        assert (store.layer(3) == vectors).all()
    rows.clear()
    extract_activations(images, tiny, path, **options)
    assert rows == []
