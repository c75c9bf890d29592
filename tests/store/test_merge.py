"""Joining stores."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

from signbridge.errors import StoreError
from signbridge.store import (
    SampleTable,
    StoreSpec,
    StoreWriter,
    merge_stores,
    open_store,
    verify_store,
)
from signbridge.store.merge import extend_store, joined_groups


def write(path, spec, samples, provenance, data):
    with StoreWriter(path, spec, samples, provenance) as writer:
        for shard in writer.pending():
            rows = {name: values[shard.start : shard.stop] for name, values in data.items()}
            writer.write_shard(shard.index, rows)
        writer.consolidate()
    return path


def test_more_samples(make_store, producer, tmp_path):
    a = make_store("a.h5", n=150)
    b = make_store("b.h5", n=70, first=150)
    c = merge_stores([a, b], tmp_path / "c.h5")
    assert verify_store(c) == []
    with open_store(a) as first, open_store(b) as second, open_store(c) as both:
        assert both.n_samples == 220
        for name in ("resid_post/0", "resid_post/5", "pixels", "vision"):
            expected = np.concatenate([first.feature(name), second.feature(name)])
            np.testing.assert_array_equal(both.feature(name), expected)
        assert both.sample_ids == first.sample_ids + second.sample_ids
        assert both.responses == first.responses + second.responses
        np.testing.assert_array_equal(
            both.class_logprob, np.concatenate([first.class_logprob, second.class_logprob])
        )
        assert both.provenance == first.provenance
        assert both.info["merged_from"] == ["a.h5", "b.h5"]
        np.testing.assert_array_equal(both.groups[:150], first.groups)
        assert both.groups[150] == first.groups.max() + 1
    assert not list(tmp_path.glob("*tmp*"))


def test_samples_cut_in_two_merge_to_the_same_content(producer, tmp_path):
    spec, samples, provenance, data = producer.inputs(n=150)
    whole = write(tmp_path / "whole.h5", spec, samples, provenance, data)
    halves = []
    for i, rows in enumerate((slice(0, 75), slice(75, 150))):
        table = SampleTable(
            samples.sample_id[rows],
            samples.label[rows],
            samples.class_names,
            samples.group[rows],
            samples.source_split[rows],
            samples.image_sha256[rows],
        )
        part = {name: values[rows] for name, values in data.items()}
        halves.append(write(tmp_path / f"{i}.h5", spec, table, provenance, part))
    merged = merge_stores(halves, tmp_path / "merged.h5")
    with open_store(whole) as a, open_store(merged) as b:
        assert a.content_sha256 == b.content_sha256  # 75 rows: groups of three stay whole


def test_more_layers_and_baselines(make_store, producer, tmp_path):
    spec, samples, provenance, data = producer.inputs(n=150, layers=(0, 1, 2, 3))
    whole = write(tmp_path / "whole.h5", spec, samples, provenance, data)

    def part(name, layers, baselines, **options):
        spec, *_ = producer.inputs(
            n=150,
            layers=layers,
            baselines={k: v for k, v in whole_baselines.items() if k in baselines},
            **options,
        )
        kept = {k: v for k, v in data.items() if k in {x.name for x in spec.captured}}
        kept["resid_post"] = data["resid_post"][:, list(layers)]
        return write(tmp_path / name, spec, samples, provenance, kept)

    whole_baselines = dict(spec.baselines)
    a = part("a.h5", (3, 1), ["pixels"], responses=False)
    b = part("b.h5", (0, 2), ["vision", "pixels"], class_logprob=False)
    merged = merge_stores([a, b], tmp_path / "merged.h5")
    # Layers given as (3, 1) are stored in ascending order, so the data above was for 1 and 3.
    with open_store(whole) as x, open_store(merged) as y, open_store(a) as z:
        assert y.layers == (0, 1, 2, 3)
        for layer in (0, 2):
            np.testing.assert_array_equal(x.layer(layer), y.layer(layer))
        for layer in (1, 3):
            np.testing.assert_array_equal(z.layer(layer), y.layer(layer))
        assert y.baselines == ("pixels", "vision")
        assert y.responses == x.responses
        np.testing.assert_array_equal(x.class_logprob, y.class_logprob)
    assert verify_store(merged) == []


def test_the_same_samples_in_another_order(producer, tmp_path):
    spec, samples, provenance, data = producer.inputs(n=100, layers=(0,))
    a = write(tmp_path / "a.h5", spec, samples, provenance, data)
    order = np.random.default_rng(0).permutation(100)
    table = SampleTable(
        [samples.sample_id[i] for i in order],
        samples.label[order],
        samples.class_names,
        samples.group[order],
        [samples.source_split[i] for i in order],
        [samples.image_sha256[i] for i in order],
    )
    spec_b, _, _, _ = producer.inputs(n=100, layers=(7,))
    shuffled = {
        k: v[order] if isinstance(v, np.ndarray) else [v[i] for i in order] for k, v in data.items()
    }
    b = write(tmp_path / "b.h5", spec_b, table, provenance, shuffled)
    with open_store(merge_stores([a, b], tmp_path / "c.h5")) as store:
        np.testing.assert_array_equal(store.layer(0), store.layer(7))
        np.testing.assert_array_equal(store.labels, samples.label)


def test_image_sources_may_differ_and_are_listed(producer, tmp_path):
    paths = []
    for i, first in enumerate((0, 40, 80)):
        spec, samples, provenance, data = producer.inputs(n=40, first=first)
        provenance |= {"image_source": f"folder{i}", "per_class": None if i else 3}
        paths.append(write(tmp_path / f"{i}.h5", spec, samples, provenance, data))
    with open_store(merge_stores(paths, tmp_path / "c.h5")) as store:
        assert store.provenance["image_source"] == ["folder0", "folder1", "folder2"]
        assert store.provenance["per_class"] == ["3", "none"]


def test_what_a_model_does_not_give_is_told_of_the_whole(producer, tmp_path):
    """As `info` and the report tell it."""
    paths = []
    for number, notes in enumerate((["a is left out", "b"], None, ["b"])):
        spec, samples, provenance, data = producer.inputs(n=20, first=20 * number)
        paths.append(tmp_path / f"{number}.h5")
        with StoreWriter(paths[-1], spec, samples, provenance, {"model_notes": notes}) as writer:
            for shard in writer.pending():
                writer.write_shard(shard.index, producer.rows(data, shard.start, shard.stop))
            writer.consolidate()
    with open_store(merge_stores(paths, tmp_path / "all.h5")) as store:
        assert store.info["model_notes"] == ["a is left out", "b"]


def test_class_names_are_united(producer, tmp_path):
    paths = []
    for i, names in enumerate((("A", "B", "C", "D"), ("B", "C", "Q", "Z"))):
        spec, samples, provenance, data = producer.inputs(n=40, first=40 * i, class_logprob=False)
        table = SampleTable(
            samples.sample_id,
            samples.label,
            names,
            samples.group,
            samples.source_split,
            samples.image_sha256,
        )
        paths.append(write(tmp_path / f"{i}.h5", spec, table, provenance, data))
    with open_store(merge_stores(paths, tmp_path / "c.h5")) as store:
        assert store.class_names == ("A", "B", "C", "D", "Q", "Z")
        named = [store.class_names[label] for label in store.labels]
        assert named == ["A", "B", "C", "D"] * 10 + ["B", "C", "Q", "Z"] * 10


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"provenance": {"model": "other"}}, "model is 'stand-in' in the one and 'other'"),
        ({"provenance": {"compute_dtype": "x"}}, "compute_dtype"),
        ({"dtype": "float32"}, "float16"),
        ({"hidden": 13}, "13"),
        ({"layers": (0, 2, 6)}, "different samples and also different layers"),
        ({"first": 20}, r"'train/20' is in both"),
        ({"responses": False}, "responses"),
    ],
)
def test_conflicts_of_samples_are_named(change, words, make_store, producer, tmp_path):
    a = make_store("a.h5", n=40)
    extra = change.pop("provenance", {})
    spec, samples, provenance, data = producer.inputs(**{"n": 40, "first": 40, **change})
    b = write(tmp_path / "b.h5", spec, samples, {**provenance, **extra}, data)
    with pytest.raises(StoreError, match=words) as error:
        merge_stores([a, b], tmp_path / "c.h5")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "c.h5").exists()


def test_conflicts_of_layers_are_named(producer, tmp_path):
    spec, samples, provenance, data = producer.inputs(n=40, layers=(0, 1))
    a = write(tmp_path / "a.h5", spec, samples, provenance, data)
    same = write(tmp_path / "same.h5", spec, samples, provenance, data)
    with open_store(merge_stores([a, same], tmp_path / "c.h5")) as c, open_store(a) as first:
        assert c.content_sha256 == first.content_sha256  # equal values are no conflict
    data["resid_post"] = data["resid_post"] + 1
    b = write(tmp_path / "b.h5", spec, samples, provenance, data)
    with pytest.raises(StoreError, match=r"resid_post/0 is in both .* different values"):
        merge_stores([a, b], tmp_path / "d.h5")
    other = SampleTable(
        samples.sample_id,
        samples.label[::-1].copy(),
        samples.class_names,
        samples.group,
        samples.source_split,
        samples.image_sha256,
    )
    b2 = write(tmp_path / "b2.h5", spec, other, provenance, data)
    with pytest.raises(StoreError, match="'train/0' has labels 0 in"):
        merge_stores([a, b2], tmp_path / "d.h5")


def test_outputs_are_not_overwritten_silently(make_store, tmp_path):
    a, b = make_store("a.h5", n=20), make_store("b.h5", n=20, first=20)
    with pytest.raises(StoreError, match="at least two"):
        merge_stores([a], tmp_path / "c.h5")
    (tmp_path / "c.h5").write_text("mine")
    with pytest.raises(StoreError, match="exists already"):
        merge_stores([a, b], tmp_path / "c.h5")
    assert (tmp_path / "c.h5").read_text() == "mine"
    with pytest.raises(StoreError, match="no activation store"):
        merge_stores([a, tmp_path / "x.h5"], tmp_path / "d.h5")
    assert not (tmp_path / "d.h5.parts").exists()
    with pytest.raises(StoreError, match="is not an activation store, so --overwrite does not"):
        merge_stores([a, b], tmp_path / "c.h5", overwrite=True)
    assert (tmp_path / "c.h5").read_text() == "mine"
    (tmp_path / "c.h5").write_bytes(a.read_bytes())
    merge_stores([a, b], tmp_path / "c.h5", overwrite=True)
    assert open_store(tmp_path / "c.h5", verify="full").n_samples == 40


def test_a_store_is_not_merged_with_itself_or_into_itself(make_store, tmp_path, monkeypatch):
    a, b = make_store("a.h5", n=20), make_store("b.h5", n=20, first=20)
    (tmp_path / "link.h5").symlink_to(a)
    (tmp_path / "hard.h5").hardlink_to(a)
    monkeypatch.chdir(tmp_path)
    for stores in ([a, a], [a, b, a]):
        with pytest.raises(StoreError, match=r"a\.h5 is named twice"):
            merge_stores(stores, tmp_path / "c.h5")
    for same in (tmp_path / "link.h5", "hard.h5", "a.h5", "./a.h5"):
        with pytest.raises(StoreError, match=r"is .*: name every store once"):
            merge_stores([a, same], tmp_path / "c.h5")
        for overwrite in (False, True):
            with pytest.raises(StoreError, match="is one of the stores to merge") as error:
                merge_stores([a, b], same, overwrite=overwrite)
            assert "\n" not in str(error.value)
    assert not (tmp_path / "c.h5").exists()
    assert open_store(a, verify="full").n_samples == 20


def test_a_store_is_extended_in_its_place(make_store, producer, tmp_path):
    a, b = make_store("a.h5", n=20), make_store("b.h5", n=20, first=20)
    with open_store(a) as reader:
        extend_store(a, b)
        assert reader.layer(0).shape == (20, 12)  # whoever reads keeps the old file
    with open_store(a, verify="full") as store:
        assert store.n_samples == 40
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "b.h5"]
    with pytest.raises(StoreError, match="is in both"):
        extend_store(a, b)
    assert open_store(a, verify="full").n_samples == 40


@pytest.mark.parametrize(
    ("chosen", "merged"),
    [
        (("all", "all"), "all"),
        ((4, 4), 4),
        ((["A", "B"], ["A", "B"]), ["A", "B"]),
        ((4, "all"), ["A", "B", "C", "Ü"]),
        ((4, 3), ["A", "B", "C", "Ü"]),
        (("all", ["A", "B"]), ["A", "B", "C", "Ü"]),
    ],
)
def test_the_choice_of_classes_keeps_its_type(chosen, merged, producer, tmp_path):
    """All, a number, or a list of names; of stores that differ, the names."""
    paths = []
    for i, classes in enumerate(chosen):
        spec, samples, provenance, data = producer.inputs(n=40, first=40 * i)
        provenance |= {"classes": classes}
        paths.append(write(tmp_path / f"{i}.h5", spec, samples, provenance, data))
    with open_store(merge_stores(paths, tmp_path / "c.h5")) as store:
        assert store.provenance["classes"] == merged


def test_the_command_says_what_it_made(make_store, tmp_path, monkeypatch, capsys):
    from signbridge.cli.main import main

    make_store("a.h5", n=20)
    make_store("b.h5", n=20, first=20)
    monkeypatch.chdir(tmp_path)
    for arguments in (["a.h5", "b.h5", "-o", "c.h5"], ["-o", "d.h5", "a.h5", "b.h5"]):
        assert main(["merge", *arguments]) == 0
        out = capsys.readouterr().out.splitlines()
        assert len(out) == 1
        assert out[0].startswith("merged 2 stores: 40 samples, 3 layers (0, 2, 5), ")
        assert "kB in " in out[0]
    assert (tmp_path / "c.h5").read_bytes() == (tmp_path / "d.h5").read_bytes()
    assert main(["merge", "a.h5", "a.h5", "-o", "e.h5"]) == 2
    assert main(["merge", "a.h5", "b.h5", "-o", "a.h5", "--overwrite", "true"]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_groups_join_only_through_identical_images():
    groups = [np.array([0, 0, 1]), np.array([0, 1, 1, 0]), np.array([5])]
    hashes = [["a", "b", "c"], ["x", "c", "y", "z"], [""]]
    joined, names = joined_groups(groups, hashes, [None] * 3)
    np.testing.assert_array_equal(joined, [0, 0, 1, 2, 1, 1, 2, 3])
    assert names is None


def test_groups_of_one_name_join_and_those_with_one_image_take_both_names():
    groups = [np.array([0, 0, 1]), np.array([0, 1, 1, 0]), np.array([2])]
    hashes = [["a", "b", "c"], ["x", "c", "y", "z"], [""]]
    names = [("Ada", "Bo"), ("Ada", "Cy"), ("Di", "Ed", "Cy")]
    joined, together = joined_groups(groups, hashes, names)
    np.testing.assert_array_equal(joined, [0, 0, 1, 0, 1, 1, 0, 1])
    assert together == ("Ada", "Bo and Cy")
    assert joined_groups(groups, hashes, [*names[:2], None])[1] is None


def test_a_damaged_source_is_refused_and_nothing_is_written(tmp_path):
    """Copying it would give what is damaged new checksums that match."""
    paths = []
    for layer in (1, 2):
        samples = SampleTable(
            ["a", "b"], np.arange(2), ("A", "B"), np.arange(2), [""] * 2, ["0"] * 2
        )
        paths.append(tmp_path / f"{layer}.h5")
        with StoreWriter(paths[-1], StoreSpec((layer,), 4, "float32"), samples, {}) as writer:
            writer.write_shard(0, {"resid_post": np.ones((2, 1, 4), np.float32)})
            writer.consolidate()
    with h5py.File(paths[1], "r+") as file:
        file["resid_post"][1, 0, 2] = 2
    with pytest.raises(StoreError, match=r"2\.h5 is damaged"):
        merge_stores(paths, tmp_path / "c.h5")
    assert not (tmp_path / "c.h5").exists()


def test_class_names_in_another_form_of_unicode_are_the_same_names(producer, tmp_path):
    paths = []
    for i, names in enumerate(
        (("o", "e\u0301", "z"), ("o", "z", "\u00e9"), ("e\u0301", "\u00e9", "o"))
    ):
        spec, samples, provenance, data = producer.inputs(n=9, first=9 * i, class_logprob=False)
        samples = replace(samples, class_names=names, label=np.arange(9) % 3)
        data.pop("class_logprob", None)
        paths.append(write(tmp_path / f"{i}.h5", spec, samples, provenance, data))
    with open_store(merge_stores(paths, tmp_path / "c.h5"), verify="full") as store:
        assert store.class_names == ("o", "z", "\u00e9")
        assert [store.class_names[k] for k in store.labels[::9]] == ["o", "o", "\u00e9"]
        assert "".join(store.class_names[k] for k in store.labels[:3]) == "o\u00e9z"
