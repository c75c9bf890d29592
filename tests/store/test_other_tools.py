"""Other tools: xarray, h5py, HDF5's own, and the specification read by itself."""

import shutil
import subprocess
import warnings

import h5py
import numpy as np
import pytest

from signbridge.store import open_store
from signbridge.store.verify import check_store


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
