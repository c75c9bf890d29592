"""What a results folder says, in plain sentences."""

from __future__ import annotations

import math
from dataclasses import dataclass

from signbridge.report.figures import style
from signbridge.report.figures.axes import points
from signbridge.report.figures.leakage import leakage_pairs
from signbridge.report.text import evidence
from signbridge.report.text.key_figures import interval_text
from signbridge.report.text.said import naming_sentence, said_sentence
from signbridge.results.comparisons import p_text
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
            evidence.memorisation_sentence(results),
            evidence.description_sentence(results),
            evidence.solver_sentence(results),
            evidence.default_sentence(results),
        )
        if sentence
    ]
    return Findings(_headline(results), tuple(details), _warnings(results))


def describe_data(results: Results) -> str:
    """How many images there are, in how many groups, and what a group is."""
    store = results.store
    n = store.n_samples or len(results.predictions.sample_id)
    n_classes = len(results.class_names)
    words = grouping(results.provenance)
    text = f"{n:,} images of {n_classes:,} classes"
    if not store.n_groups:
        return f"{text}; their groups were not recorded."
    if words.kind == "none":
        return f"{text}, each counted as independent: near-duplicates were not looked for."
    text += f" in {store.n_groups:,} {words.many}{words.detail}"
    text += f", {n / store.n_groups:.1f} images each on average"
    if words.kind == "unknown":
        return f"{text}; what makes a group was not recorded."
    return f"{text}: intervals draw whole groups, so they rest on the number of groups."


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
    corrected = False
    for s in sorted(others, key=lambda s: -s.value):
        pairing = _pairing(results, s.feature)
        ends = f"{points(pairing.low)} to {points(pairing.high)}"
        text = f"{_the(s)} ({style.format_value('accuracy', s.value)}"
        if pairing.relation:
            text += f"; {points(pairing.difference)} points, {ends}"
            if p := p_text(pairing.p):
                corrected = True
                text += f", {p}"
        found.setdefault(pairing.relation, []).append(f"{text})")
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
    if found.keys() - {""}:
        text += " (Paired differences on the same images, with 95 % intervals" + (
            " and p-values corrected for all layers.)" if corrected else ".)"
        )
    if "below" in found:
        names = listed([name.partition(" (")[0] for name in found["below"]])
        text += (
            f" A linear probe reads the classes worse at this layer and position than from {names}."
        )
    elif "open" in found:
        text += " So nothing shows that the decoder adds to what was there before it."
    elif "above" in found:
        text += " The layer was picked on these images, which favours it."
    return text


@dataclass(frozen=True)
class _Pairing:
    """The best layer minus a baseline; ``p`` is corrected, NaN where it was not tested."""

    difference: float
    low: float
    high: float
    p: float
    relation: str


def _pairing(results: Results, name: str) -> _Pairing:
    for c in results.family(f"layers_vs_{name}"):
        if c.layer == results.best_layer:
            return _Pairing(c.difference, c.ci_low, c.ci_high, c.p_corrected, c.relation)
    entry = _paired(results, name)
    return _Pairing(entry.difference, *entry.ci, math.nan, _relation(*entry.ci))


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
    nested = results.summary.nested
    if nested is None:
        return (
            "The layer was chosen on the data that scores it, so its accuracy is somewhat "
            "flattered."
        )
    text = (
        "With the layer chosen inside each training part, so that nothing that scores has chosen, "
        f"the accuracy is {style.format_value('accuracy', nested.accuracy)}"
    )
    if interval := interval_text(*nested.ci):
        text += f" ({interval})"
    if chosen := sorted(set(nested.layers_chosen)):
        text += f"; the folds chose layer{'s' if len(chosen) > 1 else ''} "
        text += ", ".join(map(str, chosen))
    return f"{text}."


def _parted(results: Results) -> str:
    """What a random split does to the groups."""
    words = grouping(results.provenance)
    return "which ignores groups" if words.kind == "none" else f"which may part {words.one}"


def _leakage(results: Results) -> str:
    pairs = leakage_pairs(results)
    layers = [p for p in pairs if p[0].layer is not None]
    if not layers:
        return ""
    main, other = layers[0]
    points, interval = 100 * (other.value - main.value), ""
    leakage = results.summary.leakage
    if leakage is not None and leakage.layer == main.layer:
        # On the samples that both splits score, where the results give it.
        points = 100 * leakage.difference if math.isfinite(leakage.difference) else points
        low, high = leakage.ci
        if math.isfinite(low) and math.isfinite(high):
            interval = f", 95 % interval {100 * low:.1f} to {100 * high:.1f}".replace("-", "−")
            if low <= 0 <= high:
                interval += ", so they cannot be told apart"
    if abs(points) < 0.05:
        return (
            "A random split gives the same accuracy at this layer: leakage is not seen with these "
            "groups, which does not exclude it."
        )
    text = (
        f"A random split, {_parted(results)}, gives "
        f"{style.format_value('accuracy', other.value)} at this layer: "
        f"{abs(points):.1f} points {'more' if points > 0 else 'less'} than "
        f"{style.split_label(results.split)} on the same images{interval}"
    )
    pixels = next((p for p in pairs if p[0].feature == "pixels"), None)
    if pixels:
        text += (
            f" (raw pixels: {style.format_value('accuracy', pixels[0].value)} against "
            f"{style.format_value('accuracy', pixels[1].value)})"
        )
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
