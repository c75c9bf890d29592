"""Reading: exact values, other tools, threads and processes, and files that are no stores."""

import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signbridge.errors import StoreError
from signbridge.store import StoreWriter, open_store, verify_store
from signbridge.store.verify import check_store

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def path(producer, tmp_path_factory):
    path = tmp_path_factory.mktemp("reader") / "store.h5"
    producer.produce(str(path), n=200)
    return path


@pytest.fixture(scope="module")
def written(producer):
    return producer.inputs(n=200)


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


# -- other tools ----------------------------------------------------------------------------------


def test_xarray_names_dimensions_and_coordinates(path, written):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    _, samples, provenance, data = written
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = xarray.open_dataset(path, engine="h5netcdf")
    assert dataset["resid_post"].dims == ("sample", "layer", "hidden")
    assert dataset["pixels"].dims == ("sample", "pixels_feature")
    assert dataset["class_logprob"].dims == ("sample", "class")
    assert dict(dataset.sizes) == {
        "sample": 200,
        "layer": 3,
        "hidden": 12,
        "class": 4,
        "pixels_feature": 9,
        "vision_feature": 5,
    }
    assert set(dataset.coords) == {"layer", "sample_id", "label", "group", "class_name"}
    expected = data["resid_post"][:, 2].astype(np.float16)
    np.testing.assert_array_equal(dataset["resid_post"].sel(layer=5).values, expected)
    assert dataset["resid_post"].dtype == np.float16
    assert list(dataset["response"].values) == data["response"]
    assert list(dataset["class_name"].values) == list(samples.class_names)
    assert dataset.attrs["prompt"] == provenance["prompt"]
    assert dataset.attrs["complete"] == 1
    dataset.close()
    with open_store(path) as store, store.to_xarray() as lazily:
        assert lazily["resid_post"].dims == ("sample", "layer", "hidden")


def test_plain_h5py_reads_it(path, written):
    with h5py.File(path) as h5:
        assert [d.label or d[0].name for d in h5["resid_post"].dims] == [
            "/sample",
            "/layer",
            "/hidden",
        ]
        assert h5["resid_post"].chunks == (64, 1, 12)
        assert h5["resid_post"].compression is None
        assert h5["sample_id"].asstr()[3] == "train/3"
        assert h5.attrs["format"] == "signbridge-activations"


def test_checksums_are_those_of_the_specification(path, written):
    """Recomputed here from docs/format.md alone."""
    import hashlib

    values = written[3]["resid_post"].astype("<f2")
    answers = [a.encode() for a in written[3]["response"]]
    with h5py.File(path) as h5:
        table = h5["checksums/resid_post"]
        assert table.attrs["rows_per_block"] == 64
        for block in range(4):
            for layer in range(3):
                rows = values[64 * block : 64 * block + 64, layer]
                digest = hashlib.sha256(rows.tobytes()).hexdigest()
                assert table[block, layer].decode() == digest
        text = b"".join(len(a).to_bytes(8, "little") + a for a in answers[64:128])
        assert h5["checksums/response"][1].decode() == hashlib.sha256(text).hexdigest()


def repack(old, new):
    """Write the same content with other chunks, compression, addresses and file structures."""
    for name, item in old.items():
        if isinstance(item, h5py.Group):
            repack(item, new.create_group(name))
        elif item.shape and "NAME" in item.attrs and item.dtype.str == ">f4":
            new.create_dataset(name, item.shape, item.dtype).make_scale(item.attrs["NAME"])
        else:
            packed = {"chunks": True, "compression": "gzip"} if item.shape else {}
            new.create_dataset(name, data=item[()], dtype=item.dtype, **packed)
    if "layer" in old:
        new["layer"].make_scale("layer")
    for name, item in old.items():
        for key, value in item.attrs.items():
            if key not in ("DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME"):
                new[name].attrs[key] = value
        for axis, dimension in enumerate(item.dims if hasattr(item, "dims") else ()):
            if len(dimension):
                new[name].dims[axis].attach_scale(new[dimension[0].name.lstrip("/")])
    for key, value in old.attrs.items():
        new.attrs[key] = value


