"""Continuing a stopped extraction: the guard, overwriting, damaged shards."""

import pytest

from signbridge.errors import StoreError
from signbridge.store import StoreWriter, open_store


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"model": "other"}, "model = 'stand-in', but now model is 'other'"),
        ({"seed": 43}, "seed = '42', but now seed is '43'"),
        ({"prompt": "x"}, "prompt"),
        ({"offline": None}, "offline = 'true', but now offline is nothing"),
        ({"per_class": 3}, "per_class = nothing, but now per_class is '3'"),
        ({"quantized_modules": ["a"]}, "quantized_modules"),
    ],
)
@pytest.mark.parametrize("finished", [False, True])
def test_other_provenance_is_refused(change, key, finished, producer, make_store, tmp_path):
    path = tmp_path / "s.h5"
    make_store("s.h5", n=40) if finished else producer.begin(path, n=40)
    spec, samples, provenance, _ = producer.inputs(n=40)
    with pytest.raises(StoreError) as error:
        StoreWriter(path, spec, samples, {**provenance, **change})
    assert key in str(error.value)
    assert "--overwrite" in str(error.value)
    # and the right settings still go on
    with StoreWriter(path, spec, samples, provenance) as writer:
        assert writer.complete is finished


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    ("other", "key"),
    [
        ({"layers": (0, 2, 6)}, "layers"),
        ({"dtype": "float32"}, "store_dtype"),
        ({"hidden": 13}, "hidden_size"),
        ({"responses": False}, "responses"),
        ({"class_logprob": False}, "class_logprob"),
        ({"baselines": {}}, "baselines"),
        ({"first": 1}, "sample_id"),
        ({"n": 39}, "number of samples"),
    ],
)
def test_another_layer_set_type_or_image_set_is_refused(
    finished, other, key, producer, make_store, tmp_path
):
    path = tmp_path / "s.h5"
    make_store("s.h5", n=40) if finished else producer.begin(path, n=40)
    spec, samples, provenance, _ = producer.inputs(**{"n": 40, **other})
    with pytest.raises(StoreError, match=key):
        StoreWriter(path, spec, samples, provenance)


def test_overwrite_replaces_only_at_the_end(producer, make_store):
    path = make_store("s.h5", n=40)
    old = path.read_bytes()
    spec, samples, provenance, data = producer.inputs(n=50)
    for _ in range(2):  # stopped and started again: it goes on rather than from the beginning
        with StoreWriter(path, spec, samples, provenance, shard_size=16, overwrite=True) as writer:
            shard = writer.pending()[0]
            writer.write_shard(shard.index, producer.rows(data, shard.start, shard.stop))
        assert path.read_bytes() == old
    with StoreWriter(path, spec, samples, provenance, overwrite=True) as writer:
        assert [s.index for s in writer.pending()] == [2, 3]
        for shard in writer.pending():
            writer.write_shard(shard.index, producer.rows(data, shard.start, shard.stop))
        writer.consolidate()
    with open_store(path) as store:
        assert store.n_samples == 50


def test_overwrite_discards_parts_of_other_settings(producer, tmp_path):
    path = tmp_path / "s.h5"
    producer.begin(path, n=40)
    spec, samples, provenance, _ = producer.inputs(n=40)
    with StoreWriter(path, spec, samples, {**provenance, "seed": 1}, overwrite=True) as writer:
        assert len(writer.pending()) == len(writer.shards) == 1


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "record", "swap"])
def test_a_damaged_shard_is_redone(damage, producer, make_store, tmp_path):
    reference = make_store("whole.h5", n=60).read_bytes()
    path = tmp_path / "s.h5"
    producer.begin(path, shards=3, n=60)
    shard = tmp_path / "s.h5.parts" / "shard-00001.h5"
    data = shard.read_bytes()
    if damage == "flip":
        shard.write_bytes(data[:999] + bytes([data[999] ^ 4]) + data[1000:])
    elif damage == "cut":
        shard.write_bytes(data[:-1])
    elif damage == "remove":
        shard.unlink()
    elif damage == "record":
        shard.with_suffix(".json").write_text('{"index": 1, "sta')
    else:
        shard.write_bytes(shard.with_name("shard-00000.h5").read_bytes())
    spec, samples, provenance, _ = producer.inputs(n=60)
    with StoreWriter(path, spec, samples, provenance) as writer:
        assert [s.index for s in writer.pending()] == [1, 3]
        with pytest.raises(StoreError, match="missing"):
            writer.consolidate()
    producer.produce(str(path), n=60)
    assert path.read_bytes() == reference


def test_a_shard_damaged_after_it_was_verified_is_no_part_of_a_store(producer, tmp_path):
    path = tmp_path / "s.h5"
    producer.begin(path, shards=4, n=60)
    spec, samples, provenance, _ = producer.inputs(n=60)
    with StoreWriter(path, spec, samples, provenance) as writer:
        assert writer.pending() == []
        shard = tmp_path / "s.h5.parts" / "shard-00002.h5"
        data = bytearray(shard.read_bytes())
        data[-1] ^= 1
        shard.write_bytes(data)
        with pytest.raises(StoreError, match=r"shard-00002\.h5 is missing or damaged"):
            writer.consolidate()
        assert not path.exists()
        assert [s.index for s in writer.pending()] == [2]


def test_a_damaged_plan_is_one_sentence(producer, tmp_path):
    path = tmp_path / "s.h5"
    producer.begin(path, n=40)
    plan = tmp_path / "s.h5.parts" / "plan.json"
    spec, samples, provenance, _ = producer.inputs(n=40)
    for text, word in (("{", "damaged"), ('{"format": "x"}', "damaged")):
        plan.write_text(text)
        with pytest.raises(StoreError, match=word):
            StoreWriter(path, spec, samples, provenance)
    with StoreWriter(path, spec, samples, provenance, overwrite=True) as writer:
        assert len(writer.pending()) == len(writer.shards)
