from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold, StratifiedShuffleSplit

from signbridge.errors import ProbeError
from signbridge.probes.dataset.splits import inner_split, make_split


def groups_and_labels(n_classes=4, groups=6, size=3):
    g = np.repeat(np.arange(n_classes * groups), size)
    return g // groups, g


def test_original_split_is_scikit_learns_on_the_letters():
    letters = np.repeat(list("ABCDEFGHIKLMNOPQRSTU"), 15)
    codes = np.unique(letters, return_inverse=True)[1]
    theirs = StratifiedShuffleSplit(n_splits=1, test_size=0.2, random_state=42)
    train, test = next(theirs.split(np.zeros((len(letters), 1)), letters))
    split = make_split(codes, split="random", folds=1, seed=42)
    assert len(split) == 1
    np.testing.assert_array_equal(split.folds[0][0], np.sort(train))
    np.testing.assert_array_equal(split.folds[0][1], np.sort(test))
    assert (split.fold_of_sample >= 0).sum() == 60


def test_grouped_split_is_scikit_learns():
    y, g = groups_and_labels()
    theirs = StratifiedGroupKFold(n_splits=5, shuffle=True, random_state=3).split(y, y, g)
    ours = make_split(y, g, folds=5, seed=3)
    for (train, test), (a, b) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(train, a)
        np.testing.assert_array_equal(test, b)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 12)), min_size=2, max_size=80),
    st.integers(1, 6),
    st.sampled_from(["grouped", "random"]),
    st.integers(0, 5),
)
def test_any_labels_are_split_soundly_or_refused(rows, folds, kind, seed):
    y, g = np.array(rows).T
    try:
        split = make_split(y, g, split=kind, folds=folds, seed=seed)
    except ProbeError:
        return
    scored = np.concatenate([test for _, test in split])
    assert len(np.unique(scored)) == len(scored)
    if folds > 1:
        assert len(scored) == len(y)
    for train, test in split:
        np.testing.assert_array_equal(np.sort(np.r_[train, test]), np.arange(len(y)))
        assert len(np.unique(y[train])) >= 2
        if kind == "grouped":
            assert not set(g[train]) & set(g[test])
    assert (split.fold_of_sample[scored] >= 0).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 15)), min_size=12, max_size=60))
def test_inner_folds_stay_in_the_training_part(rows):
    y, g = np.array(rows).T
    try:
        outer = make_split(y, g, folds=3)
    except ProbeError:
        return
    for train, test in outer:
        inner = inner_split(train, y, g, split="grouped", folds=3, seed=0)
        if inner is None:
            continue
        for fit, check in inner:
            assert set(fit) | set(check) == set(train)
            assert not set(g[fit]) & set(g[check])
            assert not set(g[fit]) & set(g[test])


def test_inner_split_of_a_part_that_is_too_small():
    y = np.array([0, 1, 0, 1])
    assert inner_split(np.array([0, 1]), y, y, split="grouped", folds=3, seed=0) is None
    assert inner_split(np.array([0, 1]), y, y, split="random", folds=3, seed=0) is None


def test_seed_decides():
    y, g = groups_and_labels()
    folds = [make_split(y, g, seed=seed).fold_of_sample for seed in (1, 1, 2)]
    np.testing.assert_array_equal(folds[0], folds[1])
    assert (folds[0] != folds[2]).any()


def test_one_grouped_fold_is_the_first_of_five():
    y, g = groups_and_labels()
    one, five = make_split(y, g, folds=1), make_split(y, g, folds=5)
    np.testing.assert_array_equal(one.folds[0][1], five.folds[0][1])
    assert len(one) == 1


def test_classes_that_cannot_be_treated_fairly_are_named():
    y, g = groups_and_labels(n_classes=3, groups=6)
    y = np.r_[y, [3, 3], [4, 4]]
    g = np.r_[g, [100, 100], [101, 102]]
    grouped = make_split(y, g, folds=5, class_names=list("ABCDE"))
    assert [w.split(",")[0] for w in grouped.warnings] == [
        "class D has one group only",
        "class E has fewer groups than the 5 folds",
    ]
    assert "folds=2" in grouped.warnings[1]
    random = make_split(y, g, split="random", folds=5, class_names=list("ABCDE"))
    assert random.warnings[0].startswith("classes D, E have each fewer images than the 5 folds")
    assert random.warnings[1].startswith("class D has one group only, so a random split")


