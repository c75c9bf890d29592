"""What a plan says of the images of a store."""

from __future__ import annotations

import json

import numpy as np
import pytest

from signbridge.probes import SweepConfig, train_probes
from signbridge.probes.dataset.plan import folds_of, make_plan
from signbridge.store import open_store


def notes(path):
    with open_store(path) as store:
        return " ".join(make_plan(SweepConfig(str(path)), store).warnings)


def test_images_under_two_classes_are_said_with_both_places(make_store):
    hashes = [f"{k:064x}" for k in range(80)]
    hashes[5] = hashes[45] = hashes[6] = hashes[66] = "f" * 64
    hashes[0] = hashes[1]  # of one class
    hashes[2] = hashes[72] = ""  # not known
    said = notes(make_store(signal={1: 6.0}, image_sha256=hashes))
    assert "1 image stands under two classes, such as train/5 (A) and train/45 (C):" in said


@pytest.mark.parametrize(
    ("provenance", "names", "is_said"),
    [
        ({"signers": 5, "groups": "near_duplicates 0.95"}, None, True),
        ({"signers": 40, "groups": "signer/class"}, tuple(map(str, range(40))), False),
        ({"signers": 1, "groups": "none"}, None, False),
        ({"groups": "near_duplicates 0.95"}, None, False),
    ],
)
def test_signers_that_the_groups_do_not_keep_apart_are_said(provenance, names, is_said, make_store):
    said = notes(make_store(provenance=provenance, group_names=names))
    assert ("the images are of 5 signers, whom the groups do not keep apart" in said) == is_said
    assert "two classes" not in said


@pytest.mark.parametrize(
    ("asked", "split", "n_groups", "folds"),
    [
        ("auto", "grouped", 300, 5),
        ("auto", "grouped", 5, 5),
        ("auto", "grouped", 3, "groups"),
        ("auto", "grouped", 1, 5),  # which is then refused in words of its own
        ("auto", "random", 3, 5),
        (5, "grouped", 3, 5),  # what was asked for is not changed
        ("groups", "grouped", 300, "groups"),
    ],
)
def test_auto_makes_as_many_folds_as_groups_permit(asked, split, n_groups, folds):
    groups = np.arange(600) % n_groups
    assert folds_of(SweepConfig("a.h5", folds=asked, split=split), groups) == folds


def test_three_signers_are_held_out_in_turn_and_it_is_said(make_store, tmp_path):
    path = make_store(labels=np.arange(80) % 4, groups=np.arange(80) % 3)
    folder = train_probes(
        path, output=tmp_path / "r", layers=[0], baselines=False, permutations=0, device="cpu"
    )
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["protocol"]["folds"] == 3
    assert any("each is held out in turn" in warning for warning in summary["warnings"])
