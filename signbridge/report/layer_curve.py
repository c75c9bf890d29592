"""Scores by decoder layer, with intervals, the other splits and every baseline."""

from __future__ import annotations

import math
from typing import Any

from signbridge.report import style
from signbridge.report.curve_drawing import Line, draw_curves
from signbridge.report.plot import Plot
from signbridge.report.results import SITE, UNTRAINED, Results, Score

__all__ = ["layer_curve"]

_LOOK: dict[str, tuple[str, Any]] = {
    "pixels": (style.COLOURS["green"], (0, (7, 2))),
    "vision": (style.COLOURS["purple"], (0, (4, 1.5, 1, 1.5))),
    "projector": (style.COLOURS["orange"], (0, (3, 1.5))),
    "chance": (style.COLOURS["grey"], (0, (1, 1.6))),
    "majority": (style.COLOURS["grey"], (0, (1, 3))),
}
_OTHER = (style.COLOURS["sky"], (0, (5, 1, 1, 1, 1, 1)))


def layer_curve(results: Results, metric: str = "accuracy", name: str = "layer_curve") -> Plot:
    """Draw one metric over the decoder layers.

    The main split is a solid line with its 95 % interval; other splits are dashed lines; baselines
    are horizontal lines with their intervals as bars at the right.

    Args:
        results: A results folder.
        metric: A metric of ``scores.csv``.
        name: File name of the figure without suffix.

    Returns:
        The figure. Columns of its data: feature, layer, split, metric, value, ci_low, ci_high.
    """
    curves = _curves(results, metric)
    baselines = _baselines(results, metric)
    peak = _peak(results, metric, curves)
    label = style.METRIC_LABELS.get(metric, metric.replace("_", " "))
    title = f"{label[0].upper()}{label[1:]} by decoder layer"

    def draw(narrow: bool) -> Any:
        return lambda figure: draw_curves(
            figure, _subtitle(results), metric, curves, baselines, peak, narrow
        )

    rows = tuple(
        (s.feature, "" if s.layer is None else s.layer, s.split, s.metric, *_numbers(s))
        for line in (*curves, *baselines)
        for s in line.scores
    )
    if peak is not None:
        alt = (
            f"{title}: highest at layer {peak.layer} with {style.format_value(metric, peak.value)}"
            + "".join(
                f"; {line.label} {style.format_value(metric, line.end)}" for line in baselines
            )
            + "."
        )
    else:
        alt = f"{title}."
    return Plot(
        name=name,
        title="The same in bits" if metric == "usable_information" else title,
        caption=_caption(results, metric, curves, baselines),
        alt=alt,
        wide=style.render(draw(False), 8.0, 4.7),
        narrow=style.render(draw(True), 4.2, 5.0),
        columns=("feature", "layer", "split", "metric", "value", "ci_low", "ci_high"),
        rows=rows,
    )


def _numbers(s: Score) -> tuple[object, object, object]:
    low, high = (("" if math.isnan(v) else v) for v in (s.ci_low, s.ci_high))
    return s.value, low, high


def _curves(results: Results, metric: str) -> list[Line]:
    lines = []
    names = dict.fromkeys(s.feature for s in results.scores if s.layer is not None)
    extra = iter(
        (
            (style.COLOURS["vermillion"], (0, (5, 2))),
            (style.COLOURS["sky"], (0, (2, 1))),
            (style.COLOURS["grey"], (0, (6, 1.5, 1, 1.5))),
            (style.COLOURS["purple"], (0, (1, 1))),
        )
        * 8
    )
    for feature in sorted(names, key=lambda f: f != SITE):
        for split in results.splits:
            scores = tuple(results.curve(feature, metric, split))
            if not scores:
                continue
            main = feature == SITE and split == results.split
            what = "decoder" if feature == SITE else style.feature_label(feature)
            colour, dashes = (style.COLOURS["blue"], "-") if main else next(extra)
            lines.append(Line(f"{what}, {style.split_label(split)}", colour, dashes, scores, main))
    return lines


def _baselines(results: Results, metric: str) -> list[Line]:
    lines: list[Line] = []
    for s in results.baselines(metric, results.split):
        colour, dashes = _LOOK.get(s.feature, _OTHER)
        lines.append(Line(style.feature_label(s.feature), colour, dashes, (s,)))
    names = {line.scores[0].feature for line in lines}
    given = results.summary.get("chance")
    if metric == "accuracy" and "chance" not in names and isinstance(given, int | float):
        value, nan = float(given), math.nan
        s = Score("chance", None, "", results.split, metric, value, nan, nan, None, None, None, "")
        lines.append(Line("chance", *_LOOK["chance"], (s,)))
    # In balanced data chance and the largest class are the same line: one label then.
    by_name = {line.scores[0].feature: line for line in lines}
    chance_line, majority = by_name.get("chance"), by_name.get("majority")
    if chance_line and majority and abs(chance_line.end - majority.end) < 0.004:
        lines.remove(majority)
    return lines


def _peak(results: Results, metric: str, curves: list[Line]) -> Score | None:
    if metric == "accuracy":
        return results.score(SITE, results.best_layer, metric)
    main = next((line for line in curves if line.main), None)
    if main is None:
        return None
    sign = -1 if metric in {"cross_entropy", "calibration_error"} else 1
    return max(main.scores, key=lambda s: sign * s.value)


def _caption(results: Results, metric: str, curves: list[Line], baselines: list[Line]) -> str:
    parts = ["Solid line: linear probes on the output of each decoder layer"]
    main = next((line for line in curves if line.main), None)
    if main and any(math.isfinite(s.ci_low) for s in main.scores):
        parts[0] += ", with its 95 % interval as a band"
    if len(curves) > 1:
        parts.append(
            "broken line: the same with "
            + " and ".join(line.label.split(", ")[-1] for line in curves if not line.main)
        )
    if any(line.scores[0].feature not in UNTRAINED for line in baselines):
        parts.append(
            "horizontal lines: probes that never saw the decoder, under the same split, "
            "with their intervals as bars at the right"
        )
    caption = "; ".join(parts) + "."
    if metric == "usable_information":
        caption += (
            " Bits of the class that a linear probe can use (class entropy minus held-out "
            "cross-entropy, Xu et al. 2020); below zero the probe is confident and wrong."
        )
    return caption


def _subtitle(results: Results) -> str:
    provenance = results.provenance
    model = _last_part(provenance.get("model") or results.store.get("name") or "model")
    images = _last_part(provenance.get("image_source") or "")
    n, groups = len(results.predictions.sample_id), results.store.get("n_groups")
    parts = [
        f"{model} · {images}" if images else model,
        f"{len(results.class_names)} classes",
        f"{n:,} images",
    ]
    if isinstance(groups, int) and groups < n:
        parts[-1] += f" in {groups:,} groups"
    return " · ".join((*parts, style.split_label(results.split)))


def _last_part(place: object) -> str:
    """The last part of a path or hub id: what tells it from others in a short line."""
    text = str(place).replace("\\", "/").rstrip("/").rpartition("/")[2]
    return style.short(text, 40) if text else ""
