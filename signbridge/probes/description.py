"""The protocol of a sweep in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from signbridge.probes.dataset.plan import folds_of
from signbridge.probes.dataset.splits import shared_groups
from signbridge.runtime.words import counted
from signbridge.statistics.few_groups import FEW_GROUPS, LEAST_GROUPS
from signbridge.store.provenance import Grouping, grouping

if TYPE_CHECKING:
    from signbridge.probes.config import SweepConfig
    from signbridge.probes.dataset.plan import Plan


def describe(config: SweepConfig, plan: Plan, provenance: Mapping[str, Any], fitted: str) -> str:
    """The protocol in words.

    Args:
        config: the sweep's arguments.
        plan: its splits.
        provenance: the store's, whose ``groups`` says what the groups are.
        fitted: how the probes were fitted, in the engine's own words.
    """
    words = grouping(provenance)
    n_samples, n_groups = len(plan.labels), len(np.unique(plan.groups))
    if words.kind == "none":
        data = f"{n_samples} images, each counted as independent"
    else:
        of = "of" if words.kind == "signers" else "in"
        data = f"{n_samples} images {of} {n_groups} {words.many}{words.detail}"
    given = config.split in ("source", "file")
    split = _given_split(config, plan, words) if given else _drawn_split(config, plan, words)
    if len(config.penalties) > 1:
        values = ", ".join(f"{C:g}" for C in config.penalties)
        penalty = f"C chosen among {values} by the cross-entropy of {_inner_folds(plan)}"
    else:
        penalty = f"C = {config.penalties[0]:g}"
    return (
        f"{data}; {split}; features standardised on each training part; L2 multinomial logistic "
        f"regression, {penalty}, {fitted}; {_intervals(config, plan, words)}, with the probes held "
        "fixed."
    )


def _intervals(config: SweepConfig, plan: Plan, words: Grouping) -> str:
    """Where the intervals come from."""
    n_groups = len(np.unique(plan.groups[plan.main.fold_of_sample >= 0]))
    many = words.many if n_groups > 1 else words.one.partition(" ")[2]
    if n_groups < LEAST_GROUPS:
        return f"no intervals, since {n_groups} {many} permit none"
    if n_groups < FEW_GROUPS:
        return (
            f"95 % intervals by Student's t of {n_groups} {many} (at most {n_groups - 1} degrees "
            "of freedom), whose scores are taken to scatter like a normal sample"
        )
    drawn = "images" if words.kind == "none" else "whole groups"
    return f"95 % intervals from {config.bootstrap} bootstrap draws of {drawn}"


def _inner_folds(plan: Plan) -> str:
    """How many inner folds there are: a small training part is divided into fewer."""
    made = sorted({len(part) for part in plan.inner if part is not None})
    few = f"{made[0]} to " if made[0] < made[-1] else ""
    return f"{few}{counted(made[-1], 'inner fold')}"


def _drawn_split(config: SweepConfig, plan: Plan, words: Grouping) -> str:
    folds = folds_of(config, plan.groups)
    if folds == "groups":
        return f"{len(plan.main)} folds, each of which holds out {words.one}"
    if folds > 1:
        split = f"{len(plan.main)} stratified folds"
    elif config.split == "grouped":
        split = f"one held-out part of {plan.main.parts} stratified ones"
    else:
        split = "one stratified hold-out of a fifth"
    if config.split == "random":
        split += " drawn at random"
    if words.kind != "none":
        verb = "may" if config.split == "random" else "never"
        split += f", which {verb} part {words.one}"
    return split


def _given_split(config: SweepConfig, plan: Plan, words: Grouping) -> str:
    whose = "the data's own split" if config.split == "source" else f"the file {config.split_file}"
    if len(plan.main) == 1:
        (train, test) = plan.main.folds[0]
        split = f"trained on {len(train):,} images and tested on {len(test):,} as {whose} says"
    else:
        split = f"{len(plan.main)} folds as {whose} says"
    left = len(plan.labels) - len(plan.main.used)
    if left:
        split += f", {counted(left, 'image')} left out"
    if words.kind != "none":
        parted = shared_groups(plan.main, plan.groups)[1]
        split += f", parting {parted or 'none'} of the {words.many}"
    return split