@pytest.mark.parametrize(("kind", "folds"), [("random", 1), ("random", 3), ("grouped", 3)])
def test_a_class_of_one_image_is_survived_and_named(kind, folds):
    y = np.r_[np.repeat([0, 1], 10), 2]
    split = make_split(y, split=kind, folds=folds, class_names=["A", "B", "Lonely"])
    assert any("Lonely" in warning for warning in split.warnings)
    if folds == 1:
        assert split.fold_of_sample[-1] == -1
        assert len(y) - 1 in split.folds[0][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"folds": 0}, "folds must be"),
        ({"folds": 2.5}, "folds must be"),
        ({"split": "signer"}, "split 'signer' is not known"),
        ({"folds": 30}, "grouped folds need as many groups"),
        ({"folds": 30, "split": "random"}, "30 folds .* the largest has 18; use folds=18"),
        ({"class_names": ["A"]}, "label 3 has no name"),
    ],
)
def test_arguments_that_cannot_be_used(arguments, message):
    y, g = groups_and_labels()
    with pytest.raises(ProbeError, match=message):
        make_split(y, g, **arguments)


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        ([0, 0, 0], None, "at least two classes"),
        ([], None, "labels must be|at least two classes"),
        ([0, -1, 1], None, "1 of 3 samples have no label"),
        ([0, 1, 0], [0, 1], "3 labels and 2 groups"),
        ([0.5, 1.5], None, "one class index per sample"),
        ([0, 1, 0, 1], [7, 7, 7, 7], "use split=random"),
    ],
)
def test_samples_that_cannot_be_split(labels, groups, message):
    with pytest.raises(ProbeError, match=message):
        make_split(np.array(labels), groups, folds=2)


def test_hold_out_with_more_classes_than_test_images():
    with pytest.raises(ProbeError, match="use folds=5 or fewer"):
        make_split(np.repeat(np.arange(10), 2), split="random", folds=1)


@pytest.mark.parametrize("split", ["grouped", "random"])
@pytest.mark.parametrize("folds", [1, 5])
def test_classes_too_small_for_any_fold_are_said_without_the_librarys_words(split, folds):
    with pytest.raises(ProbeError, match=r"every class has a single image, .* \(--per_class\)\.$"):
        make_split(np.arange(24), split=split, folds=folds)
    with pytest.raises(ProbeError, match=r"the largest has 3; use folds=3 or fewer"):
        make_split(np.repeat(np.arange(8), 3), split=split, folds=5)


def test_folds_of_groups_are_scikit_learns():
    from sklearn.model_selection import LeaveOneGroupOut

    rng = np.random.default_rng(0)
    groups = rng.integers(5, size=100)
    labels = rng.integers(4, size=100)
    made = make_split(labels, groups, folds="groups")
    expected = LeaveOneGroupOut().split(labels, labels, groups)
    for (train, test), (a, b) in zip(made, expected, strict=True):
        np.testing.assert_array_equal(train, a)
        np.testing.assert_array_equal(test, b)
    assert (made.parts, made.warnings) == (5, ())


def test_folds_of_groups_are_grouped_and_need_two():
    labels, groups = np.arange(8) % 2, np.arange(8) // 2
    with pytest.raises(ProbeError, match="folds=groups makes grouped folds; it cannot make"):
        make_split(labels, groups, split="random", folds="groups")
    with pytest.raises(ProbeError, match="needs two groups or more, and there is one"):
        make_split(labels, np.zeros(8, dtype=int), folds="groups")
    with pytest.raises(ProbeError, match="use folds=groups or add groups"):
        make_split(labels, groups, folds=5)


def test_a_fold_stays_empty_for_the_classes_sake():
    """Five groups of one size: none of them holds most images."""
    groups = np.repeat(np.arange(5), 4)
    for classes in itertools.product(range(3), repeat=5):
        labels = np.array(classes)[groups]
        if len(set(classes)) < 3:
            continue
        made = make_split(labels, groups, folds=5, seed=2)
        if len(made) < 5:
            (note,) = [one for one in made.warnings if "stayed empty" in one]
            assert "hold" not in note.partition("because")[2]
            assert "make the shares of the classes in each fold most even" in note
            assert f"use folds={len(made)} or folds=groups." in note
            break
    else:
        pytest.fail("no such case was found")
