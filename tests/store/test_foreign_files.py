"""Files that lead HDF5 elsewhere, in a circle or out of memory: refused before they are read."""

import json
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
from fixtures import hostile

from signbridge.errors import StoreError
from signbridge.runtime.files import file_sha256
from signbridge.store import StoreWriter, open_store, opening
from signbridge.store.verify import check_store

N = 70


@pytest.fixture(scope="module")
def kept(producer, tmp_path_factory):
    path = tmp_path_factory.mktemp("kept") / "s.h5"
    producer.produce(str(path), n=N, shard_size=32, keep_shards=True)
    return path


def link(kind, *what):
    def edit(h5):
        del h5["vision"]
        h5["vision"] = kind(*what)

    return edit


def circle(h5):
    h5["info/again"] = h5["info"]


def two_names(h5):
    h5["info/label"] = h5["label"]


def outside(h5):
    values = h5["label"][()]
    del h5["label"]
    new = h5.create_dataset("label", values.shape, "i8", external=[("/etc/passwd", 0, 8 * N)])
    new.dims[0].attach_scale(h5["sample"])


def virtual(name, source, of):
    def edit(h5):
        shape, dtype = h5[name].shape, h5[name].dtype
        layout = h5py.VirtualLayout(shape, dtype)
        layout[...] = h5py.VirtualSource(source, of, shape=shape, dtype=dtype)
        del h5[name]
        h5.create_virtual_dataset(name, layout)

    return edit


def growing(h5):
    """A virtual dataset over itself whose length HDF5 seeks in its source."""
    endless = h5py.h5s.UNLIMITED
    layout = h5py.VirtualLayout((N, 5), "f4", maxshape=(None, 5))
    source = h5py.VirtualSource(".", "vision", shape=(N, 5), maxshape=(None, 5))
    layout[0:endless] = source[0:endless]
    del h5["vision"]
    h5.create_virtual_dataset("vision", layout)


def plugin(h5):
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((N, 5))
    properties.set_filter(32099, h5py.h5z.FLAG_OPTIONAL, ())
    del h5["vision"]
    space = h5py.h5s.create_simple((N, 5))
    h5py.h5d.create(h5.id, b"vision", h5py.h5t.IEEE_F32LE, space, dcpl=properties)


def huge(**storage):
    def edit(h5):
        del h5["vision"], h5["label"]
        h5.create_dataset("vision", (1 << 40, 5), "f4", chunks=(1 << 20, 5), **storage)
        h5.create_dataset("label", (1 << 40,), "i8", chunks=(1 << 20,), **storage)

    return edit


def of_type(dtype):
    def edit(h5):
        del h5["vision"]
        h5.create_dataset("vision", (N, 5), dtype)

    return edit


def no_extent(h5):
    h5["info"].create_dataset("x", data=h5py.Empty("f4"))


def named_type(h5):
    h5["info/type"] = np.dtype("f4")


def reference(h5):
    h5["label"].attrs["mine"] = h5["group"].ref


def huge_attribute(h5):
    h5.attrs["mine"] = np.zeros(1 << 18)


def deep(h5):
    h5["info/" + "a/" * 50 + "b"] = 1


def too_many(h5):
    group = h5["info"].id
    for number in range(200):
        h5py.h5g.create(group, b"%d" % number)


def not_utf8(h5):
    h5py.h5g.create(h5["info"].id, b"\xff\xfe")


