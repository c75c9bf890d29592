"""Sentences on the controls: the peak, permutations, description length, the solver."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from signbridge.report.figures import style
from signbridge.report.groups import groups_of
from signbridge.results.comparisons import ALPHA, p_text
from signbridge.results.features import RESID_POST

if TYPE_CHECKING:
    from signbridge.results.results import Results
    from signbridge.results.summary import SklearnDefault

__all__ = [
    "default_sentence",
    "description_sentence",
    "peak_sentence",
    "permutation_sentence",
    "solver_sentence",
]


def peak_sentence(results: Results) -> str:
    """That the curve shows no peak; empty where layers are excluded, or none was looked for."""
    found = results.summary.peak
    if found is None or not 1 < len(found.candidates) == len(results.layers):
        return ""
    few = groups_of(results)
    if few.few:
        return f"No layer is excluded from being the peak: {few.words} tell little about its place."
    return "No layer is excluded from being the peak, so the curve shows none."


def permutation_sentence(results: Results) -> str:
    """The permutation test; empty where none was made."""
    found = results.summary.permutation_test
    if found is None:
        return ""
    reached = max(0, round(found.p * (found.m + 1)) - 1)
    text = f"{reached:,} permutations" if reached else "No permutation"
    if found.structure:
        text += f" {found.structure}"
    shown = style.format_value("accuracy", found.observed)
    text += f" of {found.m:,} reached the {found.statistic} ({shown}; {p_text(found.p)})"
    if math.isfinite(found.null_quantile_95):
        below = style.format_value("accuracy", found.null_quantile_95)
        text += f", and 95 % of them scored below {below}"
    tested = [t.p_corrected for t in found.by_layer.values() if math.isfinite(t.p_corrected)]
    if tested:
        above = sum(p < ALPHA for p in tested)
        text += f"; {above} of {len(tested)} layers are above chance after correction"
    return f"{text}."


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
    """That scikit-learn's default fit has another accuracy; empty where it agrees or was not run.

    The rest stands among the fits.
    """
    default = results.summary.sklearn_default
    if default is None or not math.isfinite(default.accuracy):
        return ""
    found = style.format_value("accuracy", default.accuracy)
    text = f"scikit-learn at its default settings{_stopped(default)} gives {found}"
    if math.isfinite(default.optimum_accuracy):
        optimum = style.format_value("accuracy", default.optimum_accuracy)
        if optimum == found:
            return ""
        text += f", the optimum {optimum}"
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
