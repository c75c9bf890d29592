"""What a results folder says, in plain sentences."""

from __future__ import annotations

import math
from dataclasses import dataclass

from signbridge.report.figures import style
from signbridge.report.figures.axes import points
from signbridge.report.figures.leakage import leakage_pairs
from signbridge.report.text import evidence
from signbridge.report.text.key_figures import interval_text, points_interval
from signbridge.report.text.said import naming_sentence, said_sentence
from signbridge.results.features import RANDOM_WEIGHTS, RESID_POST, UNTRAINED
from signbridge.results.results import Results, Score
from signbridge.results.summary import Difference, NotConverged
from signbridge.runtime.words import counted, listed
from signbridge.store.provenance import grouping

__all__ = ["Findings", "describe_data", "find"]


@dataclass(frozen=True)
class Findings:
    """The sentences of the report.

    Attributes:
        headline: The one sentence to remember.
        details: What qualifies it: selection, baselines, leakage, solver.
        warnings: What the reader should know before believing it.
    """

    headline: str
    details: tuple[str, ...]
    warnings: tuple[str, ...]


def find(results: Results) -> Findings:
    """Say what was found.

    Args:
        results: A results folder.

    Returns:
        Sentences without markup. They hold class names and other text from data as it is.
    """
    details = [
        sentence
        for sentence in (
            said_sentence(results),
            naming_sentence(results),
            _against_baselines(results),
            _nested(results),
            evidence.peak_sentence(results),
            evidence.permutation_sentence(results),
            _leakage(results),
            evidence.description_sentence(results),
            evidence.solver_sentence(results),
            evidence.default_sentence(results),
        )
        if sentence
    ]
    return Findings(_headline(results), tuple(details), _warnings(results))


def describe_data(results: Results) -> str:
    """How many images and groups there are; what the protocol says too is left to it."""
    store = results.store
    n = store.n_samples or len(results.predictions.sample_id)
    words = grouping(results.provenance)
    text = f"{n:,} images"
    if not store.n_groups:
        return f"{text}; their groups were not recorded."
    if words.kind == "none":
        return f"{text}, each counted as independent: near-duplicates were not looked for."
    detail = "" if results.protocol.description else words.detail
    text += f" in {store.n_groups:,} {words.many}{detail}, {n / store.n_groups:.1f} each"
    if words.kind == "unknown":
        return f"{text}; what makes a group was not recorded."
    return f"{text}: intervals rest on the number of groups."


def _headline(results: Results) -> str:
    n_classes = len(results.class_names)
    best = results.score(RESID_POST, results.best_layer, "accuracy")
    value = best.value if best else results.summary.best_layer.accuracy
    low, high = (best.ci_low, best.ci_high) if best else (math.nan, math.nan)
    text = (
        f"A linear probe on decoder layer {results.best_layer} reads the {n_classes} classes with "
        f"{style.format_value('accuracy', value)} held-out accuracy"
    )
    if interval := interval_text(low, high):
        text += f" (95 % interval {interval})"
    chance = _chance(results)
    if math.isfinite(chance):
        above = chance > results.summary.chance
        what = "the largest class alone gives" if above else "chance is"
        text += f", where {what} {style.format_value('accuracy', chance)}"
        over_majority = _paired(results, "majority").ci[0]
        if low <= chance or over_majority <= 0:
            text += ", so nothing shows that it reads them better than chance"
    return f"{text}."


def _chance(results: Results) -> float:
    values = [
        s.value for s in results.baselines("accuracy", results.split) if s.feature in UNTRAINED
    ]
    values += [results.summary.chance, results.summary.majority]
    return max((v for v in values if math.isfinite(v)), default=math.nan)


def _against_baselines(results: Results) -> str:
    """The best layer against each trained baseline, by the paired differences."""
    layer = results.best_layer
    others = results.trained_baselines()
    if not others:
        return ""
    found: dict[str, list[str]] = {}
    for s in sorted(others, key=lambda s: -s.value):
        relation, numbers = _pairing(results, s.feature)
        found.setdefault(relation, []).append(_the(s) + numbers)
    parts = []
    for relation, words in (
        ("below", "is clearly below"),
        ("above", "is clearly above"),
        ("open", "cannot be told apart from"),
        ("", "was not compared with"),
    ):
        if relation in found:
            parts.append(f"{words} {listed(found[relation])}")
    text = f"In accuracy, layer {layer} " + "; it ".join(parts) + "."
    if "below" in found:
        names = listed([name.partition(" (")[0] for name in found["below"]])
        text += (
            f" A linear probe reads the classes worse at this layer and position than from {names}."
        )
    elif "open" in found:
        text += " So nothing shows that the decoder adds to what was there before it."
    return text


