"""Every MUST of ``docs/format.md``: a store that breaks it, with checksums that are right."""

import h5py
import numpy as np
import pytest
from fixtures import hostile
from fixtures.hostile import TEXT, provenance, replaced

from signbridge.errors import StoreError
from signbridge.store import open_store
from signbridge.store.verify import check_store

N = 70


def put(name, where, value):
    def edit(h5):
        h5[name][where] = value

    return edit


def retyped(name, dtype):
    return lambda h5: replaced(h5, name, h5[name][()], dtype)


def texts(name, change=lambda values: values, dtype=TEXT):
    return lambda h5: replaced(h5, name, np.array(change(list(h5[name].asstr()[()])), dtype), dtype)


def shorter(name):
    return lambda h5: replaced(h5, name, h5[name][: N - 1])


def without(name):
    return lambda h5: h5.__delitem__(name)


def attribute(name, value):
    return lambda h5: h5.attrs.__setitem__(name, value)


def axis_without_scale(h5):
    h5["vision"].dims[1].detach_scale(h5["vision_feature"])


def other_order(h5):
    new = replaced(h5, "resid_post", h5["resid_post"][()].swapaxes(0, 1), dims=False)
    for axis, name in enumerate(("layer", "sample", "hidden")):
        new.dims[axis].attach_scale(h5[name])


def other_scale(h5):
    h5["label"].dims[0].detach_scale(h5["sample"])
    h5["label"].dims[0].attach_scale(h5["hidden"])


def bytes_that_are_no_text(h5):
    h5["response"][3] = b"\xff\xfe"


def no_samples(h5):
    # Every variable of the samples loses its rows, and so does their scale.
    names = [n for n, d in h5.items() if getattr(d, "shape", ()) and d.shape[0] == N]
    values = {n: (h5[n][:0], [s[0].name for s in h5[n].dims if len(s)]) for n in names}
    for name in names:
        del h5[name]
    scale = h5.create_dataset("sample", (0,), ">f4")
    scale.make_scale("This is a netCDF dimension but not a netCDF variable.         0")
    for name, (rows, dims) in values.items():
        if name != "sample":
            text = rows.dtype.kind == "O"
            new = h5.create_dataset(name, rows.shape, TEXT if text else rows.dtype)
            for axis, dim in enumerate(dims):
                new.dims[axis].attach_scale(h5[dim])


def new_variable(h5, name, values):
    h5.create_dataset(name, data=values).dims[0].attach_scale(h5["sample"])


def wrong_name(h5):
    h5["Vision-2_feature"] = np.zeros(2)
    h5["Vision-2_feature"].make_scale("Vision-2_feature")
    new = h5.create_dataset("Vision-2", (N, 2), "f2", data=np.ones((N, 2)))
    for axis, name in enumerate(("sample", "Vision-2_feature")):
        new.dims[axis].attach_scale(h5[name])


def twice(values):
    return [*values[:-1], values[0]]


# What the specification says: a store that does not keep to it, and what is said of that.
MUSTS = {
    "every axis MUST have a scale": (axis_without_scale, "vision: has an axis without a dim"),
    "a dimension has one length": (shorter("label"), "label: has 69 along sample"),
    "dimensions in their order": (other_order, r"dimensions are \(layer, sample, hidden\)"),
    "dimensions by their names": (other_scale, r"label: its dimensions are \(hidden\)"),
    "resid_post is float16 or float32": (retyped("resid_post", "f8"), "are float64, not float16"),
    "layer is int64": (retyped("layer", "f8"), "layer: its values are float64, not int64"),
    "layer is 0-based": (put("layer", 0, -1), "layer: a layer number is negative"),
    "layer ascends": (put("layer", slice(None), [5, 2, 0]), "layer: the layer numbers do not asc"),
    "layer has each once": (put("layer", 2, 2), "layer: a layer number occurs more than once"),
    "sample_id is string": (
        texts("sample_id", dtype="S9"),
        "sample_id: its values are ascii9, not st",
    ),
    "sample_id is unique": (texts("sample_id", twice), "sample_id: the id 'train/0' occurs more"),
    "sample_id is not empty": (put("sample_id", 4, ""), "sample_id: an id is empty"),
    "label is int64": (retyped("label", "f8"), "label: its values are float64, not int64"),
    "label is int64, no shorter": (retyped("label", "i4"), "label: its values are int32"),
    "label is an index, from 0": (put("label", 1, -1), "a label is not between 0 and 3"),
    "label is an index into class_name": (put("label", 1, 4), "a label is not between 0 and 3"),
    "class_name is unique": (texts("class_name", twice), "class_name: the name 'A' occurs more"),
    "group is int64": (retyped("group", "f4"), "group: its values are float32, not int64"),
    "group is 0 or more": (put("group", 0, -3), "group: a group number is negative"),
    "source_split is string": (lambda h5: replaced(h5, "source_split", np.zeros(N)), "float64, n"),
    "a baseline has one of three types": (retyped("pixels", "i8"), "pixels: its values are int64"),
    "a baseline is named in lower case": (wrong_name, "Vision-2: is no name of a baseline"),
    "response is string": (lambda h5: replaced(h5, "response", np.zeros(N)), "response: its valu"),
    "thumbnail is string": (
        lambda h5: new_variable(h5, "thumbnail", np.zeros(N)),
        "thumbnail: its",
    ),
    "class_logprob is float32": (retyped("class_logprob", "f8"), "class_logprob: its values are f"),
    "strings are UTF-8": (
        texts("source_split", dtype=h5py.string_dtype("ascii")),
        "not marked",
    ),
    "numbers are little-endian": (retyped("vision", ">f4"), "its numbers are not little-endian"),
    "info holds datasets": (lambda h5: h5.create_group("info/g"), "info/g: is a group, not a v"),
    "there are samples": (no_samples, "sample_id: there are no samples"),
    "complete is int8": (attribute("complete", 1), "'complete': is not the int8 1"),
    "provenance_keys are sorted": (
        attribute("provenance_keys", np.array(["seed", "model"], TEXT)),
        "no sorted list",
    ),
    "provenance_keys are names": (attribute("provenance_keys", 3), "no sorted list"),
    "provenance_keys are there": (lambda h5: h5.attrs.__delitem__("seed"), "'seed': is named by"),
    "a provenance value is finite": (lambda h5: provenance(h5, scale=np.inf), "'scale': is neith"),
    "a provenance value is a fact": (attribute("seed", h5py.Empty("f4")), "'seed': is neither"),
    "provenance_sha256 is theirs": (attribute("seed", 43), "does not match the provenance"),
}
REQUIRED = ("resid_post", "layer", "sample_id", "label", "class_name", "group", "source_split")
MUSTS |= {f"{name} must be there": (without(name), f"{name}: ") for name in REQUIRED}


