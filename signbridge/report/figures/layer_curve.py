"""Scores by decoder layer, with intervals, the other splits and every baseline."""

from __future__ import annotations

import math
from typing import Any

from signbridge.report.figures import style
from signbridge.report.figures.curve_drawing import Line, curve_plot
from signbridge.report.figures.plot import Plot
from signbridge.report.groups import few_accuracies, few_names
from signbridge.results.features import (
    RANDOM_WEIGHTS,
    RESID_POST,
    SAID,
    UNTRAINED,
    ZERO_SHOT,
)
from signbridge.results.format import TASK
from signbridge.results.results import Results, Score
from signbridge.statistics.metrics import measure
from signbridge.store.provenance import grouping

__all__ = [
    "BASELINE_STYLES",
    "known_and_said",
    "last_part",
    "layer_curve",
    "other_metric",
    "subtitle",
]

BASELINE_STYLES: dict[str, tuple[str, Any]] = {
    "pixels": (style.COLOURS["green"], (0, (7, 2))),
    "vision": (style.COLOURS["purple"], (0, (4, 1.5, 1, 1.5))),
    "projector": (style.COLOURS["orange"], (0, (3, 1.5))),
    "text": (style.COLOURS["vermillion"], "-"),
    "forced_choice": (style.COLOURS["vermillion"], (0, (5, 2))),
    "zero_shot": (style.COLOURS["vermillion"], (0, (1, 2))),
    "chance": (style.COLOURS["grey"], (0, (1, 1.6))),
    "majority": (style.COLOURS["grey"], (0, (1, 3))),
}
_RANDOM_WEIGHTS_STYLE: tuple[str, Any] = ("#3d4247", (0, (3, 1, 1, 1)))
_FURTHER_CURVES: tuple[tuple[str, Any], ...] = (
    (style.COLOURS["sky"], (0, (5, 2))),
    (style.COLOURS["orange"], (0, (2, 1))),
    (style.COLOURS["grey"], (0, (6, 1.5, 1, 1.5))),
    (style.COLOURS["purple"], (0, (1, 1))),
)
_TITLES = {
    "usable_information": "The same in bits",
    "description_length": "Description length",
}
_OTHER = (style.COLOURS["sky"], (0, (5, 1, 1, 1, 1, 1)))


def layer_curve(results: Results, metric: str = "accuracy") -> Plot:
    """Draw one metric over the decoder layers.

    The main split is a solid line with its 95 % interval; other splits are dashed lines; baselines
    are horizontal lines with their intervals as bars at the right.

    Args:
        results: A results folder.
        metric: A metric of ``scores.csv``.

    Returns:
        The figure. Columns of its data: feature, layer, split, metric, value, ci_low, ci_high.
    """
    curves = _curves(results, metric)
    baselines = _baselines(results, metric)
    groups = _groups(results) if metric == "accuracy" else []
    peak = _peak(results, metric, curves)
    label = measure(metric).label
    title = f"{label[0].upper()}{label[1:]} by {results.stack} layer"
    found = results.summary.peak if metric == "accuracy" else None
    alt = title
    if peak is not None:
        alt += f": highest at layer {peak.layer} with {style.format_value(metric, peak.value)}"
        alt += "".join(
            f"; {line.label} {style.format_value(metric, line.end)}" for line in baselines
        )
    return curve_plot(
        "layer_curve" if metric == "accuracy" else metric,
        curves,
        baselines,
        metric,
        heading=f"Held-out {label} by {results.stack} layer",
        subtitle=subtitle(results),
        peak=peak,
        axis=f"{results.stack} layer (0 = first)"
        if len({line.scores[0].feature for line in curves} - {RANDOM_WEIGHTS}) == 1
        else "layer (0 = first)",
        bracket=(found.low, found.high) if found else None,
        groups=groups,
        title=_title(results, metric, title),
        caption=_caption(results.stack, metric, curves, baselines) + _group_words(results, groups),
        alt=f"{alt}.",
        height=(4.7, 5.0),
        columns=("feature", "layer", "split", "metric", "value", "ci_low", "ci_high"),
    )


def known_and_said(results: Results) -> Plot | None:
    """The usable information, where the model's answers were scored with it."""
    return layer_curve(results, "usable_information") if results.summary.said else None


def other_metric(results: Results, metric: str) -> Plot | None:
    """Another metric over the layers, where it was measured and is not drawn already."""
    there = metric == "usable_information" and results.summary.said
    if there or not results.curve(RESID_POST, metric, results.split):
        return None
    return layer_curve(results, metric)


def _title(results: Results, metric: str, otherwise: str) -> str:
    if metric == "usable_information" and results.summary.said:
        return "Known and said, in bits"
    return _TITLES.get(metric, otherwise)


