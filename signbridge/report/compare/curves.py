"""The layer curves of all runs in one figure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from signbridge.report.compare.run_style import LEGEND_ROW, draw_legend, run_style
from signbridge.report.compare.runs import (
    DEPTH_LABEL,
    Run,
    depth_axis,
    layer_words,
    legend_texts,
    relative_depth,
)
from signbridge.report.figures import style
from signbridge.report.figures.axes import layer_axis, value_axis
from signbridge.report.figures.chart import Chart
from signbridge.report.figures.curve_drawing import Line, curve_chart
from signbridge.report.figures.plot import Canvas, Plot, build
from signbridge.results.features import RESID_POST
from signbridge.results.results import Score
from signbridge.statistics.metrics import measure

__all__ = ["curves_figure"]

_AXIS = "decoder layer (0 = first)"


def _places(run: Run, scores: Sequence[Score], depth: bool) -> list[float]:
    layers = [s.layer or 0 for s in scores]
    return [relative_depth(run, layer) if depth else float(layer) for layer in layers]


def curves_figure(runs: Sequence[Run], metric: str = "accuracy") -> Plot:
    """Draw the layer curves of all runs.

    Args:
        runs: The runs.
        metric: The metric.

    Returns:
        The figure. Columns of its data: run, layer, relative_depth, split, metric, value, ci_low,
        ci_high.
    """
    depth = depth_axis(runs)
    curves = [r.results.curve(RESID_POST, metric, r.results.split) for r in runs]
    label = measure(metric).label

    rows: list[tuple[object, ...]] = []
    for run, scores in zip(runs, curves, strict=True):
        for s, x in zip(scores, _places(run, scores, True), strict=True):
            rows.append((run.name, s.layer, x, s.split, s.metric, s.value, s.ci_low, s.ci_high))
    legend = LEGEND_ROW * len(runs)
    return build(
        "curves",
        lambda canvas: _draw(canvas, runs, curves, metric, depth),
        title=f"{label[0].upper()}{label[1:]} of all runs",
        caption=(
            "Linear probes on the output of each decoder layer of each run, with 95 % intervals "
            "as bands."
            + (
                " The models have different numbers of layers, so the layers are placed by their "
                "relative depth (0: first, 1: last)."
                if depth
                else ""
            )
        ),
        alt="; ".join(
            f"{run.name}: highest at {layer_words(run, run.results.best_layer, runs)}"
            for run in runs
        )
        + ".",
        height=(4.4 + legend, 3.6 + legend),
        columns=("run", "layer", "relative_depth", "split", "metric", "value", "ci_low", "ci_high"),
        rows=rows,
        chart=_chart(runs, curves, metric, depth),
    )


def _draw(
    canvas: Canvas,
    runs: Sequence[Run],
    curves: Sequence[Sequence[Score]],
    metric: str,
    depth: bool,
) -> None:
    label = measure(metric).label
    canvas.heading(f"Held-out {label} by decoder layer")
    left, bottom = 0.72, 0.62 + LEGEND_ROW * len(runs)
    ax = canvas.axes_between(left, 0.15, bottom)
    low_end, high_end = math.inf, -math.inf
    for number, (run, scores) in enumerate(zip(runs, curves, strict=True)):
        colour, marker, dashes = run_style(number)
        x = np.array(_places(run, scores, depth))
        y = np.array([s.value for s in scores])
        low, high = np.array([s.ci_low for s in scores]), np.array([s.ci_high for s in scores])
        if np.isfinite(low).all() and len(x) > 1:
            ax.fill_between(x, low, high, color=colour, alpha=0.11, linewidth=0, zorder=1)
        ax.plot(
            x, y, color=colour, linestyle=dashes, linewidth=2.0, marker=marker,
            markersize=4.2 if len(x) < 17 else 0, zorder=3,
        )  # fmt: skip
        best = [i for i, s in enumerate(scores) if s.layer == run.results.best_layer]
        for i in best:
            ax.plot(
                [x[i]], [y[i]], "o", markersize=9.5, markerfacecolor="none", markeredgecolor=colour,
                markeredgewidth=1.5, zorder=4,
            )  # fmt: skip
        known = np.concatenate([y, low[np.isfinite(low)], high[np.isfinite(high)]])
        low_end, high_end = min(low_end, known.min()), max(high_end, known.max())
    if measure(metric).is_share:
        ax.set_ylim(0, min(1.04, high_end * 1.12 + 0.01))
    else:
        room = 0.08 * (high_end - min(low_end, 0)) or 0.1
        ax.set_ylim(min(0.0, low_end) - room, high_end + room)
        ax.axhline(0, color=style.MUTED, linewidth=0.8)
    value_axis(ax.yaxis, metric, 6)
    ax.grid(axis="y")
    layers = sorted({s.layer for scores in curves for s in scores if s.layer is not None})
    if depth:
        ax.set_xlim(-0.03, 1.03)
        ax.set_xlabel(DEPTH_LABEL, loc="left")
    else:
        layer_axis(ax, layers, 9 if canvas.narrow else 17, _AXIS)
    draw_legend(canvas, runs, left)


def _chart(
    runs: Sequence[Run], curves: Sequence[Sequence[Score]], metric: str, depth: bool
) -> Chart:
    lines = []
    for number, (words, scores) in enumerate(zip(legend_texts(runs), curves, strict=True)):
        colour, _, dashes = run_style(number)
        lines.append(Line(style.short(words, 60), colour, dashes, tuple(scores), main=True))
    places = [_places(run, scores, True) for run, scores in zip(runs, curves, strict=True)]
    axis = DEPTH_LABEL if depth else _AXIS
    return curve_chart(metric, lines, [], axis, places=places if depth else None)
