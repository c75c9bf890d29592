"""Sentences on the controls: the peak, permutations, memorisation, the solver."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from signbridge.report.figures import style
from signbridge.report.figures.axes import points
from signbridge.report.text.key_figures import interval_text, points_interval
from signbridge.results.comparisons import ALPHA, p_text
from signbridge.results.features import RESID_POST
from signbridge.store.provenance import grouping

if TYPE_CHECKING:
    from signbridge.results.results import Results
    from signbridge.results.summary import PermutationTest, SklearnDefault

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
    found = results.summary.peak
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
    found = results.summary.permutation_test
    if found is None:
        return ""
    text = f"Of {found.m:,} permutations of the labels"
    if found.structure:
        text += f" {found.structure}"
    shown = style.format_value("accuracy", found.observed)
    text += f", {_how_many(found)} reached the observed {found.statistic} ({shown}): "
    text += p_text(found.p)
    if math.isfinite(found.null_quantile_95):
        text += (
            f"; they gave {style.format_value('accuracy', found.null_mean)} on average, 95 % of "
            f"them less than {style.format_value('accuracy', found.null_quantile_95)}"
        )
    tested = [t.p_corrected for t in found.by_layer.values() if math.isfinite(t.p_corrected)]
    if tested:
        above = sum(p < ALPHA for p in tested)
        text += f". After correction {above} of {len(tested)} layers are above chance"
    return f"{text}."


def _how_many(found: PermutationTest) -> str:
    reached = max(0, round(found.p * (found.m + 1)) - 1)
    return "none" if reached == 0 else f"{reached:,}"


def memorisation_sentence(results: Results) -> str:
    """What the control task says; empty where it was not run."""
    found = results.summary.memorisation
    if found is None:
        return ""
    words = grouping(results.provenance)
    text = (
        f"On labels drawn at random for {words.one}, under a random split, probes at layer "
        f"{found.layer} score {style.format_value('accuracy', found.control_accuracy)}"
    )
    if interval := interval_text(*found.ci):
        text += f" ({interval})"
    text += ", which only recognition of images seen in training explains"
    if math.isfinite(found.selectivity):
        text += f"; the selectivity that is left is {points(found.selectivity)} points"
        if interval := points_interval(*found.selectivity_ci):
            text += f" ({interval})"
    text += "."
    if found.note:
        text += f" {found.note[0].upper()}{found.note[1:].rstrip('.')}."
    return text


def description_sentence(results: Results) -> str:
    """The online description length at the best layer; empty where it was not measured."""
    length = results.score(RESID_POST, results.best_layer, "description_length")
    if length is None or not math.isfinite(length.value):
        return ""
    text = (
        f"Sent one after another, the labels cost {length.value:.2f} bits an image with layer "
        f"{results.best_layer} at hand (online description length)"
    )
    compression = results.score(RESID_POST, results.best_layer, "compression")
    if compression is not None and math.isfinite(compression.value):
        text += f", a compression of {compression.value:.2f} against a uniform code"
    return f"{text}."


def solver_sentence(results: Results) -> str:
    """How far the Lightning probe is from the optimum; empty for the exact solver."""
    sgd = results.summary.sgd
    if sgd is None:
        return ""
    if not math.isfinite(sgd.largest_gap):
        return "The probes were trained in batches; their distance to the optimum was not measured."
    text = "The probes were trained in batches: their objectives are at most "
    text += f"{100 * sgd.largest_gap:.2g}{style.PER_CENT} above the optimum"
    if math.isfinite(sgd.least_agreement):
        share = style.format_value("accuracy", sgd.least_agreement)
        text += f", with the same answer for {share} of the held-out images or more"
    return f"{text}, where the exact solver was compared."


def default_sentence(results: Results) -> str:
    """What scikit-learn at its default settings would have said; empty where it was not run."""
    default = results.summary.sklearn_default
    if default is None or not math.isfinite(default.accuracy):
        return ""
    text = (
        f"scikit-learn at its default settings{_stopped(default)} would have said "
        f"{style.format_value('accuracy', default.accuracy)}"
    )
    if math.isfinite(default.optimum_accuracy):
        optimum = style.format_value("accuracy", default.optimum_accuracy)
        text += f" where the optimum says {optimum}"
    if math.isfinite(default.agreement):
        share = style.format_value("accuracy", default.agreement)
        text += f", with the same answer for {share} of the images"
    return f"{text}."


def _stopped(default: SklearnDefault) -> str:
    """What ended scikit-learn's fits, where the results tell."""
    steps, most = default.n_iter, default.max_iter
    if not steps or most is None:
        return ""
    cut = sum(step >= most for step in steps)
    tolerance = f"its tolerance (tol={default.tol:g})"
    if not cut:
        return f", stopped by {tolerance},"
    if cut == len(steps):
        return f", stopped by max_iter={most},"
    return f", stopped by max_iter={most} in {cut} of {len(steps)} folds, else by {tolerance},"