FOREIGN = {
    "soft link": (link(h5py.SoftLink, "/info"), "vision is a link to another place"),
    "soft link to itself": (link(h5py.SoftLink, "/vision"), "vision is a link to another place"),
    "external link": (link(h5py.ExternalLink, "o.h5", "/x"), "vision is a link to another file"),
    "circle": (circle, "info/again is a second name of something else"),
    "two names": (two_names, "is a second name of something else"),
    "external storage": (outside, "the values of label lie in another file"),
    "virtual over itself": (virtual("vision", ".", "vision"), "vision lie elsewhere|no shard|list"),
    "virtual over another": (virtual("label", ".", "group"), "label lie in files that it does not"),
    "virtual over a file": (virtual("label", "/etc/passwd", "x"), "in files that it does not list"),
    "virtual that grows": (growing, "vision lie in files that it does not list"),
    "virtual in info": (virtual("info/batch_size", ".", "label"), "info/batch_size lie in files"),
    "plugin as filter": (plugin, "vision is packed with filter 32099, a plugin"),
    "huge": (huge(), "its shapes speak of more values than it holds"),
    "huge and packed": (huge(compression="gzip"), "its shapes speak of more values than it holds"),
    "references": (of_type(h5py.ref_dtype), "vision holds references"),
    "regions": (of_type(h5py.regionref_dtype), "vision holds references"),
    "compounds": (of_type([("a", "f4"), ("b", "f4")]), "vision holds compounds"),
    "lists": (of_type(h5py.vlen_dtype("f4")), "vision holds lists of unequal length"),
    "opaque": (of_type("V8"), "vision holds opaque bytes"),
    "complex": (of_type("c8"), "vision holds "),
    "enumeration": (of_type(h5py.enum_dtype({"A": 0, "B": 1})), "vision holds values of a kind"),
    "no extent": (no_extent, "info/x has no extent"),
    "named type": (named_type, "info/type is neither a group nor"),
    "reference in an attribute": (reference, "'mine' of label holds references"),
    "huge attribute": (huge_attribute, "more than 1,048,576 bytes"),
    "too deep": (deep, "lies deeper than any group of ours"),
    "too many": (too_many, "it holds more than 200 objects"),
    "name": (not_utf8, "a name in info/ is not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("part", FOREIGN)
def test_what_leads_elsewhere_is_refused_before_it_is_read(part, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "_MOST_OBJECTS", 200)
    edit, words = FOREIGN[part]
    copy = tmp_path / "copy.h5"
    if part == "huge attribute":  # only the newer layout has room for one
        with h5py.File(whole) as old, h5py.File(copy, "w", libver="latest") as new:
            for key, value in old.attrs.items():
                new.attrs[key] = value
            edit(new)
    else:
        hostile.change(whole, copy, edit, seal=False)
    for verify in ("none", "quick", "read", "full"):
        with pytest.raises(StoreError, match=words) as error:
            open_store(copy, verify)
        assert "\n" not in str(error.value)
    (problem,) = check_store(copy)
    assert str(error.value) == str(problem)


# -- shards ---------------------------------------------------------------------------------------


def listed(name):
    def edit(h5):
        names = list(h5["shards/name"].asstr())
        h5["shards/name"][0] = name.format(names[0])

    return edit


def overlapping(h5):
    h5["shards/start"][1] = 16


def no_hash(h5):
    h5["shards/sha256"][1] = "none"


def larger(h5):
    h5["shards/size"][...] = 1 << 50


def from_itself(h5):
    name = h5["shards/name"].asstr()[0]
    layout = h5py.VirtualLayout((N, 5), "f4")
    layout[...] = h5py.VirtualSource(name.replace("%", "%%"), "pixels", shape=(N, 5))
    del h5["vision"]
    h5.create_virtual_dataset("vision", layout)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (listed("../../../etc/passwd"), "'../../../etc/passwd' as a shard, which is not in its"),
        (listed("/etc/passwd"), "'/etc/passwd' as a shard, which is not in its own folder"),
        (listed("{0}/../../../other.h5"), "as a shard, which is not in its own folder"),
        (listed(""), "'' as a shard, which is not in its own folder"),
        (listed("other.h5"), "takes values from .*shard-00000.h5, which is no shard of it"),
        (from_itself, "vision takes values from .*shard-00000.h5, which is no shard"),
        (overlapping, "shards: the shards do not hold every sample once, in order"),
        (no_hash, "shards/sha256: a value is no SHA-256"),
        (larger, "this shard has [0-9]+ bytes instead of"),
        (lambda h5: h5["shards"].__delitem__("stop"), "shards/stop: is missing or of another type"),
        (lambda h5: h5.__delitem__("shards"), "lie in files that it does not list"),
    ],
)  # fmt: skip
def test_shards_must_be_those_in_its_own_folder(edit, words, kept, tmp_path):
    shutil.copytree(kept.parent, tmp_path, dirs_exist_ok=True)
    copy = hostile.change(kept, tmp_path / "s.h5", edit, seal=False)
    with h5py.File(copy, "r+") as h5:  # the list is told in the structure, and nothing is sealed
        text = json.loads(h5["checksums/structure"].asstr()[()])
        for path in [p for p in text if p.startswith("shards") and p not in h5]:
            del text[path]
            if path in h5["checksums"]:
                del h5["checksums"][path]
        h5["checksums/structure"][()] = json.dumps(text)
    with pytest.raises(StoreError, match=words) as error:
        open_store(copy)
    assert "\n" not in str(error.value)
    assert check_store(copy)


