from __future__ import annotations

import numpy as np
import pytest

from signbridge.probes import SweepConfig
from signbridge.probes.dataset.plan import make_plan
from signbridge.probes.description import describe
from signbridge.store import open_store


@pytest.mark.parametrize(
    ("groups", "arguments", "says"),
    [
        ("near_duplicates 0.95", {}, "80 images in 40 groups of near-duplicates (pixels corre"),
        ("near_duplicates 0.95", {}, "5 stratified folds, which never part a group of near-dup"),
        ("class/signer", {}, "in 40 signers (folders class/signer); 5 stratified folds, which nev"),
        ("signer/class", {"split": "random"}, "folds drawn at random, which may part a signer"),
        ("mine.csv", {}, "40 groups (as given in mine.csv); 5 stratified folds, which never part"),
        ("none", {}, "80 images, each counted as independent; 5 stratified folds; features"),
        ("none", {"folds": 1}, "one held-out part of 5 stratified ones; features"),
        ("", {"folds": 1, "split": "random"}, "one stratified hold-out of a fifth drawn at rand"),
    ],
)
def test_protocol_in_words(planted, groups, arguments, says):
    config = SweepConfig(str(planted), **arguments)
    plan = make_plan(config, open_store(planted))
    assert says in describe(config, plan, {"groups": groups})


def test_protocol_of_few_groups_gives_the_real_number_of_parts(make_store):
    groups = np.repeat(np.arange(6) % 3, 4)
    path = make_store(labels=np.repeat(np.arange(2), 12), groups=groups, n_classes=2)
    config = SweepConfig(str(path), folds=1)
    plan = make_plan(config, open_store(path))
    assert "one held-out part of 3 stratified ones" in describe(config, plan, {})
