"""What a results folder says, in plain sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from signbridge.report.figures import style
from signbridge.report.figures.axes import points
from signbridge.report.figures.leakage import leakage_pairs
from signbridge.report.groups import few_accuracies, groups_of
from signbridge.report.text import evidence
from signbridge.report.text.key_figures import interval_text, points_interval
from signbridge.report.text.said import naming_sentence, said_sentence
from signbridge.results.comparisons import ALPHA, p_text
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
            _by_group(results),
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
    of = "of" if words.kind == "signers" else "in"
    text += f" {of} {store.n_groups:,} {words.many}{detail}, {n / store.n_groups:.3g} each"
    if words.kind == "unknown":
        return f"{text}; what makes a group was not recorded."
    found = groups_of(results)
    if found.too_few:
        return f"{text}: {found.permit_nothing} no interval and no test of a difference."
    if found.few:
        return (
            f"{text}: {'intervals' if found.flips else 'intervals and tests'} are Student's, with "
            f"{len(found.number) - 1} degrees of freedom at most, and take the scores of the "
            f"{found.words} as a normal sample."
        )
    return f"{text}: intervals rest on the number of groups."


def _headline(results: Results) -> str:
    n_classes = len(results.class_names)
    best = results.score(RESID_POST, results.best_layer, "accuracy")
    value = best.value if best else results.summary.best_layer.accuracy
    low, high = (best.ci_low, best.ci_high) if best else (math.nan, math.nan)
    text = (
        f"A linear probe on {results.stack} layer {results.best_layer} reads the "
        f"{n_classes} classes with {style.format_value('accuracy', value)} held-out accuracy"
    )
    found = groups_of(results)
    if interval := interval_text(low, high):
        text += f" (95 % interval {interval})"
    elif found.too_few:
        text += f" ({found.permit_nothing} no interval)"
    chance = _chance(results)
    if math.isfinite(chance):
        above = chance > results.summary.chance + 1e-9
        what = "the largest class alone gives" if above else "chance is"
        text += f", where {what} {style.format_value('accuracy', chance)}"
        if low <= chance or _no_better_than_the_largest_class(results):
            text += _not_shown(results)
    return f"{text}."


def _no_better_than_the_largest_class(results: Results) -> bool:
    """Whether the paired difference says so; that of a few groups would come from its formula."""
    return not groups_of(results).few and _paired(results, "majority").ci[0] <= 0


def _not_shown(results: Results) -> str:
    """That the interval holds chance; permuted labels may still say that these images do not."""
    found, test = groups_of(results), results.summary.permutation_test
    if test is not None and found.few and test.p < ALPHA:
        return (
            f"; for these {found.words} permuted labels score less ({p_text(test.p)}), but they "
            "are too few to tell of others"
        )
    return ", so nothing shows that it reads them better than chance"


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
    few = groups_of(results)
    if few.too_few and set(found) == {""}:
        return (
            f"In accuracy, layer {layer} is {_apart(results, others)}; {few.permit_nothing} no "
            "test of that."
        )
    text = f"In accuracy, layer {layer} " + "; it ".join(parts) + "."
    if "below" in found:
        names = listed([name.partition(" (")[0] for name in found["below"]])
        text += (
            f" A linear probe reads the classes worse at this layer and position than from {names}."
        )
    elif "open" in found:
        text += " So nothing shows that the decoder adds to what was there before it."
    return text


def _apart(results: Results, others: Sequence[Score]) -> str:
    """How far the best layer is from each baseline, untested."""
    own = results.score(RESID_POST, results.best_layer, "accuracy")
    value = own.value if own else results.summary.best_layer.accuracy
    parts = []
    for s in sorted(others, key=lambda s: -s.value):
        side = "above" if value >= s.value else "below"
        parts.append(f"{abs(100 * (value - s.value)):.1f} points {side} {_the(s)}")
    return listed(parts)


def _by_group(results: Results) -> str:
    """What each of a few groups scores at the best layer."""
    values = few_accuracies(results, results.best_feature)
    if not values:
        return ""
    names = sorted(values, key=lambda name: values[name])
    text = ", ".join(
        f"{style.printable(name)} {style.format_value('accuracy', values[name])}" for name in names
    )
    return f"Layer {results.best_layer} by {_one(results)}: {text}."


def _one(results: Results) -> str:
    return grouping(results.provenance).one.partition(" ")[2]


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
    elif relation == "below":
        text += f". That is no leakage, which cannot be below 0: {_why_below(results)}"
    return f"{text}."


def _why_below(results: Results) -> str:
    """What makes a random split score less than one that keeps groups whole."""
    p = results.predictions
    number = np.unique(p.group, return_inverse=True)[1]
    low, high = np.full(number.max() + 1, p.label.max()), np.zeros(number.max() + 1, np.int64)
    np.minimum.at(low, number, p.label)
    np.maximum.at(high, number, p.label)
    mixed = int((low != high)[number].sum())
    if not mixed:
        return "the splits differ in something else"
    words = grouping(results.provenance)
    what = f"{words.one} with images of several classes"
    text = f"{counted(mixed, 'image')} belong to {what}, whose other images teach another class"
    if words.kind == "near_duplicates":
        text += "; look for copies of an image under two classes"
    return text


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
