"""What is seen first: known against said in one sentence, four numbers, three plain verdicts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from signbridge.report.figures import style
from signbridge.report.figures.axes import points
from signbridge.report.groups import groups_of
from signbridge.results.comparisons import ALPHA, p_text
from signbridge.results.features import RANDOM_WEIGHTS, RESID_POST, UNTRAINED
from signbridge.store.provenance import grouping

if TYPE_CHECKING:
    from signbridge.results.results import Results, Score

__all__ = ["Tile", "Verdict", "headline", "interval_text", "points_interval", "tiles", "verdicts"]

MARGIN = 0.05
"""A verdict is "no" where the 95 % interval leaves less than this."""


@dataclass(frozen=True)
class Tile:
    """One number: what it is, the number as text, and its interval or what belongs to it."""

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Verdict:
    """A plain answer: ``yes``, ``no`` or ``cannot be told: 5 signers``, and its numbers."""

    question: str
    answer: str
    numbers: str


def interval_text(low: float, high: float, metric: str = "accuracy") -> str:
    """An interval as text, empty where there is none."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    first = style.format_value(metric, low).removesuffix(style.PER_CENT)
    return f"{first} to {style.format_value(metric, high)}"


def points_interval(low: float, high: float) -> str:
    """An interval of a difference in points as text, empty where there is none."""
    known = math.isfinite(low) and math.isfinite(high)
    return f"{points(low)} to {points(high)}" if known else ""


def headline(results: Results) -> str:
    """Known against said in bits, and whether the decoder adds to what the image gives away."""
    layer, n_classes = results.best_layer, len(results.class_names)
    if doubt := _no_better_than_a_guess(results):
        return f"Nothing shows that layer {layer} reads the {n_classes:,} classes{doubt}."
    said = results.summary.said
    parts = [] if said is None else [p for p in (said.text, said.forced_choice) if p is not None]
    if said is not None and parts and math.isfinite(said.known.bits):
        verb = "the answer says" if said.text is not None else "the forced choice says"
        more = parts[0].known_minus_said
        amount = f"{_bits(more.bits)} bits{_bits_interval(*more.ci)}"
        relation = _relation(*more.ci)
        text = (
            f"Layer {said.layer} knows {_bits(said.known.bits)} of the {said.class_entropy:.1f} "
            f"bits that tell the class, and {verb} {_bits(parts[0].bits)}: "
        ) + {
            "above": f"{amount} are known and not said",
            "below": f"more is said than a linear probe finds there, by {amount}",
            "open": f"the difference of {amount} may be chance",
            "": f"{groups_of(results).permit_nothing} no test of the difference",
        }[relation]
    else:
        best = _best(results)
        value = results.summary.best_layer.accuracy if best is None else best.value
        text = (
            f"A linear probe on layer {layer} reads {style.format_value('accuracy', value)} of the "
            f"images right, of {n_classes:,} classes"
        )
    adds = _adds(results)
    if adds is None:
        return f"{text}."
    clause = {
        "yes": f", and the {results.stack} adds to what the image gives away",
        "no": f", but the {results.stack} does not add to what the image gives away",
    }.get(
        adds.answer,
        f"; whether the {results.stack} adds to what the image gives away cannot be told",
    )
    return f"{text}{clause}."


def tiles(results: Results) -> list[Tile]:
    """At most four shares of images that are read right, each by something else."""
    found: list[Tile] = []
    best = _best(results)
    if best is not None:
        chance = _guess(results)
        parts = [interval_text(best.ci_low, best.ci_high)]
        if math.isfinite(chance):
            parts.append(f"a guess: {style.format_value('accuracy', chance)}")
        found.append(
            Tile(
                f"right by a probe of layer {results.best_layer}",
                style.format_value("accuracy", best.value),
                "; ".join(filter(None, parts)),
            )
        )
    rivals = results.trained_baselines()
    if rivals:
        s = max(rivals, key=lambda s: s.value)
        found.append(
            Tile(
                f"right by a probe of {_the(s)}, the strongest baseline",
                style.format_value("accuracy", s.value),
                interval_text(s.ci_low, s.ci_high),
            )
        )
    said = results.summary.said
    choice = None if said is None or said.forced_choice is None else (
        said.forced_choice.zero_shot.get("accuracy")
    )  # fmt: skip
    if choice is not None and math.isfinite(choice.value):
        value = style.format_value("accuracy", choice.value)
        found.append(Tile("right by the model’s forced choice", value, interval_text(*choice.ci)))
    if said is not None and said.text is not None and math.isfinite(said.text.names_class):
        many = said.text.distinct_answers
        found.append(
            Tile(
                "whose class the model’s answer names",
                style.format_value("accuracy", said.text.names_class),
                "" if many is None else f"{many:,} different answers",
            )
        )
    return found


def verdicts(results: Results) -> list[Verdict]:
    """Whether the decoder adds to the image, whether splits leak, whether probes memorise."""
    return [v for v in (_adds(results), _leaks(results), _memorises(results)) if v is not None]


def _best(results: Results) -> Score | None:
    return results.score(RESID_POST, results.best_layer, "accuracy")


