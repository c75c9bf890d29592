"""Sentences on the controls: the peak, permutations, memorisation, the solver."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from signbridge.report.figures import style
from signbridge.report.figures.axes import points
from signbridge.report.text.key_figures import interval_text
from signbridge.results import blocks
from signbridge.results.blocks import number
from signbridge.results.comparisons import ALPHA, p_text
from signbridge.results.results import SITE
from signbridge.store.grouping import grouping

if TYPE_CHECKING:
    from signbridge.results.results import Results

__all__ = [
    "default_sentence",
    "description_sentence",
    "memorisation_sentence",
    "peak_sentence",
    "permutation_sentence",
    "solver_sentence",
]


def peak_sentence(results: Results) -> str:
    """Where the peak is, and which layers are not excluded; empty where it was not measured."""
    found = blocks.peak(results)
    if found is None:
        return ""
    if found.low == found.high:
        text = f"The 95 % interval of the peak's place holds layer {found.low} alone"
    else:
        text = f"The 95 % interval of the peak's place is layers {found.low} to {found.high}"
    n, total = len(found.candidates), len(results.layers)
    if n > 1 and n == total:
        text += f"; none of the {total} layers is excluded, so the curve shows no peak"
    elif n > 1:
        text += f"; {n} of {total} layers are not excluded from being the peak"
    return f"{text}."


def permutation_sentence(results: Results) -> str:
    """The permutation test; empty where none was made."""
    found = blocks.permutation(results)
    if found is None:
        return ""
    text = f"Of {found.m:,} permutations of the labels"
    if found.structure:
        text += f" {found.structure}"
    shown = style.format_value("accuracy", found.observed)
    text += f", {_how_many(found)} reached the observed {found.statistic} ({shown}): "
    text += p_text(found.p)
    if math.isfinite(found.null_high):
        text += (
            f"; they gave {style.format_value('accuracy', found.null_mean)} on average, 95 % of "
            f"them less than {style.format_value('accuracy', found.null_high)}"
        )
    tested = [p for _, p in found.by_layer.values() if math.isfinite(p)]
    if tested:
        above = sum(p < ALPHA for p in tested)
        text += f". After correction {above} of {len(tested)} layers are above chance"
    return f"{text}."


def _how_many(found: blocks.Permutation) -> str:
    reached = max(0, round(found.p * (found.m + 1)) - 1)
    return "none" if reached == 0 else f"{reached:,}"


def memorisation_sentence(results: Results) -> str:
    """What the control task says; empty where it was not run."""
    found = blocks.memorisation(results)
    if found is None:
        return ""
    words = grouping(results.provenance)
    text = (
        f"On labels drawn at random for {words.one}, under a random split, probes at layer "
        f"{found.layer} score {style.format_value('accuracy', found.accuracy)}"
    )
    if interval := interval_text(*found.ci):
        text += f" ({interval})"
    text += ", which only recognition of images seen in training explains"
    if math.isfinite(found.selectivity):
        low, high = found.selectivity_ci
        text += f"; the selectivity that is left is {points(found.selectivity)} points"
        if math.isfinite(low) and math.isfinite(high):
            text += f" ({points(low)} to {points(high)})"
    text += "."
    if found.note:
        text += f" {found.note[0].upper()}{found.note[1:].rstrip('.')}."
    return text


def description_sentence(results: Results) -> str:
    """The online description length at the best layer; empty where it was not measured."""
    length = results.score(SITE, results.best_layer, "description_length")
    if length is None or not math.isfinite(length.value):
        return ""
    text = (
        f"Sent one after another, the labels cost {length.value:.2f} bits an image with layer "
        f"{results.best_layer} at hand (online description length)"
    )
    compression = results.score(SITE, results.best_layer, "compression")
    if compression is not None and math.isfinite(compression.value):
        text += f", a compression of {compression.value:.2f} against a uniform code"
    return f"{text}."


def solver_sentence(results: Results) -> str:
    """How far the Lightning probe is from the optimum; empty for the exact solver."""
    sgd = results.summary.get("sgd")
    if not isinstance(sgd, Mapping):
        return ""
    gap, agreement = number(sgd.get("largest_gap")), number(sgd.get("least_agreement"))
    if not math.isfinite(gap):
        return "The probes were trained in batches; their distance to the optimum was not measured."
    text = f"The probes were trained in batches: their objectives are at most {100 * gap:.2g}"
    text += f"{style.PER_CENT} above the optimum"
    if math.isfinite(agreement):
        share = style.format_value("accuracy", agreement)
        text += f", with the same answer for {share} of the held-out images or more"
    return f"{text}, where the exact solver was compared."


def default_sentence(results: Results) -> str:
    """What scikit-learn at its default settings would have said; empty where it was not run."""
    default: Any = results.summary.get("sklearn_default")
    if not isinstance(default, dict):
        return ""
    accuracy = number(default.get("accuracy"))
    if not math.isfinite(accuracy):
        return ""
    text = (
        f"scikit-learn at its default settings{_stopped(default)} would have said "
        f"{style.format_value('accuracy', accuracy)}"
    )
    optimum = number(default.get("optimum_accuracy"))
    if math.isfinite(optimum):
        text += f" where the optimum says {style.format_value('accuracy', optimum)}"
    agreement = number(default.get("agreement"))
    if math.isfinite(agreement):
        text += f", with the same answer for {style.format_value('accuracy', agreement)} of the"
        text += " images"
    return f"{text}."


def _stopped(default: Mapping[str, Any]) -> str:
    """What ended scikit-learn's fits, where the results tell."""
    steps, most = default.get("n_iter"), default.get("max_iter")
    if not (isinstance(steps, list) and steps and isinstance(most, int)):
        return ""
    cut = sum(isinstance(step, int) and step >= most for step in steps)
    tolerance = f"its tolerance (tol={default.get('tol', '')})"
    if not cut:
        return f", stopped by {tolerance},"
    if cut == len(steps):
        return f", stopped by max_iter={most},"
    return f", stopped by max_iter={most} in {cut} of {len(steps)} folds, else by {tolerance},"
