"""What a plan says of the images of a store."""

from __future__ import annotations

import pytest

from signbridge.probes import SweepConfig
from signbridge.probes.dataset.plan import make_plan
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