def _guess(results: Results) -> float:
    values = [
        s.value for s in results.baselines("accuracy", results.split) if s.feature in UNTRAINED
    ]
    values += [results.summary.chance, results.summary.majority]
    return max((v for v in values if math.isfinite(v)), default=math.nan)


def _no_better_than_a_guess(results: Results) -> str:
    """The numbers where the interval holds chance; empty where it does not.

    Permuted labels may still say that these images are read better. The paired difference to the
    largest class counts too, but that of a few groups would come from its formula.
    """
    best, chance, found = _best(results), _guess(results), groups_of(results)
    if best is None or not math.isfinite(chance) or math.isnan(best.ci_low):
        return ""
    largest = results.summary.against_baselines.get("majority")
    if best.ci_low > chance and (found.few or largest is None or not largest.ci[0] <= 0):
        return ""
    test = results.summary.permutation_test
    text = (
        f" better than a guess: {style.format_value('accuracy', best.value)} right "
        f"({interval_text(best.ci_low, best.ci_high)}), a guess "
        f"{style.format_value('accuracy', chance)}"
    )
    if test is not None and found.few and test.p < ALPHA:
        text += (
            f"; for these {found.words} permuted labels score less ({p_text(test.p)}), but they "
            "are too few to tell of others"
        )
    return text


def _bits(value: float) -> str:
    return f"{round(value, 1) + 0.0:.1f}".replace("-", "−")


def _bits_interval(low: float, high: float) -> str:
    known = math.isfinite(low) and math.isfinite(high)
    return f" ({_bits(low)} to {_bits(high)})" if known else ""


def _relation(low: float, high: float) -> str:
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return "above" if low > 0 else "below" if high < 0 else "open"


def _answer(results: Results, low: float, high: float) -> str:
    if low > 0:
        return "yes"
    return "no" if high < MARGIN else f"cannot be told: {groups_of(results).words}"


def _adds(results: Results) -> Verdict | None:
    """The best layer against what the image gives away without it: each baseline, paired."""
    question = f"Does the {results.stack} add to the image?"
    rivals = [s for s in results.trained_baselines() if s.feature != RANDOM_WEIGHTS]
    if not rivals:
        return None
    unknown = f"cannot be told: {groups_of(results).words}"
    found = {s.feature: _difference(results, s.feature) for s in rivals}
    tested = {name: one for name, one in found.items() if one[0]}
    name, (_, value, low, high) = min((tested or found).items(), key=lambda item: item[1][1])
    numbers = f"{points(value)} points over {_the_feature(name)}"
    if interval := points_interval(low, high):
        numbers += f" ({interval})"
    if len(tested) < len(found):
        return Verdict(question, unknown, numbers if math.isfinite(value) else "not compared")
    relations = [relation for relation, *_ in found.values()]
    if all(relation == "above" for relation in relations):
        return Verdict(question, "yes", numbers)
    return Verdict(question, "no" if "below" in relations or high < MARGIN else unknown, numbers)


def _difference(results: Results, name: str) -> tuple[str, float, float, float]:
    """Relation, difference and interval of the best layer's accuracy minus a baseline's."""
    for c in results.family(f"layers_vs_{name}"):
        if c.layer == results.best_layer:
            return c.relation, c.difference, c.ci_low, c.ci_high
    entry = results.summary.against_baselines.get(name)
    if entry is None:
        return "", math.nan, math.nan, math.nan
    return _relation(*entry.ci), entry.difference, *entry.ci


def _leaks(results: Results) -> Verdict:
    words, leakage = grouping(results.provenance), results.summary.leakage
    parted = "near-duplicates" if words.kind in ("none", "near_duplicates") else words.many
    question = f"Does a random split score more, by parting {parted.split(' of ')[0]} (leakage)?"
    if leakage is None:
        return Verdict(question, "not measured", "")
    value = leakage.difference
    if not math.isfinite(value):
        value = leakage.random - leakage.grouped
    numbers = f"{points(value)} points" if math.isfinite(value) else ""
    if interval := points_interval(*leakage.ci):
        numbers += f" ({interval})"
    return Verdict(question, _answer(results, *leakage.ci), numbers)


def _memorises(results: Results) -> Verdict:
    question = "Do probes memorise what they were trained on?"
    found = results.summary.memorisation
    few = groups_of(results)
    if found is None or few.few:  # a probe of random labels of a few groups tells the groups apart
        return Verdict(question, f"cannot be told: {few.words}" if few.few else "not measured", "")
    numbers = f"{style.format_value('accuracy', found.control_accuracy)} right on random labels"
    if interval := interval_text(*found.ci):
        numbers += f" ({interval})"
    if not math.isfinite(found.majority):
        return Verdict(question, f"cannot be told: {few.words}", numbers)
    numbers += f", a guess {style.format_value('accuracy', found.majority)}"
    low, high = (end - found.majority for end in found.ci)
    return Verdict(question, _answer(results, low, high), numbers)


def _the(s: Score) -> str:
    return _the_feature(s.feature) + (f" {s.layer}" if s.layer is not None else "")


def _the_feature(name: str) -> str:
    return {
        "pixels": "the raw pixels",
        "vision": "the vision tower",
        "projector": "the projector",
        RANDOM_WEIGHTS: "random weights’ layer",
    }.get(name, style.feature_label(name))
