"""Writing: the guard, overflow, resuming, several workers."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from signbridge.errors import StoreError
from signbridge.store import SampleTable, StoreSpec, StoreWriter, open_store, verify_store
from signbridge.store.verify import check_store


def begin(producer, path, shards=2, **what):
    """An extraction that stops after some shards."""
    spec, samples, provenance, data = producer.inputs(**what)
    with StoreWriter(path, spec, samples, provenance, shard_size=16) as writer:
        for shard in writer.shards[:shards]:
            writer.write_shard(shard.index, producer.rows(data, shard.start, shard.stop))


def test_shard_size_and_order_do_not_change_the_file(producer, make_store, tmp_path):
    reference = make_store("a.h5", n=150, shard_size=64).read_bytes()
    for size in (1, 37, 150, 1000):
        assert make_store(f"b{size}.h5", n=150, shard_size=size).read_bytes() == reference
    spec, samples, provenance, data = producer.inputs(n=150)
    path = tmp_path / "backwards.h5"
    with StoreWriter(path, spec, samples, provenance, producer.info(), shard_size=20) as writer:
        for shard in reversed(writer.pending()):
            writer.write_shard(shard.index, producer.rows(data, shard.start, shard.stop))
        writer.consolidate()
    assert path.read_bytes() == reference


@pytest.mark.parametrize("world", [2, 3])
def test_several_workers_at_once_make_the_same_file(world, producer, make_store, servers, tmp_path):
    reference = make_store("one.h5", n=150, shard_size=8).read_bytes()
    path = tmp_path / "many.h5"
    what = {"n": 150}
    begin(producer, path, shards=0, **what)  # rank 0 makes the plan before the others start
    workers = servers(world)
    for rank, worker in enumerate(workers):
        worker.start(
            command="produce", path=str(path), rank=rank, world=world, consolidate=False, **what
        )
    assert [worker.wait() for worker in workers] == [0] * world
    spec, samples, provenance, _ = producer.inputs(**what)
    with StoreWriter(path, spec, samples, provenance, producer.info()) as writer:
        assert writer.pending() == []
        writer.consolidate()
    assert path.read_bytes() == reference


def test_another_number_of_workers_continues(producer, make_store, server, tmp_path):
    reference = make_store("one.h5", n=150).read_bytes()
    path = tmp_path / "many.h5"
    request = {"command": "produce", "path": str(path), "n": 150, "consolidate": False}
    assert server.run(rank=0, world=3, **request) == 0
    assert server.run(rank=1, world=3, **request) == 0
    producer.produce(str(path), n=150)
    assert path.read_bytes() == reference


def test_pending_parts_the_shards_whenever_it_is_asked(producer, tmp_path):
    spec, samples, provenance, data = producer.inputs(n=150)
    with StoreWriter(tmp_path / "s.h5", spec, samples, provenance, shard_size=16) as writer:
        first = writer.pending(0, 2)
        for shard in first[:2]:
            writer.write_shard(shard.index, producer.rows(data, shard.start, shard.stop))
        indices = {s.index for s in first} | {s.index for s in writer.pending(1, 2)}
        assert indices == {s.index for s in writer.shards}


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
    make_store("s.h5", n=40) if finished else begin(producer, path, n=40)
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
    make_store("s.h5", n=40) if finished else begin(producer, path, n=40)
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
    begin(producer, path, n=40)
    spec, samples, provenance, _ = producer.inputs(n=40)
    with StoreWriter(path, spec, samples, {**provenance, "seed": 1}, overwrite=True) as writer:
        assert len(writer.pending()) == len(writer.shards) == 1


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "record", "swap"])
def test_a_damaged_shard_is_redone(damage, producer, make_store, tmp_path):
    reference = make_store("whole.h5", n=60).read_bytes()
    path = tmp_path / "s.h5"
    begin(producer, path, shards=3, n=60)
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
    begin(producer, path, shards=4, n=60)
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


@pytest.mark.parametrize(
    ("value", "dtype", "words"),
    [
        (70000.0, "float16", ["value 70000", "65,504", "--store_dtype float32"]),
        (np.nan, "float16", ["NaN", "--store_dtype float32"]),
        (-np.inf, "float32", ["infinite"]),
        (np.nan, "float32", ["NaN"]),
    ],
)
def test_overflow_names_sample_layer_and_site(value, dtype, words, producer, tmp_path):
    spec, samples, provenance, data = producer.inputs(n=40, dtype=dtype)
    with StoreWriter(tmp_path / "s.h5", spec, samples, provenance, shard_size=16) as writer:
        bad = producer.rows(data, 16, 32)
        bad["resid_post"] = bad["resid_post"].copy()
        bad["resid_post"][3, 2, 7] = value
        before = sorted((tmp_path / "s.h5.parts").iterdir())
        with pytest.raises(StoreError) as error:
            writer.write_shard(1, bad)
        for word in [*words, "resid_post at layer 5", "'train/19'"]:
            assert word in str(error.value)
        assert str(error.value).count("\n") == 0
        assert sorted((tmp_path / "s.h5.parts").iterdir()) == before


def test_the_largest_float16_is_stored(producer, tmp_path):
    spec, samples, provenance, data = producer.inputs(n=10)
    data["resid_post"][0, 0, :2] = 65504.0, -65519.0  # the second still rounds to -65504
    path = tmp_path / "s.h5"
    with StoreWriter(path, spec, samples, provenance) as writer:
        writer.write_shard(0, data)
        writer.consolidate()
    assert list(open_store(path).layer(0)[0, :2]) == [65504.0, -65504.0]


def test_shard_data_of_wrong_kind_is_refused(producer, tmp_path):
    spec, samples, provenance, data = producer.inputs(n=10)
    with StoreWriter(tmp_path / "s.h5", spec, samples, provenance) as writer:
        wrong = [
            ({**data, "resid_post": data["resid_post"][:9]}, "shape"),
            ({**data, "resid_post": data["resid_post"].astype(str)}, "numbers"),
            ({k: v for k, v in data.items() if k != "vision"}, "vision"),
            ({**data, "extra": data["vision"]}, "extra"),
            ({**data, "pixels": data["pixels"].astype(np.int64) + 256}, "pixels"),
            ({**data, "pixels": data["pixels"] / 2}, "pixels"),
            ({**data, "response": data["response"][:3]}, "response"),
            ({**data, "response": [1] * 10}, "response"),
            ({**data, "vision": data["vision"] * np.nan}, "vision"),
        ]
        for bad, word in wrong:
            with pytest.raises(StoreError, match=word):
                writer.write_shard(0, bad)
        with pytest.raises(StoreError, match="no shard 1"):
            writer.write_shard(1, data)
        assert len(writer.pending()) == 1


def test_strange_answers_are_stored(producer, tmp_path):
    spec, samples, provenance, data = producer.inputs(n=4)
    data["response"] = ["a\0b", "", "line\n\ttab 🖐", "\ud800 half"]
    path = tmp_path / "s.h5"
    with StoreWriter(path, spec, samples, provenance) as writer:
        writer.write_shard(0, data)
        writer.consolidate()
    assert open_store(path).responses == ["a\ufffdb", "", "line\n\ttab 🖐", "? half"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"sample_id": ["a", "b", "a"]}, "'a' occurs twice"),
        ({"sample_id": ["a", "", "c"]}, "empty id"),
        ({"sample_id": ["a", "b"]}, "2 sample ids but 3"),
        ({"sample_id": ["a", "b\0", "c"]}, "NUL"),
        ({"sample_id": ["a", "b\udcff", "c"]}, "valid Unicode"),
        ({"label": np.array([0, 1, 2])}, "label 2"),
        ({"label": np.array([0, -1, 1])}, "label -1"),
        ({"label": np.array([0.0, 1.0, 1.0])}, "integer"),
        ({"group": np.array([0, 0, -3])}, "group -3"),
        ({"class_names": ("A", "A")}, "not unique"),
    ],
)
def test_a_wrong_table_of_samples_is_refused(change, word):
    table = {
        "sample_id": ["a", "b", "c"],
        "label": np.array([0, 1, 1]),
        "class_names": ("A", "B"),
        "group": np.array([0, 1, 1]),
        "source_split": [""] * 3,
        "image_sha256": ["00"] * 3,
    }
    SampleTable(**table)
    with pytest.raises(StoreError, match=word):
        SampleTable(**{**table, **change})


@pytest.mark.parametrize(
    "wrong",
    [
        {"layers": ()},
        {"layers": (1, 1)},
        {"layers": (-1,)},
        {"hidden_size": 0},
        {"store_dtype": "bfloat16"},
        {"baselines": {"label": (3, "float32", {})}},
        {"baselines": {"Pixels!": (3, "float32", {})}},
        {"baselines": {"pixels": (0, "uint8", {})}},
        {"baselines": {"pixels": (3, "int8", {})}},
    ],
)
def test_a_wrong_spec_is_refused(wrong):
    with pytest.raises(StoreError):
        StoreSpec(**{"layers": (0,), "hidden_size": 4, **wrong})


@pytest.mark.parametrize("value", [float("nan"), {"a": 1}, [1, "a"], [[1]], "a\0", object()])
def test_provenance_must_be_readable_attributes(value, producer, tmp_path):
    spec, samples, _, _ = producer.inputs(n=4)
    with pytest.raises(StoreError, match="'key'"):
        StoreWriter(tmp_path / "s.h5", spec, samples, {"key": value})
    with pytest.raises(StoreError, match="reserved"):
        StoreWriter(tmp_path / "s.h5", spec, samples, {"format": "x"})


def hold(path, ready, go_on):
    import importlib.util

    file = Path(__file__).with_name("producer.py")
    spec = importlib.util.spec_from_file_location("store_producer", file)
    producer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(producer)
    spec, samples, provenance, _ = producer.inputs(n=4)
    with StoreWriter(path, spec, samples, provenance):
        ready.set()
        go_on.wait(30)


def test_a_second_process_on_the_same_output_is_refused(producer, tmp_path):
    path = tmp_path / "s.h5"
    context = multiprocessing.get_context("fork")
    ready, go_on = context.Event(), context.Event()
    other = context.Process(target=hold, args=(path, ready, go_on))
    other.start()
    assert ready.wait(30)
    spec, samples, provenance, _ = producer.inputs(n=4)
    with pytest.raises(StoreError, match="Another process is writing"):
        StoreWriter(path, spec, samples, provenance)
    with pytest.raises(StoreError, match="Another process is writing"):
        StoreWriter(path, spec, samples, provenance, overwrite=True)
    go_on.set()
    other.join(30)
    StoreWriter(path, spec, samples, provenance).close()


def test_a_finished_output_is_complete_and_leaves_nothing(producer, make_store):
    path = make_store("s.h5", n=40)
    spec, samples, provenance, _ = producer.inputs(n=40)
    (path.parent / "s.h5.parts").mkdir()
    (path.parent / "s.h5.parts" / "plan.json").write_text("{}")  # killed while cleaning up
    with StoreWriter(path, spec, samples, provenance) as writer:
        assert writer.complete
        assert writer.pending() == []
        assert writer.shards == ()
        assert writer.consolidate() == path
    assert [p.name for p in path.parent.iterdir()] == ["s.h5"]


def test_a_damaged_plan_is_one_sentence(producer, tmp_path):
    path = tmp_path / "s.h5"
    begin(producer, path, n=40)
    plan = tmp_path / "s.h5.parts" / "plan.json"
    spec, samples, provenance, _ = producer.inputs(n=40)
    for text, word in (("{", "damaged"), ('{"format": "x"}', "damaged")):
        plan.write_text(text)
        with pytest.raises(StoreError, match=word):
            StoreWriter(path, spec, samples, provenance)
    with StoreWriter(path, spec, samples, provenance, overwrite=True) as writer:
        assert len(writer.pending()) == len(writer.shards)


# -- shards that stay -----------------------------------------------------------------------------


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


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measured as Linux does")
def test_memory_stays_flat(tmp_path):
    """Ten times the samples: the peak memory of writing and consolidating hardly grows."""
    script = tmp_path / "peak.py"
    script.write_text(
        "import sys\n"
        "import numpy as np\n"
        "from signbridge.store import SampleTable, StoreSpec, StoreWriter\n"
        "n, path = int(sys.argv[1]), sys.argv[2]\n"
        "table = SampleTable([str(i) for i in range(n)], np.zeros(n, int), ('A',),\n"
        "                    np.arange(n), [''] * n, [''] * n)\n"
        "rows = np.ones((64, 4, 4096), np.float16)\n"
        "with StoreWriter(path, StoreSpec((0, 1, 2, 3), 4096), table, {}, shard_size=64) as w:\n"
        "    for shard in w.pending():\n"
        "        w.write_shard(shard.index, {'resid_post': rows[: len(shard)]})\n"
        "    w.consolidate()\n"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
    )
    peaks = [
        int(subprocess.check_output([sys.executable, str(script), str(n), str(tmp_path / f"{n}")]))
        for n in (256, 2560)  # 8 MB and 84 MB
    ]
    assert peaks[1] - peaks[0] < 20_000  # kB


def test_the_environment_does_not_matter(producer, make_store, monkeypatch, tmp_path):
    path = make_store("s.h5", n=20)
    monkeypatch.setitem(os.environ, "PYTHONPATH", str(tmp_path))
    monkeypatch.chdir("/")
    assert verify_store(path) == []
    assert check_store(path) == []
