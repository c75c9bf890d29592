"""What a writer refuses to store, and what it stores however strange."""

import numpy as np
import pytest

from signbridge.errors import StoreError
from signbridge.store import SampleTable, StoreSpec, StoreWriter, open_store


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