@pytest.mark.parametrize("must", MUSTS)
def test_what_must_be_is_checked_when_a_store_is_opened(must, whole, tmp_path):
    edit, words = MUSTS[must]
    copy = hostile.change(whole, tmp_path / "s.h5", edit)
    for verify in ("quick", "read", "full"):
        with pytest.raises(StoreError, match=words) as error:
            open_store(copy, verify)
        assert "\n" not in str(error.value)
    assert check_store(copy)


# What only reading all of it can find; what reads a part finds it there.
DEEP = {
    "info marked as JSON is JSON": (
        put("info/skipped", (), "[" * 100_000),
        "cannot be read .it nests too deep",
    ),
    "no value is NaN": (put("resid_post", (1, 1, 3), np.nan), "resid_post.* NaN or infinity"),
    "no value is infinite": (put("vision", (3, 2), np.inf), "vision.* NaN or infinity"),
    "no logarithm is NaN": (put("class_logprob", (3, 2), np.nan), "class_logprob.* NaN or inf"),
    "texts are UTF-8": (bytes_that_are_no_text, "not UTF-8|can't encode"),
}


@pytest.mark.parametrize("must", DEEP)
def test_what_must_be_of_every_value_is_checked_where_it_is_read(must, whole, tmp_path):
    edit, words = DEEP[must]
    copy = hostile.change(whole, tmp_path / "s.h5", edit)
    with pytest.raises(StoreError, match=words):
        open_store(copy, "full")
    with open_store(copy) as store:
        assert store.layer(0).shape == (N, 12)
        with pytest.raises(StoreError, match=words) as error:
            print(
                store.layer(2),
                store.feature("vision"),
                store.class_logprob,
                store.responses,
                store.info,
            )
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda h5: h5["checksums"].__delitem__("label"), "label: has no checksums"),
        (lambda h5: h5["checksums"].create_dataset("mine", data=[b"0" * 64]), "mine: has checks"),
        (lambda h5: replaced(h5, "checksums/group", np.zeros((2, 2), "S64")), "does not cover"),
        (lambda h5: replaced(h5, "checksums/group", np.zeros(1, "S63")), "does not cover"),
        (lambda h5: h5["checksums"].__delitem__("structure"), "structure: missing or unreadable"),
        (lambda h5: put("checksums/structure", (), "[" * 100_000)(h5), "missing or unreadable"),
        (lambda h5: put("checksums/structure", (), '{"": 3, "label": []}')(h5), "damaged|cannot"),
    ],
)
def test_checksums_must_cover_every_dataset(edit, words, whole, tmp_path):
    copy = hostile.change(whole, tmp_path / "s.h5", edit, seal=False)
    with pytest.raises(StoreError, match=words):
        open_store(copy)
    assert check_store(copy)


def test_the_fingerprint_of_the_content_must_be_right(whole, tmp_path):
    def edit(h5):
        h5["checksums"].attrs["content_sha256"] = "0" * 64  # of another store, say

    copy = hostile.change(whole, tmp_path / "s.h5", edit, seal=False)
    with pytest.raises(StoreError, match="'content_sha256' of checksums: does not match"):
        open_store(copy)
    assert "content_sha256" in str(check_store(copy)[0])


def test_the_copies_are_whole_where_nothing_is_changed(whole, tmp_path, producer):
    copy = hostile.change(whole, tmp_path / "s.h5", lambda h5: None)
    assert check_store(copy) == []
    assert producer.snapshot(copy) == producer.snapshot(whole)
    with open_store(copy) as one, open_store(whole) as other:
        assert one.content_sha256 == other.content_sha256