def _curves(results: Results, metric: str) -> list[Line]:
    lines = []
    names = dict.fromkeys(s.feature for s in results.scores if s.layer is not None)
    extra = iter(_FURTHER_CURVES * 8)
    for feature in sorted(names, key=lambda f: f != RESID_POST):
        for split in results.splits:
            main = feature == RESID_POST and split == results.split
            scores = tuple(results.curve(feature, metric, split))
            # Another split is worth a line for the decoder alone.
            if not scores or (feature != RESID_POST and split != results.split):
                continue
            if feature == RANDOM_WEIGHTS:
                label, drawn = style.feature_label(feature), _RANDOM_WEIGHTS_STYLE
            else:
                label = "knows: layers" if main else style.split_label(split)
                if feature != RESID_POST:
                    label = f"{style.feature_label(feature)}, {label}"
                drawn = (style.COLOURS["blue"], "-") if main else next(extra)
            lines.append(Line(label, *drawn, scores, main))
    return lines


def _baselines(results: Results, metric: str) -> list[Line]:
    lines: list[Line] = []
    for s in results.baselines(metric, results.split):
        colour, dashes = BASELINE_STYLES.get(s.feature, _OTHER)
        lines.append(Line(style.feature_label(s.feature), colour, dashes, (s,)))
    names = {line.scores[0].feature for line in lines}
    value = results.summary.chance
    if metric == "accuracy" and "chance" not in names and math.isfinite(value):
        s = Score("chance", None, "", results.split, TASK, metric, value)
        lines.append(Line("chance", *BASELINE_STYLES["chance"], (s,)))
    # In balanced data chance and the largest class are the same line: one label then.
    by_name = {line.scores[0].feature: line for line in lines}
    chance_line, majority = by_name.get("chance"), by_name.get("majority")
    if chance_line and majority and abs(chance_line.end - majority.end) < 0.004:
        lines.remove(majority)
    return lines


def _groups(results: Results) -> list[Line]:
    """What each of a few groups scores: over the layers, and at the baselines."""
    names = few_names(results)
    found: dict[str, list[Score]] = {name: [] for name in names}
    features = [f"{RESID_POST}/{layer}" for layer in results.layers]
    features += [s.feature for s in results.trained_baselines() if s.layer is None]
    for feature in features:
        kind, _, layer = feature.partition("/")
        for name, value in few_accuracies(results, feature).items():
            at = int(layer) if layer else None
            found[name].append(Score(kind, at, "", results.split, TASK, "accuracy", value))
    lines = []
    for name, scores in found.items():
        of_layers = [s for s in scores if s.layer is not None]
        for part in (of_layers, [s for s in scores if s.layer is None]):
            if part:
                lines.append(Line(style.printable(name), style.MUTED, "-", tuple(part)))
    return lines


def _group_words(results: Results, groups: list[Line]) -> str:
    if not groups:
        return ""
    one = grouping(results.provenance).one.partition(" ")[2]
    return f" Thin lines and open dots: each {one}."


def _peak(results: Results, metric: str, curves: list[Line]) -> Score | None:
    if metric == "accuracy":
        return results.score(RESID_POST, results.best_layer, metric)
    main = next((line for line in curves if line.main), None)
    if main is None:
        return None
    sign = 1 if measure(metric).higher_is_better else -1
    return max(main.scores, key=lambda s: sign * s.value)


def _caption(stack: str, metric: str, curves: list[Line], baselines: list[Line]) -> str:
    """The legend below the first figure; what a metric means below the others."""
    if metric == "usable_information":
        return (
            "Bits of the class that a linear probe can use (class entropy minus held-out "
            "cross-entropy, Xu et al. 2020); below zero it is confident and wrong."
        )
    if metric == "description_length":
        return (
            "Bits an image to send the labels one block after another, each with the "
            "probabilities of a probe of the blocks before it (Voita & Titov 2020): less is better."
        )
    text = f"Linear probes on the output of each {stack} layer"
    main = next((line for line in curves if line.main), None)
    if main and any(math.isfinite(s.ci_low) for s in main.scores):
        text += ", with its 95 % interval as a band"
    if any(line.scores[0].feature not in UNTRAINED for line in baselines):
        text += f"; flat lines: probes that never saw the {stack}{_said_words(baselines)}"
    return f"{text}."


def _said_words(baselines: list[Line]) -> str:
    features = {line.scores[0].feature for line in baselines}
    return " (red: what the model says)" if features & {*SAID, ZERO_SHOT} else ""


def subtitle(results: Results, split: str | None = "") -> str:
    """Model, data and split in a few words.

    Args:
        results: A results folder.
        split: The split to name: the main one if empty, none at all if None.

    Returns:
        Parts joined by a middle dot.
    """
    provenance = results.provenance
    model = last_part(provenance.get("model") or results.store.name or "model")
    images = last_part(provenance.get("image_source") or "")
    n, groups = len(results.predictions.sample_id), results.store.n_groups
    parts = [
        f"{model} · {images}" if images else model,
        f"{len(results.class_names)} classes",
        f"{n:,} images",
    ]
    if groups is not None and groups < n:
        parts[-1] += f" in {groups:,} groups"
    if split is not None:
        parts.append(style.split_label(split or results.split))
    return " · ".join(parts)


def last_part(place: object) -> str:
    """The last part of a path or hub id: what tells it from others in a short line."""
    text = str(place).replace("\\", "/").rstrip("/").rpartition("/")[2]
    return style.short(text, 40) if text else ""