def test_verify_survives_repacking(path, tmp_path, producer):
    copy = tmp_path / "repacked.h5"
    with h5py.File(path) as old, h5py.File(copy, "w", libver="latest") as new:
        repack(old, new)
        assert new["resid_post"].compression == "gzip"
        assert new["resid_post"].chunks != old["resid_post"].chunks
    assert check_store(copy) == []
    assert producer.snapshot(copy) == producer.snapshot(path)


@pytest.mark.parametrize(
    "options",
    [
        "-f GZIP=5",
        "-f SHUF -f GZIP=1",
        "-f FLET",
        "-l CONTI",
        "-L",
        "-f resid_post:SHUF -f resid_post:GZIP=9 -l resid_post:CHUNK=10x2x5",
    ],
)
def test_h5repack(options, path, producer, tmp_path):
    if shutil.which("h5repack") is None:
        pytest.skip("h5repack (HDF5's command line tools) is not installed")
    copy = tmp_path / "repacked.h5"
    subprocess.run(["h5repack", *options.split(), str(path), str(copy)], check=True)
    assert check_store(copy) == []
    assert producer.snapshot(copy) == producer.snapshot(path)


def test_h5dump_reads_it(path, written):
    if shutil.which("h5dump") is None:
        pytest.skip("h5dump (HDF5's command line tools) is not installed")
    command = ["h5dump", "-d", "/resid_post", "-s", "70,1,3", "-c", "1,1,2", str(path)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    row = out[out.index("(70,1,3):") :].split("\n")[0].split(":")[1]
    expected = written[3]["resid_post"][70, 1, 3:5].astype(np.float16)
    np.testing.assert_allclose([float(v) for v in row.split(",")], expected, rtol=1e-5)


# -- threads and processes ------------------------------------------------------------------------


def _sum(store):
    return float(sum(store.layer(layer).astype(np.float64).sum() for layer in store.layers))


def _answer(store, queue):
    queue.put(_sum(store))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_for_themselves(method, path):
    store = open_store(path)
    expected = _sum(store)
    queue_code = (
        "import pickle, sys, numpy as np\n"
        "store = pickle.load(sys.stdin.buffer)\n"
        "print(repr(float(sum(store.layer(k).astype(np.float64).sum() for k in store.layers))))\n"
    )
    if method == "spawn":
        out = subprocess.run(
            [sys.executable, "-c", queue_code],
            input=pickle.dumps(store),
            capture_output=True,
            check=True,
        )
        assert float(out.stdout) == expected
        return
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_answer, args=(store, queue)) for _ in range(4)]
    for worker in workers:
        worker.start()
    answers = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert answers == [expected] * 4
    assert _sum(store) == expected


def test_forking_while_threads_read(path):
    store = open_store(path)
    expected = _sum(store)
    stop = threading.Event()
    wrong = []

    def read():
        while not stop.is_set():
            if _sum(store) != expected:
                wrong.append(1)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: fork, threads
                pid = os.fork()
            if pid == 0:
                os._exit(0 if _sum(store) == expected else 1)
            for _ in range(600):
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    break
                stop.wait(0.05)
            else:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
                pytest.fail("the forked child hung")
            assert status == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong


def test_dataloader_workers(path):
    data = pytest.importorskip("torch.utils.data")
    store = open_store(path)
    expected = store.layer(5)[::20]

    class Rows(data.Dataset):
        def __len__(self):
            return 10

        def __getitem__(self, i):
            return store.layer(5, [20 * i])[0]

    loader = data.DataLoader(Rows(), num_workers=2, batch_size=5, multiprocessing_context="fork")
    np.testing.assert_array_equal(np.concatenate([b.numpy() for b in loader]), expected)


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


def test_the_same_file_may_be_open_elsewhere(path):
    with h5py.File(path) as h5, open_store(path) as store:
        np.testing.assert_array_equal(h5["resid_post"][:, 0], store.layer(0))
    with open_store(path) as store, h5py.File(path) as h5:
        np.testing.assert_array_equal(h5["resid_post"][:, 0], store.layer(0))


# -- files that are no stores ---------------------------------------------------------------------


