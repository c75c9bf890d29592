from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from signbridge.probes import LinearProbes, SweepConfig, run_sweep
from signbridge.probes.dataset.plan import make_plan
from signbridge.probes.description import describe
from signbridge.probes.sweep import make_engine
from signbridge.results.summary import read_summary
from signbridge.store import open_store


@pytest.mark.parametrize(
    ("groups", "arguments", "says"),
    [
        ("near_duplicates 0.95", {}, "80 images in 40 groups of near-duplicates (pixels corre"),
        ("near_duplicates 0.95", {}, "5 stratified folds, which never part a group of near-dup"),
        ("class/signer", {}, "of 40 signers (folders class/signer); 5 stratified folds, which nev"),
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
    assert says in describe(config, plan, {"groups": groups}, "fitted")


def test_protocol_of_few_groups_gives_the_real_number_of_parts(make_store):
    groups = np.repeat(np.arange(6) % 3, 4)
    path = make_store(labels=np.repeat(np.arange(2), 12), groups=groups, n_classes=2)
    config = SweepConfig(str(path), folds=1)
    plan = make_plan(config, open_store(path))
    assert "one held-out part of 3 stratified ones" in describe(config, plan, {}, "fitted")


def test_inner_folds_are_those_that_were_made(make_store):
    """A training part of four groups is divided into four parts, not the five asked for."""
    labels, groups = np.repeat(np.arange(2), 12), np.arange(24) // 4
    path = make_store(labels=labels, groups=groups, n_classes=2)
    config = SweepConfig(str(path), folds=3, inner_folds=5, C=[0.1, 1.0])
    plan = make_plan(config, open_store(path))
    assert {len(part) for part in plan.inner} == {4}
    said = describe(config, plan, {}, "fitted")
    assert "by the cross-entropy of 4 inner folds, fitted" in said


@pytest.mark.parametrize("solver", ["exact", "sgd"])
def test_how_probes_are_fitted_comes_from_what_fits_them(planted, tmp_path, solver):
    """Summary and report name the optimizer that Lightning is given, and no other."""
    config = SweepConfig(
        str(planted), str(tmp_path / "out"), solver=solver, layers=[1], folds=2, max_steps=20,
        baselines=False, compare_random=False, permutations=0, bootstrap=20,
    )  # fmt: skip
    said = read_summary(run_sweep(config) / "summary.json").protocol.description
    engine = make_engine(config, config.memory_bytes)
    assert f", {engine.fitted}; 95 % intervals" in said
    optimizer = LinearProbes(1, 3, 2).configure_optimizers()
    assert (type(optimizer).words in said) == (solver == "sgd")
    known = [name for name in vars(torch.optim) if name[0].isupper() and name != "Optimizer"]
    assert "Adam" in known
    assert not [name for name in known if re.search(rf"\b{name}\b", said)]