def _pairing(results: Results, name: str) -> tuple[str, str]:
    """How the best layer lies to a baseline, and the numbers that no table of the page holds."""
    for c in results.family(f"layers_vs_{name}"):
        if c.layer == results.best_layer:
            return c.relation, ""
    entry = _paired(results, name)
    relation = _relation(*entry.ci)
    numbers = f" ({points(entry.difference)} points, {points_interval(*entry.ci)})"
    return relation, numbers if relation else ""


def _paired(results: Results, name: str) -> Difference:
    """The best layer's accuracy minus a baseline's, NaN where it was not recorded."""
    return results.summary.against_baselines.get(name, Difference())


def _relation(low: float, high: float) -> str:
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return "above" if low > 0 else "below" if high < 0 else "open"


def _the(s: Score) -> str:
    return {
        "pixels": "the raw pixels",
        "vision": "the vision tower",
        "projector": "the projector",
        RANDOM_WEIGHTS: "the same layer with random weights",
    }.get(s.feature, style.feature_label(s.feature))


def _nested(results: Results) -> str:
    """That the choice of the layer favours it; where it was chosen inside training is drawn."""
    if len(results.layers) < 2:
        return ""
    text = "The layer was chosen on the images that score it, which favours it"
    nested = results.summary.nested
    if nested is not None and nested.layers_chosen and results.summary.peak is None:
        chosen = ", ".join(map(str, sorted(set(nested.layers_chosen))))
        text += f"; inside training the folds chose {chosen}"
    return f"{text}."


def _parted(results: Results) -> str:
    """What a random split does to the groups."""
    words = grouping(results.provenance)
    return "which ignores groups" if words.kind == "none" else f"which may part {words.one}"


def _leakage(results: Results) -> str:
    layers = [p for p in leakage_pairs(results) if p[0].layer is not None]
    if not layers:
        return ""
    main, other = layers[0]
    difference, relation = 100 * (other.value - main.value), ""
    leakage = results.summary.leakage
    if leakage is not None and leakage.layer == main.layer:
        # On the samples that both splits score, where the results give it.
        if math.isfinite(leakage.difference):
            difference = 100 * leakage.difference
        relation = _relation(*leakage.ci)
    if abs(difference) < 0.05:
        return "No leakage is seen with these groups, which does not exclude it."
    text = (
        f"A random split, {_parted(results)}, gives {abs(difference):.1f} points "
        f"{'more' if difference > 0 else 'less'} than {style.split_label(results.split)}"
    )
    if relation == "open":
        text += ", but the two cannot be told apart"
    return f"{text}."


def _warnings(results: Results) -> tuple[str, ...]:
    warnings = list(results.summary.warnings)
    fits = results.summary.not_converged
    if fits and not any("not_converged" in text for text in warnings):
        names = sorted({_feature_of(fit) for fit in fits})
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        warnings.append(
            f"{counted(len(fits), 'fit')} ended short of the tolerance, listed as not_converged in "
            f"summary.json: {', '.join(names[:8])}{more}."
        )
    unscored = int((results.predictions.fold < 0).sum())
    if unscored:
        warnings.append(
            f"{unscored:,} of {len(results.predictions.fold):,} images were never scored."
        )
    if results.split == "random":
        warnings.append(
            f"The main split is random, {_parted(results)}: where it does, a probe can score by "
            "recognising what it was trained on."
            if grouping(results.provenance).kind != "none"
            else "The main split is random, and no groups are known: a probe can score by "
            "recognising near-duplicates of what it was trained on, if there are any."
        )
    return tuple(warnings)


def _feature_of(fit: NotConverged) -> str:
    return fit.feature if fit.layer is None else f"{fit.feature}/{fit.layer}"