def change(path, tmp_path, edit):
    copy = tmp_path / "copy.h5"
    shutil.copyfile(path, copy)
    with h5py.File(copy, "r+") as h5:
        edit(h5)
    return copy


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello", "not an HDF5 file"),
        (b"\x89HDF\r\n\x1a\n", "not an HDF5 file|damaged"),
        (b"PK\x03\x04" + bytes(5000), "not an HDF5 file"),
    ],
)
def test_what_is_not_hdf5(content, words, tmp_path):
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=words) as error:
        open_store(path)
    assert "x.h5" in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(StoreError) as same:
        verify_store(path)
    assert str(same.value) == str(error.value)


def test_absent_folders_and_unfinished(producer, tmp_path):
    with pytest.raises(StoreError, match="There is no activation store"):
        open_store(tmp_path / "x.h5")
    with pytest.raises(StoreError, match="There is no activation store"):
        verify_store(tmp_path / "x.h5")
    with pytest.raises(StoreError, match="is a folder"):
        open_store(tmp_path)
    with pytest.raises(StoreError, match="verify"):
        open_store(tmp_path, verify="all")
    spec, samples, provenance, _ = producer.inputs(n=4)
    StoreWriter(tmp_path / "s.h5", spec, samples, provenance).close()
    with pytest.raises(StoreError, match="not finished yet"):
        open_store(tmp_path / "s.h5")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda h5: h5.attrs.__delitem__("format"), "not an activation store"),
        (lambda h5: h5.attrs.__setitem__("format", "anndata"), "not an activation store"),
        (lambda h5: h5.attrs.__setitem__("format", 3), "not an activation store"),
        (lambda h5: h5.attrs.__setitem__("format_version", "2.0"), "version 2.0, newer than 1.0"),
        (lambda h5: h5.attrs.__setitem__("format_version", "x"), "unreadable format version"),
        (lambda h5: h5.attrs.__setitem__("complete", np.int8(0)), "is incomplete"),
        (lambda h5: h5.attrs.__delitem__("complete"), "is incomplete"),
        (lambda h5: h5.attrs.__setitem__("prompt", "other"), "attribute 'prompt' .* changed"),
        (lambda h5: h5.attrs.__delitem__("prompt"), "attribute 'prompt' .* missing"),
        (lambda h5: h5["label"].attrs.__setitem__("x", 1), "attribute 'x' of label"),
        (lambda h5: h5.__delitem__("label"), "label: missing"),
        (lambda h5: h5.__delitem__("vision"), "vision: missing"),
        (lambda h5: h5.__delitem__("checksums"), "checksums"),
        (lambda h5: h5.create_dataset("mine", data=[1]), "mine: was added"),
    ],
)
def test_changed_files_are_refused_by_the_quick_check(edit, words, path, tmp_path):
    copy = change(path, tmp_path, edit)
    with pytest.raises(StoreError, match=words) as error:
        open_store(copy)
    assert "\n" not in str(error.value)
    if "not an" in words or "newer" in words:
        with pytest.raises(StoreError, match=words):
            verify_store(copy)
    else:
        assert verify_store(copy)


@pytest.mark.parametrize(
    ("name", "index", "value", "words"),
    [
        ("resid_post", (70, 1, 3), 1.5, "resid_post, rows 64 to 127, layer index 1"),
        ("pixels", (199, 8), 77, "pixels, rows 192 to 199"),
        ("label", 3, 0, "label, rows 0 to 199"),
        ("group", 3, 7, "group, rows 0 to 199"),
        ("sample_id", 3, "train/4", "sample_id, rows 0 to 199"),
        ("response", 3, "A", "response, rows 0 to 63"),
        ("class_name", 3, "U", "class_name"),
        ("layer", 2, 6, "layer"),
        ("class_logprob", (0, 0), -9, "class_logprob, rows 0 to 63"),
        ("info/batch_size", (), 9, "info/batch_size"),
        ("checksums/label", 0, b"0" * 64, "label, rows 0 to 199"),
    ],
)
def test_changed_values_are_found_by_the_full_check(name, index, value, words, path, tmp_path):
    def edit(h5):
        h5[name][index] = value

    copy = change(path, tmp_path, edit)
    open_store(copy).close()
    with pytest.raises(StoreError, match=f"damaged: {words}"):
        open_store(copy, verify="full")
    assert words in str(check_store(copy)[0])


