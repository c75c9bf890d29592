"""Reading: exact values, rows in any order, and what is not there."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signbridge.errors import StoreError
from signbridge.store import open_store


def test_everything_written_is_read(path, written, producer):
    spec, samples, provenance, data = written
    with open_store(path, verify="full") as store:
        assert store.layers == spec.layers
        assert (store.n_samples, len(store), store.hidden_size) == (200, 200, 12)
        assert store.dtype == np.float16
        assert store.class_names == samples.class_names
        np.testing.assert_array_equal(store.labels, samples.label)
        np.testing.assert_array_equal(store.groups, samples.group)
        assert store.sample_ids == samples.sample_id
        assert store.source_splits == samples.source_split
        assert store.image_sha256 == samples.image_sha256
        assert store.responses == data["response"]
        assert store.baselines == ("pixels", "vision")
        np.testing.assert_array_equal(store.class_logprob, data["class_logprob"])
        assert store.provenance == {k: v for k, v in provenance.items() if v is not None}
        assert store.info == producer.info()
        assert store.format_version == "1.0"
        for position, layer in enumerate(spec.layers):
            expected = data["resid_post"][:, position].astype(np.float16)
            for name in (layer, f"resid_post/{layer}", np.int64(layer)):
                np.testing.assert_array_equal(store.feature(name), expected)
        np.testing.assert_array_equal(store.feature("pixels"), data["pixels"])
        np.testing.assert_array_equal(store.feature("vision"), data["vision"])
        assert store.feature("pixels").dtype == np.uint8
        assert store.spec.baselines["pixels"] == (9, "uint8", {"long_name": "grey image"})


def test_a_store_without_answers_has_none(make_store):
    path = make_store(n=20, responses=False, class_logprob=False, baselines={}, dtype="float32")
    with open_store(path) as store:
        assert store.responses is None
        assert store.class_logprob is None
        assert store.baselines == ()
        assert store.dtype == np.float32


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(st.integers(0, 199), max_size=300))
def test_any_rows_in_any_order(path, written, rows):
    expected = written[3]["resid_post"][:, 1].astype(np.float16)[np.array(rows, int)]
    with open_store(path, verify="none") as store:
        np.testing.assert_array_equal(store.layer(2, rows), expected)


def test_rows_by_slice_and_mask(path, written):
    expected = written[3]["resid_post"][:, 1].astype(np.float16)
    with open_store(path) as store:
        for rows in (slice(5, 150), slice(None, None, 7), slice(150, 5, -2), slice(-3, None)):
            np.testing.assert_array_equal(store.layer(2, rows), expected[rows])
        mask = written[1].label == 2
        np.testing.assert_array_equal(store.layer(2, mask), expected[mask])
        assert store.layer(2, []).shape == (0, 12)
        assert store.layer(2, slice(50, 10)).shape == (0, 12)
        for rows in ([200], [-1], [0.5], mask[:5], [[1]]):
            with pytest.raises(StoreError):
                store.layer(2, rows)


@pytest.mark.parametrize("size", [1, 64, 100, 1000])
def test_blocks_cover_all_samples(size, path, written):
    expected = written[3]["resid_post"].astype(np.float16)
    with open_store(path) as store:
        blocks = list(store.blocks(size=size))
        assert all(start % 64 == 0 for start, _, _ in blocks)
        np.testing.assert_array_equal(np.concatenate([b for _, _, b in blocks]), expected)
        order = list(range(len(blocks)))[::-1]
        backwards = list(store.blocks(layers=(5, 0), size=size, order=order))
        assert [b[0] for b in backwards] == [b[0] for b in blocks[::-1]]
        np.testing.assert_array_equal(backwards[-1][2], expected[: blocks[0][1]][:, [2, 0]])
        with pytest.raises(StoreError, match="does not exist"):
            list(store.blocks(order=[99]))


def test_torch_tensors(path, written):
    torch = pytest.importorskip("torch")
    with open_store(path) as store:
        tensor = store.layer(5, rows=[3, 1], torch=True)
    assert tensor.dtype == torch.float16
    expected = written[3]["resid_post"][[3, 1], 2].astype(np.float16)
    np.testing.assert_array_equal(tensor.numpy(), expected)


def test_what_is_not_there_is_named(path):
    with open_store(path) as store:
        with pytest.raises(StoreError, match=r"Layer 1 is not in .* which has layers 0, 2, 5"):
            store.layer(1)
        with pytest.raises(StoreError, match=r"'projector' is not in .* pixels, vision"):
            store.feature("projector")
        with pytest.raises(StoreError, match="'label' is not in"):
            store.feature("label")


def test_importing_the_store_needs_numpy_and_h5py_alone():
    code = (
        "import sys, signbridge.store, signbridge; signbridge.open_store; "
        "heavy = {'torch', 'transformers', 'PIL', 'lightning', 'xarray', 'scipy', 'filelock', "
        "'pandas', 'sklearn'}; print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts bytes as Linux does")
def test_opening_reads_little(make_store):
    path = make_store("s.h5", n=256, hidden=4096, shard_size=64)  # 6 MB
    code = (
        "import sys; from signbridge.store import open_store\n"
        "def read(): return int(open('/proc/self/io').readline().split()[1])\n"
        "before = read(); store = open_store(sys.argv[1]); store.layers; after = read()\n"
        "print(after - before)"
    )
    out = subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=True)
    assert int(out.stdout) < 300_000


def test_a_closed_store_says_so(path):
    store = open_store(path)
    store.close()
    with pytest.raises(StoreError, match="has been closed"):
        store.layer(0)
    with pytest.raises(StoreError, match="has been closed"):
        pickle.dumps(store)


def test_the_working_directory_may_change(path, monkeypatch, tmp_path):
    monkeypatch.chdir(path.parent)
    store = pickle.loads(pickle.dumps(open_store(path.name)))
    monkeypatch.chdir(tmp_path)
    assert store.n_samples == 200
