"""Splits that the data or the user brings along."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from signbridge.errors import ProbeError
from signbridge.probes import SweepConfig, load_probes, train_probes
from signbridge.probes import sweep as sweep_module
from signbridge.probes.dataset.data_module import ActivationDataModule
from signbridge.probes.dataset.splits import inner_split, make_split, shared_groups
from signbridge.store import open_store

QUICK = {"bootstrap": 20, "permutations": 0, "control_task": False}


def source_split(y, g, part, **options):
    return make_split(y, g, split="source", source_splits=part, **options)


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def held_out(folder):
    with h5py.File(folder / "predictions.h5") as file:
        names = list(file["feature_name"].asstr())
        return dict(zip(names, file["probability"][:], strict=True)), file["fold"][:]


def scikit_learn(X, y, train, test, C=1.0):
    scaler = StandardScaler().fit(X[train])
    fit = LogisticRegression(C=C, tol=1e-10, max_iter=20000).fit(
        scaler.transform(X[train]), y[train]
    )
    return fit.predict(scaler.transform(X[test]))


@pytest.fixture(scope="module")
def parted(make_store):
    """Eighty samples: 44 to train on, 24 to test, 8 to validate and 4 of no part."""
    split = np.full(80, "train", dtype=object)
    split[np.arange(80) % 10 >= 7] = "test"
    split[np.arange(80) % 10 == 0] = "val"
    split[1::20] = ""
    return make_store(signal={1: 3.0}, source_splits=split.tolist())


@pytest.fixture(scope="module")
def by_source(parted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "results"
    return train_probes(str(parted), str(folder), split="source", **QUICK)


def test_source_split_gives_scikit_learns_answers(by_source, parted):
    store = open_store(parted)
    part = np.array(store.source_splits)
    train, test = np.flatnonzero(part == "train"), np.flatnonzero(part == "test")
    probability, fold = held_out(by_source)
    np.testing.assert_array_equal(np.flatnonzero(fold >= 0), test)
    for name in ("resid_post/0", "resid_post/1", "resid_post/2", "pixels"):
        X = store.feature(name).astype(np.float64)
        theirs = scikit_learn(X, store.labels, train, test)
        np.testing.assert_array_equal(probability[name][test].argmax(1), theirs)
        assert np.isnan(probability[name][np.setdiff1d(np.arange(80), test)]).all()


def test_source_split_is_complete_and_says_what_it_left_out(by_source, parted):
    found = summary(by_source)
    assert found["protocol"]["split"] == "source"
    assert found["protocol"]["folds"] == 1
    assert found["nested"]["layers_chosen"] == [1]
    assert found["leakage"] is None
    assert "trained on 44 images and tested on 24" in found["protocol"]["description"]
    assert "12 images left out" in found["protocol"]["description"]
    assert any("12 images are of neither" in text and "val" in text for text in found["warnings"])
    table = (by_source / "scores.csv").read_text().splitlines()
    row = dict(zip(table[0].split(","), table[1].split(","), strict=True))
    assert (row["split"], row["n_train"], row["n_test"]) == ("source", "44", "24")


def test_saved_probes_have_not_seen_what_was_left_out(by_source, parted):
    store = open_store(parted)
    used = np.isin(store.source_splits, ["train", "test"])
    X = store.layer(1).astype(np.float64)
    scaler = StandardScaler().fit(X[used])
    fit = LogisticRegression(tol=1e-10, max_iter=20000)
    fit.fit(scaler.transform(X[used]), store.labels[used])
    ours = load_probes(by_source)[1].predict_proba(X)
    np.testing.assert_allclose(ours, fit.predict_proba(scaler.transform(X)), atol=2e-6)


def test_sgd_takes_the_same_parts(parted, tmp_path):
    options = {"solver": "sgd", "split": "source", "max_steps": 20, "layers": [1]}
    train_probes(str(parted), str(tmp_path / "r"), baselines=False, **QUICK, **options)
    _, fold = held_out(tmp_path / "r")
    np.testing.assert_array_equal(fold >= 0, np.array(open_store(parted).source_splits) == "test")


@pytest.fixture(scope="module")
def folds_file(tmp_path_factory):
    """Three folds of the 80 samples that keep pairs together, ten samples ignored."""
    rows = [(f"train/{k}", "ignore" if k >= 70 else (k // 2) % 3 + 4) for k in range(80)]
    path = tmp_path_factory.mktemp("split") / "own.csv"
    path.write_text("\n".join(["sample_id,fold", *(",".join(map(str, row)) for row in rows), ""]))
    return path


@pytest.fixture(scope="module")
def by_file(parted, folds_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("file") / "results"
    options = {"split_file": str(folds_file), "C": [0.01, 1.0], **QUICK}
    return train_probes(str(parted), str(folder), **options)


def test_file_split_gives_scikit_learns_answers(by_file, parted):
    store = open_store(parted)
    chosen = summary(by_file)["C_chosen"]
    probability, fold = held_out(by_file)
    numbers = np.where(np.arange(80) >= 70, -1, (np.arange(80) // 2) % 3)
    np.testing.assert_array_equal(fold, numbers)
    for name in ("resid_post/0", "resid_post/1", "pixels"):
        X = store.feature(name).astype(np.float64)
        for k in range(3):
            train, test = (
                np.flatnonzero((numbers >= 0) & (numbers != k)),
                np.flatnonzero(numbers == k),
            )
            theirs = scikit_learn(X, store.labels, train, test, chosen[name][k])
            np.testing.assert_array_equal(probability[name][test].argmax(1), theirs)


def test_file_is_recorded_and_decides_which_run_it_is(by_file, parted, folds_file, tmp_path):
    found = summary(by_file)["protocol"]
    assert found["split"] == "file"
    assert found["split_file"]["path"] == str(folds_file)
    assert len(found["split_file"]["sha256"]) == 64
    assert load_probes(by_file).provenance["protocol"]["split_file"] == found["split_file"]
    command = summary(by_file)["command"]
    assert f"--split_file {folds_file}" in command
    assert "--split " not in command
    before = (by_file / "summary.json").read_bytes()
    copied = tmp_path / "elsewhere.csv"
    copied.write_bytes(folds_file.read_bytes())
    options = {"C": [0.01, 1.0], **QUICK}
    train_probes(str(parted), str(by_file), split_file=str(copied), **options)
    assert (by_file / "summary.json").read_bytes() == before
    copied.write_text(folds_file.read_text().replace("train/0,4", "train/0,5"))
    with pytest.raises(ProbeError, match=r"another run .*split_file"):
        train_probes(str(parted), str(by_file), split_file=str(copied), **options)
    with pytest.raises(ProbeError, match=r"another run .*split 'file' there, 'grouped' here"):
        train_probes(str(parted), str(by_file), **options)


@pytest.mark.parametrize("kind", ["source", "file"])
def test_a_stopped_sweep_is_continued(kind, parted, folds_file, tmp_path, monkeypatch):
    options = {"split": "source"} if kind == "source" else {"split_file": str(folds_file)}
    options |= QUICK | {"memory_gb": 1e-5, "layers": [1], "inner_folds": 2}
    whole = train_probes(str(parted), str(tmp_path / "whole"), **options)
    real, calls = sweep_module._probe_batch, []

    def stops(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(sweep_module, "_probe_batch", stops)
    with pytest.raises(KeyboardInterrupt):
        train_probes(str(parted), str(tmp_path / "stopped"), **options)
    again = train_probes(str(parted), str(tmp_path / "stopped"), **options)
    assert len(calls) == 3  # the first feature is not probed again
    for name in ("scores.csv", "probes.safetensors"):
        assert (whole / name).read_bytes() == (again / name).read_bytes()


def test_source_split_needs_both_parts(planted, tmp_path):
    with pytest.raises(ProbeError, match=r"part 'test' \(80 of 'train'\).*use split=grouped"):
        train_probes(str(planted), str(tmp_path / "r"), split="source")
    y = np.array([0, 1, 0, 1])
    with pytest.raises(ProbeError, match=r"part 'train' \(4 without a part\)"):
        source_split(y, None, [""] * 4)
    with pytest.raises(ProbeError, match="fewer than two classes"):
        source_split(y, None, ["train", "test", "train", "test"])
    assert not (tmp_path / "r").exists()


def test_the_data_module_takes_the_source_split(parted):
    store = open_store(parted)
    data = ActivationDataModule(store, split="source")
    part = np.array(store.source_splits)
    np.testing.assert_array_equal(data.train_rows, np.flatnonzero(part == "train"))
    np.testing.assert_array_equal(data.test_rows, np.flatnonzero(part == "test"))
    inner = ActivationDataModule(store, split="source", validation=True)
    assert set(inner.train_rows) | set(inner.validation_rows) == set(data.train_rows)
    groups = store.groups
    assert not set(groups[inner.train_rows]) & set(groups[inner.validation_rows])
    with pytest.raises(ProbeError, match="needs a file"):
        make_split(store.labels, split="file")


def test_inner_folds_of_a_given_split_keep_groups_whole():
    y, g = np.repeat([0, 1], 12), np.repeat(np.arange(8), 3)
    for inner in (
        inner_split(np.arange(20), y, g, split=k, folds=2, seed=0) for k in ("source", "file")
    ):
        for fit, check in inner:
            assert not set(g[fit]) & set(g[check])
            assert set(fit) | set(check) == set(range(20))


def test_parted_groups_are_counted():
    y = np.tile([0, 1], 6)
    g = np.array([0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 6, 7])
    part = ["train"] * 5 + ["test", "test", "test", "val"] + ["train"] * 2 + ["test"]
    split = source_split(y, g, part)
    train, test = split.folds[0]
    wanted = [row for row in test if any(g[row] == g[other] for other in train)]
    assert shared_groups(split, g) == (len(wanted), len({g[row] for row in wanted})) == (1, 1)
    said = next(text for text in split.warnings if "parts" in text)
    assert said.startswith("the data's own split parts 1 group: 1 of 4 test images")
    assert shared_groups(split, np.arange(12)) == (0, 0)
    whole = make_split(y, g, split="grouped", folds=2)
    assert shared_groups(whole, g) == (0, 0)
    assert not any("parts" in text for text in source_split(y, None, part).warnings)


def test_classes_with_too_few_groups_are_named():
    #       A        B     C           D     E
    y = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 4])
    g = np.array([0, 1, 2, 3, 4, 4, 5, 5, 6, 7, 8, 9, 10])
    part = ["train", "train", "test", "test", "train", "train"]  # A fair, B never tested
    part += ["train", "train", "test", "test", "test", "test", "val"]  # C learnt from one, D unseen
    said = source_split(y, g, part, class_names=list("ABCDE")).warnings
    assert [text.partition(";")[0] for text in said] == [
        "1 image is of neither the training nor the test part (val), and so neither trained on nor "
        "scored.",
        "class D has no image in a training part, so its test images there count as wrong",
        "class B has no test image, so nothing scores it",
        "class C has one group only in a training part, so it is learnt from a single one",
    ]
    part = ["train", "train", "test", "test", "test", "test"] + ["train"] * 6 + ["val"]
    said = source_split(y, g, part, class_names=list("ABCDE")).warnings
    assert any(text.startswith("class B has one group only among the test images") for text in said)
    assert all("add groups or leave it out" in text for text in said[1:])


def test_classes_that_are_left_out_do_not_count_as_chance(make_store, tmp_path):
    labels = np.arange(60) % 3
    part = np.where(np.arange(60) % 5 == 0, "test", "train").astype(object)
    part[labels == 2] = "val"
    store = make_store(labels=labels, n_classes=3, source_splits=part.tolist(), layers=(0,))
    train_probes(str(store), str(tmp_path / "r"), split="source", **QUICK)
    assert summary(tmp_path / "r")["chance"] == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"split": "random", "split_file": "x.csv"},
            "split=random and split_file=x.csv contradict",
        ),
        (
            {"split": "grouped", "split_file": "x.csv"},
            "split=grouped and split_file=x.csv contradict",
        ),
        ({"split": "file"}, "split=file needs a file"),
        ({"split": "signer"}, "use grouped, random, source or file"),
    ],
)
def test_arguments_that_contradict(options, message):
    with pytest.raises(ProbeError, match=message):
        SweepConfig(**options)


def test_a_file_means_its_split():
    assert SweepConfig(split_file="x.csv").split == "file"
    assert SweepConfig(split="file", split_file="x.csv") == SweepConfig(split_file="x.csv")
    assert SweepConfig().split == "grouped"
    assert "--split" not in SweepConfig().command
    assert "--split source" in SweepConfig(split="source").command