def test_wrong_values_with_right_checksums_are_found(path, tmp_path):
    """Checks that do not lean on the checksums: a writer with an error of its own."""
    import hashlib

    def edit(h5):
        h5["resid_post"][0, 0, 0] = np.nan
        digest = hashlib.sha256(h5["resid_post"][:64, 0].tobytes()).hexdigest()
        h5["checksums/resid_post"][0, 0] = digest.encode()
        h5["label"][0] = 4
        h5["checksums/label"][0] = hashlib.sha256(h5["label"][:].tobytes()).hexdigest().encode()
        h5["sample_id"][0] = "train/1"
        text = b"".join(len(v).to_bytes(8, "little") + v for v in h5["sample_id"][:])
        h5["checksums/sample_id"][0] = hashlib.sha256(text).hexdigest().encode()

    problems = " ".join(str(p) for p in check_store(change(path, tmp_path, edit)))
    for words in ("holds NaN or infinity", "more than once", "not between 0 and 3"):
        assert words in problems


def test_a_later_minor_version_is_read_with_a_warning(path, tmp_path):
    import json

    def edit(h5):
        h5.attrs["format_version"] = "1.7"
        stored = json.loads(h5["checksums/structure"].asstr()[()])
        stored[""]["attrs"]["format_version"] = ["string", "1.7"]
        h5["checksums/structure"][()] = json.dumps(stored)

    copy = change(path, tmp_path, edit)
    with pytest.warns(UserWarning, match=r"version 1\.7, newer"):
        assert open_store(copy).n_samples == 200


def test_cut_off_files(path, tmp_path):
    data = path.read_bytes()
    for share in (0.2, 0.5, 0.99):
        copy = tmp_path / "cut.h5"
        copy.write_bytes(data[: int(share * len(data))])
        with pytest.raises(StoreError, match=r"cut off|damaged") as error:
            open_store(copy)
        assert "\n" not in str(error.value)


@settings(deadline=None, max_examples=40)
@given(data=st.binary(max_size=3000), header=st.booleans())
def test_random_bytes_are_never_a_store(data, header, tmp_path_factory):
    file = tmp_path_factory.mktemp("random") / "x.h5"
    file.write_bytes((b"\x89HDF\r\n\x1a\n" if header else b"") + data)
    with pytest.raises(StoreError):
        open_store(file)


# -- format 1.0, for ever -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["v1.0.h5", "v1.0-shards.h5"])
def test_files_of_version_1_0_open_for_ever(name):
    """The files are never written again; the numbers here are formulas, not the code under test."""
    n, layers, hidden = 70, (1, 4), 6
    i, k, j = np.ogrid[:n, : len(layers), :hidden]
    with open_store(DATA / name, verify="full") as store:
        assert store.format_version == "1.0"
        assert store.layers == layers
        for position, layer in enumerate(layers):
            expected = ((i - 2 * k + j) / 8)[:, position].astype(np.float16)
            np.testing.assert_array_equal(store.layer(layer), expected)
        np.testing.assert_array_equal(store.labels, np.arange(n) % 3)
        np.testing.assert_array_equal(store.groups, np.arange(n) // 4)
        assert store.class_names == ("A", "B", "É")
        assert store.sample_ids == [f"test/{i}" for i in range(n)]
        assert store.source_splits == ["test"] * n
        assert store.responses == [f"sign {i} ✋" for i in range(n)]
        np.testing.assert_array_equal(
            store.feature("pixels"), (np.arange(n)[:, None] * 3 + np.arange(4)) % 256
        )
        np.testing.assert_array_equal(
            store.class_logprob, -(np.arange(n)[:, None] + 1.0 / 2 ** np.arange(3))
        )
        assert store.provenance == {
            "model": "stand-in",
            "prompt": "USER: <image>\nWhich sign?",
            "quantized_modules": ["a", "b"],
            "seed": 42,
            "trust_remote_code": False,
        }
        assert store.info == {"batch_size": 4, "note": "format 1.0, kept for ever"}
        assert store.content_sha256 == CONTENT_1_0


CONTENT_1_0 = "57ec977dc11cab36a723ab5310b8f86066d0dc40572f621885233abbb91fdeab"
