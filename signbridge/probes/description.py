"""The protocol of a sweep in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from signbridge.probes.grouping import grouping

if TYPE_CHECKING:
    from signbridge.probes.config import SweepConfig
    from signbridge.probes.sweep import Plan


def describe(config: SweepConfig, plan: Plan, provenance: Mapping[str, Any]) -> str:
    """The protocol in words.

    Args:
        config: the sweep's arguments.
        plan: its splits.
        provenance: the store's, whose ``groups`` says what the groups are.
    """
    words = grouping(provenance)
    n_samples, n_groups = len(plan.labels), len(np.unique(plan.groups))
    folds = len(plan.main)
    if words.kind == "none":
        data = f"{n_samples} images, each counted as independent"
    else:
        data = f"{n_samples} images in {n_groups} {words.many}{words.detail}"
    if config.folds > 1:
        split = f"{folds} stratified folds"
    elif config.split == "grouped":
        split = f"one held-out part of {plan.main.parts} stratified ones"
    else:
        split = "one stratified hold-out of a fifth"
    if config.split == "random":
        split += " drawn at random"
    if words.kind != "none":
        verb = "may" if config.split == "random" else "never"
        split += f", which {verb} part {words.one}"
    drawn = "images" if words.kind == "none" else "whole groups"
    if len(config.penalties) > 1:
        values = ", ".join(f"{C:g}" for C in config.penalties)
        penalty = (
            f"C chosen among {values} by the cross-entropy of {config.inner_folds} inner folds"
        )
    else:
        penalty = f"C = {config.penalties[0]:g}"
    fit = "solved to its optimum" if config.solver == "exact" else "trained in batches with Adam"
    return (
        f"{data}; {split}; features standardised on each training part; L2 multinomial logistic "
        f"regression, {penalty}, {fit}; 95 % intervals from {config.bootstrap} bootstrap draws of "
        f"{drawn}, with the probes held fixed."
    )
