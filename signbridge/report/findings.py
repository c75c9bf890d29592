"""What a results folder says, in plain sentences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from signbridge.report import style
from signbridge.report.leakage import leakage_pairs
from signbridge.report.results import SITE, UNTRAINED, Results, Score

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Findings", "describe_data", "find", "interval_text"]


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
            _against_baseline(results),
            _nested(results),
            _leakage(results),
            _default_tolerance(results),
        )
        if sentence
    ]
    return Findings(_headline(results), tuple(details), _warnings(results))


def interval_text(low: float, high: float, metric: str = "accuracy") -> str:
    """An interval as text, empty where there is none."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    first = style.format_value(metric, low).removesuffix(style.PER_CENT)
    return f"{first} to {style.format_value(metric, high)}"


def describe_data(results: Results) -> str:
    """How many images and how many of them are independent."""
    store = results.store
    n = _count(store.get("n_samples")) or len(results.predictions.sample_id)
    groups = _count(store.get("n_groups"))
    n_classes = len(results.class_names)
    text = f"{n:,} images of {n_classes:,} classes"
    if groups is None:
        return f"{text}; how many of them are independent was not determined."
    if groups >= n:
        return f"{text}, each counted as an independent photograph."
    return (
        f"{text}, which are {groups:,} independent photographs: the others are near-duplicates "
        f"of these, or of the same signer, {n / groups:.1f} images a photograph on average."
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _headline(results: Results) -> str:
    n_classes = len(results.class_names)
    best = results.score(SITE, results.best_layer, "accuracy")
    value = best.value if best else _number(results.summary["best_layer"].get("accuracy"))
    low, high = (best.ci_low, best.ci_high) if best else (math.nan, math.nan)
    text = (
        f"A linear probe on decoder layer {results.best_layer} reads the {n_classes} classes with "
        f"{style.format_value('accuracy', value)} held-out accuracy"
    )
    if interval := interval_text(low, high):
        text += f" (95 % interval {interval})"
    chance = _chance(results)
    if math.isfinite(chance):
        text += f", where chance is {style.format_value('accuracy', chance)}"
        if math.isfinite(low) and low <= chance:
            text += ", so nothing shows that this layer holds the classes at all"
    return f"{text}."


def _chance(results: Results) -> float:
    values = [
        s.value for s in results.baselines("accuracy", results.split) if s.feature in UNTRAINED
    ]
    values += [_number(results.summary.get(name)) for name in UNTRAINED]
    return max((v for v in values if math.isfinite(v)), default=math.nan)


def _against_baseline(results: Results) -> str:
    best = results.score(SITE, results.best_layer, "accuracy")
    others = [s for s in results.baselines("accuracy", results.split) if s.feature not in UNTRAINED]
    if best is None or not others:
        return ""
    top = max(others, key=lambda s: s.value)
    name = _the(top)
    value = style.format_value("accuracy", top.value)
    if not math.isfinite(best.ci_low):
        relation = f"{name} reaches {value}."
    elif best.ci_low > top.value:
        relation = (
            f"Layer {results.best_layer} is above the best baseline, {name} ({value}), by more "
            "than its interval."
        )
    elif best.ci_high < top.value:
        relation = (
            f"The best baseline, {name}, reaches {value}, more than any decoder layer: "
            "on the way through the decoder the classes become harder to read."
        )
    else:
        relation = (
            f"The best baseline, {name}, reaches {value}, which lies inside that interval: the "
            "decoder is not shown to add to what was there before it."
        )
    return relation[0].upper() + relation[1:]


def _the(s: Score) -> str:
    return {
        "pixels": "the raw pixels",
        "vision": "the vision tower",
        "projector": "the projector",
    }.get(s.feature, style.feature_label(s.feature))


def _nested(results: Results) -> str:
    nested = results.summary.get("nested")
    if not isinstance(nested, dict) or not math.isfinite(_number(nested.get("accuracy"))):
        return (
            "The layer was chosen on the data that scores it, so its accuracy is somewhat "
            "flattered."
        )
    text = (
        "With the layer chosen inside each training part, so that nothing that scores has chosen, "
        f"the accuracy is {style.format_value('accuracy', _number(nested['accuracy']))}"
    )
    if interval := interval_text(*_pair(nested.get("ci"))):
        text += f" ({interval})"
    layers = nested.get("layers_chosen")
    if isinstance(layers, list) and layers:
        chosen = sorted({int(k) for k in layers if isinstance(k, int)})
        text += f"; the folds chose layer{'s' if len(chosen) > 1 else ''} "
        text += ", ".join(map(str, chosen))
    return f"{text}."


def _pair(value: object) -> tuple[float, float]:
    if isinstance(value, list) and len(value) == 2:
        return _number(value[0]), _number(value[1])
    return math.nan, math.nan


def _leakage(results: Results) -> str:
    pairs = leakage_pairs(results)
    layers = [p for p in pairs if p[0].layer is not None]
    if not layers:
        return ""
    main, other = layers[0]
    points, interval = 100 * (other.value - main.value), ""
    leakage = results.summary.get("leakage")
    if isinstance(leakage, dict) and leakage.get("layer") == main.layer:
        # On the samples that both splits score, where the results give it.
        difference = _number(leakage.get("difference"))
        points = 100 * difference if math.isfinite(difference) else points
        low, high = _pair(leakage.get("ci"))
        if math.isfinite(low) and math.isfinite(high):
            interval = f", 95 % interval {100 * low:.1f} to {100 * high:.1f}".replace("-", "−")
            if low <= 0 <= high:
                interval += ", which shows no leakage"
    if abs(points) < 0.05:
        return "A random split gives the same accuracy: no leakage is seen."
    text = (
        f"A random split, which may put near-copies of a test image into the training part, gives "
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


def _default_tolerance(results: Results) -> str:
    default: Any = results.summary.get("sklearn_default")
    if not isinstance(default, dict):
        return ""
    accuracy = _number(default.get("accuracy"))
    if not math.isfinite(accuracy):
        return ""
    text = (
        "scikit-learn at its default tolerance, which stops before the optimum, would have said "
        f"{style.format_value('accuracy', accuracy)}"
    )
    optimum = _number(default.get("optimum_accuracy"))
    if math.isfinite(optimum):
        text += f" where the optimum says {style.format_value('accuracy', optimum)}"
    agreement = _number(default.get("agreement"))
    if math.isfinite(agreement):
        text += f", with the same answer for {style.format_value('accuracy', agreement)} of the"
        text += " images"
    return f"{text}."


def _warnings(results: Results) -> tuple[str, ...]:
    listed = results.summary.get("warnings")
    warnings = [str(w) for w in listed] if isinstance(listed, list) else []
    fits = results.summary.get("not_converged")
    # The results' own warnings count them.
    if isinstance(fits, list) and fits:
        shown = ", ".join(_fit(fit) for fit in fits[:8])
        more = f" and {len(fits) - 8} more" if len(fits) > 8 else ""
        warnings.append(f"These fits did not reach their tolerance: {shown}{more}.")
    unscored = int((results.predictions.fold < 0).sum())
    if unscored:
        warnings.append(
            f"{unscored:,} of {len(results.predictions.fold):,} images were never scored."
        )
    if results.split == "random":
        warnings.append(
            "The main split is random: near-duplicates of a test image may stand in the training "
            "part, and the scores then measure the recognition of photographs."
        )
    return tuple(warnings)


def _fit(fit: object) -> str:
    if isinstance(fit, dict):
        mapping: Mapping[str, Any] = fit
        return " ".join(f"{key} {value}" for key, value in mapping.items())
    return str(fit)