def test_shards_may_not_lead_elsewhere_either(kept, tmp_path):
    shutil.copytree(kept.parent, tmp_path, dirs_exist_ok=True)
    shard = tmp_path / "s.h5.parts" / "shard-00000.h5"
    with h5py.File(shard, "r+") as h5:
        hostile.over_itself(h5, "vision")
    with h5py.File(tmp_path / "s.h5", "r+") as h5:
        h5["shards/size"][0] = shard.stat().st_size
    with pytest.raises(StoreError, match=r"shard-00000\.h5: this shard cannot be read \(the val"):
        open_store(tmp_path / "s.h5")
    assert "vision lie elsewhere" in str(check_store(tmp_path / "s.h5")[0])


def test_a_shard_of_an_unfinished_store_that_leads_elsewhere_is_made_again(producer, tmp_path):
    path = tmp_path / "s.h5"
    producer.begin(str(path), shards=2, n=N)
    with StoreWriter(path, *producer.inputs(n=N)[:3], shard_size=16) as writer:
        assert [shard.index for shard in writer.pending()] == [2, 3, 4]
        parts, shard = writer._parts, writer.shards[1]
        file = parts.shard_path(1)
        with h5py.File(file, "r+") as h5:
            hostile.over_itself(h5, "vision")
        parts.write_record(shard, file.stat().st_size, file_sha256(file))
        assert [shard.index for shard in writer.pending()] == [1, 2, 3, 4]


# -- in processes of their own --------------------------------------------------------------------

_COMMANDS = """
import json, sys
from signbridge.cli.main import main
for arguments in json.loads(sys.argv[1]):
    print(main(arguments), flush=True)
"""


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_no_command_is_ended_by_a_dataset_over_itself(every, whole, tmp_path):
    def edit(h5):
        hostile.over_itself(h5, "vision")

    store = str(hostile.change(whole, tmp_path / "s.h5", edit, seal=False))
    out = str(tmp_path / "out")
    commands = [
        ["info", store],
        ["verify", store],
        ["merge", store, str(whole), "--output", f"{out}.h5"],
        ["train_probes", "--store", store, "--output", out],
        ["train_probes", "--store", str(whole), "--control", store, "--output", out],
        ["extract", "--output", store, "--classes", "2", "--per_class", "4"],
    ]
    commands = commands if every else commands[:3]
    done = subprocess.run(
        [sys.executable, "-c", _COMMANDS, json.dumps(commands)], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    statuses = [line for line in done.stdout.splitlines() if line.isdecimal()]
    assert statuses == ["2", "1", "2", "2", "2", "2"][: len(commands)]
    words = "the values of vision lie in files that it does not list"
    assert (done.stderr + done.stdout).count(words) == len(commands)
    assert not (tmp_path / "out").exists()
