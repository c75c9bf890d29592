"""Files that are no stores, or not whole: one sentence each."""

import shutil

import h5py
import numpy as np
import pytest
from fixtures import hostile
from hypothesis import given, settings
from hypothesis import strategies as st

from signbridge.errors import StoreError
from signbridge.store import StoreWriter, open_store, verify_store
from signbridge.store.verify import check_store


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
        (lambda h5: h5.attrs.__setitem__("format_version", "2.0"), "version 2.0, newer than 1.2"),
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
        ("sample_id", 3, "train/x", "sample_id, rows 0 to 199"),
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
    open_store(copy, verify="none").close()
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
    def edit(h5):
        h5.attrs["format_version"] = "1.7"

    copy = hostile.change(path, tmp_path / "copy.h5", edit)
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
