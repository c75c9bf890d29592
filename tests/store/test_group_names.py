"""Names of groups, such as those of signers: written, read, continued, joined, merged, checked."""

from dataclasses import replace

import h5py
import pytest

from signbridge.errors import StoreError
from signbridge.store import StoreWriter, merge_stores, open_store, verify_store
from signbridge.store.merge import extend_store

NAMES = tuple(f"hand{i} \u00e9" for i in range(40))


@pytest.fixture
def write(producer, tmp_path):
    """Write a store of named groups, or part of one."""

    def write(name, names=NAMES, n=60, rows=slice(None), stop_after=None, **what):
        spec, samples, provenance, data = producer.inputs(n=n, **what)
        samples = replace(
            samples,
            group_names=names,
            **{
                key: getattr(samples, key)[rows]
                for key in ("sample_id", "label", "group", "source_split", "image_sha256")
            },
        )
        path = tmp_path / name
        with StoreWriter(path, spec, samples, provenance, shard_size=20) as writer:
            for shard in writer.pending()[:stop_after]:
                part = {key: values[rows][shard.start : shard.stop] for key, values in data.items()}
                writer.write_shard(shard.index, part)
            if stop_after is None:
                writer.consolidate()
        return path

    return write


def test_they_come_back_whole_and_the_version_says_so(write, make_store):
    with open_store(write("a.h5"), verify="full") as store:
        assert store.group_names == store.samples.group_names == NAMES
        assert store.format_version == "1.1"
        assert store.baselines == ("pixels", "vision")
    with h5py.File(store.path) as h5:
        assert [h5["group_name"].asstr()[g] for g in h5["group"][:4]] == [*NAMES[:1] * 3, NAMES[1]]
    with open_store(store.path) as store:
        dataset = store.to_xarray()
        assert dataset["group_name"].dims == ("group_number",)
        assert dataset["group_name"].values.tolist() == list(NAMES)
        dataset.close()
    with open_store(make_store("b.h5", n=20)) as store:
        assert store.group_names is store.samples.group_names is None
        assert store.format_version == "1.0"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a", "a", *NAMES), "not unique"),
        (("", *NAMES), "not unique and not empty"),
        (NAMES[:3], "has group 3, but there are 3 group names"),
        (("a\0", *NAMES), "holds a NUL"),
    ],
)
def test_names_that_cannot_be_are_refused(names, words, write):
    with pytest.raises(StoreError, match=words):
        write("a.h5", names)


def test_work_without_names_is_continued_and_other_names_are_refused(write):
    path = write("a.h5", None, stop_after=2)  # as it was begun before names were kept
    with open_store(write("a.h5")) as store:
        assert store.path == path
        assert store.group_names == NAMES
    with pytest.raises(StoreError, match="group_names"):
        write("a.h5", NAMES[::-1])
    write("a.h5", None)
    write("b.h5", stop_after=1)
    with pytest.raises(StoreError, match="group_names"):
        write("b.h5", NAMES[::-1])


def test_layers_without_names_are_joined_to_those_with_names(write):
    only = {"baselines": {}, "responses": False, "class_logprob": False}
    old, new = write("a.h5", None, layers=(0,)), write("b.h5", layers=(3,), **only)
    extend_store(old, new)
    with open_store(old) as store:
        assert store.layers == (0, 3)
        assert store.group_names == NAMES
    other = write("c.h5", NAMES[::-1], layers=(5,), **only)
    with pytest.raises(StoreError, match="other group names"):
        extend_store(old, other)


def test_samples_cut_in_two_merge_by_name(write, tmp_path):
    whole = write("whole.h5", NAMES[:20])
    halves = [write(f"{i}.h5", NAMES[:20], rows=slice(i, None, 2)) for i in range(2)]
    with (
        open_store(whole) as a,
        open_store(merge_stores(halves, tmp_path / "merged.h5"), verify="full") as b,
    ):
        named = {i: a.group_names[g] for i, g in zip(a.sample_ids, a.groups, strict=True)}
        assert {i: b.group_names[g] for i, g in zip(b.sample_ids, b.groups, strict=True)} == named
        assert sorted(b.group_names) == sorted(NAMES[:20])
    unnamed = write("u.h5", None, first=100)
    with open_store(merge_stores([whole, unnamed], tmp_path / "mixed.h5")) as store:
        assert store.group_names is None
        assert store.info["without_group_names"] == ["u.h5"]


def test_a_group_without_a_name_is_found(write):
    path = write("a.h5")
    with h5py.File(path, "r+") as h5:
        h5["group"][7] = len(NAMES)
    found = [str(problem) for problem in verify_store(path)]
    assert f"group: a group number is above {len(NAMES) - 1}, the last name" in found
    with open_store(path, verify="none") as store, pytest.raises(StoreError, match="has no name"):
        assert store.group_names
