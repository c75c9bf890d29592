"""The best layers and baselines of all runs in one column."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from signbridge.report.compare.run_style import LEGEND_ROW, draw_legend, run_style
from signbridge.report.compare.runs import Run
from signbridge.report.figures import style
from signbridge.report.figures.axes import per_cent_axis
from signbridge.report.figures.plot import Canvas, Plot, build
from signbridge.results.features import RANDOM_WEIGHTS, RESID_POST
from signbridge.results.format import TASK
from signbridge.results.results import Score
from signbridge.statistics.metrics import measure

__all__ = ["side_by_side"]


def side_by_side(runs: Sequence[Run], metric: str = "accuracy") -> Plot:
    """Draw every run's best layer, nested accuracy and baselines in one column.

    Args:
        runs: The runs.
        metric: The metric.

    Returns:
        The figure. Columns of its data: run, feature, layer, metric, value, ci_low, ci_high.
    """
    groups = _rows_of(runs, metric)
    height = 0.55 + sum(0.17 * len(found) + 0.16 for found in groups.values()) + 0.5
    height += LEGEND_ROW * len(runs)
    return build(
        "side_by_side",
        lambda canvas: _draw(canvas, runs, groups, metric),
        title="Best layers and baselines",
        caption=(
            "Each run's best layer (chosen on the images that score it), the accuracy with the "
            "layer chosen inside training where it was measured, and the baselines, with 95 % "
            "intervals. Intervals that overlap may still belong to a clear paired difference."
        ),
        alt=f"{', '.join(groups)} of {len(runs)} runs.",
        height=height,
        columns=("run", "feature", "layer", "metric", "value", "ci_low", "ci_high"),
        rows=(
            (runs[number].name, s.feature, s.layer, metric, s.value, s.ci_low, s.ci_high)
            for found in groups.values()
            for number, s in found
        ),
    )


def _rows_of(runs: Sequence[Run], metric: str) -> dict[str, list[tuple[int, Score]]]:
    """Scores by what they are, each with the number of its run."""
    groups: dict[str, list[tuple[int, Score]]] = {}
    for number, run in enumerate(runs):
        r = run.results
        best = r.score(RESID_POST, r.best_layer, metric)
        if best is not None and math.isfinite(best.value):
            groups.setdefault("best layer", []).append((number, best))
    for number, run in enumerate(runs):
        nested = run.results.summary.nested
        if metric == "accuracy" and nested is not None:
            what = ("nested", None, "", run.results.split, TASK, metric)
            s = Score(*what, nested.accuracy, *nested.ci)
            groups.setdefault("layer chosen in training", []).append((number, s))
    for number, run in enumerate(runs):
        r = run.results
        twin = r.score(RANDOM_WEIGHTS, r.best_layer, metric)
        for s in (*r.baselines(metric, r.split), *([twin] if twin else [])):
            if math.isfinite(s.value):
                groups.setdefault(style.feature_label(s.feature), []).append((number, s))
    return groups


def _draw(
    canvas: Canvas,
    runs: Sequence[Run],
    groups: Mapping[str, list[tuple[int, Score]]],
    metric: str,
) -> None:
    label = measure(metric).label
    canvas.heading(f"Held-out {label}: best layers and baselines")
    left = 0.25 + max(style.text_width(canvas.figure, name, 9.5) for name in groups)
    ax = canvas.axes_between(left, 0.6, 0.42 + LEGEND_ROW * len(runs))
    place, ticks, drawn = 0.0, [], []
    for found in groups.values():
        ticks.append(place + 0.17 * (len(found) - 1) / 2)
        for number, s in found:
            colour, marker, _ = run_style(number)
            if math.isfinite(s.ci_low) and math.isfinite(s.ci_high):
                ax.plot([s.ci_low, s.ci_high], [place, place], color=colour, linewidth=1.4)
            ax.plot([s.value], [place], marker, color=colour, markersize=5)
            shown = style.format_value(metric, s.value).removesuffix(style.PER_CENT)
            style.text(
                ax, 1.02, place, shown, transform=ax.get_yaxis_transform(), size=8, va="center"
            )
            drawn.append((place, number, s))
            place += 0.17
        place += 0.16
    ax.set_ylim(place - 0.16, -0.14)
    ax.set_yticks(ticks, list(groups))
    for tick in ax.get_yticklabels():
        tick.set_parse_math(False)
    ax.tick_params(axis="y", length=0, labelsize=9.5)
    ax.spines["left"].set_visible(False)
    if measure(metric).is_share:
        ax.set_xlim(0, None)
        per_cent_axis(ax.xaxis, bins=3 if canvas.narrow else 5)
    ax.grid(axis="x")
    draw_legend(canvas, runs, 0.1)
    for y, number, s in drawn:
        words = f"layer {s.layer}" if s.layer is not None else style.feature_label(s.feature)
        text = f"{runs[number].name}\n{words}: {style.format_score(metric, s)}"
        canvas.spot(ax, None, (y - 0.085, y + 0.085), text)
