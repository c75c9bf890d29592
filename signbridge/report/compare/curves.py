"""The layer curves of all runs in one figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from signbridge.report.compare.looks import LEGEND_ROW, draw_legend, looks, with_interval
from signbridge.report.compare.runs import Run, depth_axis
from signbridge.report.figures import style
from signbridge.report.figures.axes import layer_axis, layer_spots, per_cent_axis
from signbridge.report.figures.plot import Plot, Spot
from signbridge.results.results import SITE, Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["curves_figure"]


def _places(run: Run, scores: Sequence[Score], depth: bool) -> list[float]:
    top = max(1, run.results.n_layers - 1)
    return [(s.layer or 0) / top if depth else float(s.layer or 0) for s in scores]


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
    curves = [r.results.curve(SITE, metric, r.results.split) for r in runs]
    label = style.METRIC_LABELS.get(metric, metric)

    def draw(figure: Figure) -> list[Spot]:
        return _draw_curves(figure, runs, curves, metric, depth)

    rows: list[tuple[object, ...]] = []
    for run, scores in zip(runs, curves, strict=True):
        for s, x in zip(scores, _places(run, scores, True), strict=True):
            ends = ("" if math.isnan(v) else v for v in (s.ci_low, s.ci_high))
            rows.append((run.name, s.layer, x, s.split, s.metric, s.value, *ends))
    legend = LEGEND_ROW * len(runs)
    return Plot(
        name="curves",
        title=f"{label[0].upper()}{label[1:]} of all runs",
        caption=(
            "Linear probes on the output of each decoder layer of each run, with 95 % intervals "
            "as bands; ring: the highest layer."
            + (
                " The models have different numbers of layers, so the layers are placed by their "
                "relative depth (0: first, 1: last)."
                if depth
                else ""
            )
        ),
        alt="; ".join(f"{run.name}: highest at layer {run.results.best_layer}" for run in runs)
        + ".",
        wide=style.render(draw, 8.0, 4.4 + legend),
        narrow=style.render(draw, 4.2, 3.6 + legend),
        columns=("run", "layer", "relative_depth", "split", "metric", "value", "ci_low", "ci_high"),
        rows=tuple(rows),
    )


def _draw_curves(
    figure: Figure,
    runs: Sequence[Run],
    curves: Sequence[Sequence[Score]],
    metric: str,
    depth: bool,
) -> list[Spot]:
    import numpy as np

    width, height = figure.get_size_inches()
    label = style.METRIC_LABELS.get(metric, metric)
    top = style.heading(figure, f"Held-out {label} by decoder layer", "")
    left, bottom = 0.72, 0.62 + LEGEND_ROW * len(runs)
    ax: Any = figure.add_axes(
        (left / width, bottom / height, 1 - (left + 0.15) / width, 1 - (bottom + top) / height)
    )
    low_end, high_end = math.inf, -math.inf
    for number, (run, scores) in enumerate(zip(runs, curves, strict=True)):
        colour, marker, dashes = looks(number)
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
    if metric in style.SHARES:
        ax.set_ylim(0, min(1.04, high_end * 1.12 + 0.01))
        per_cent_axis(ax.yaxis, bins=6)
    else:
        room = 0.08 * (high_end - min(low_end, 0)) or 0.1
        ax.set_ylim(min(0.0, low_end) - room, high_end + room)
        ax.axhline(0, color=style.MUTED, linewidth=0.8)
    ax.grid(axis="y")
    layers = sorted({s.layer for scores in curves for s in scores if s.layer is not None})
    if depth:
        ax.set_xlim(-0.03, 1.03)
        ax.set_xlabel("relative depth of the decoder layer (0 = first, 1 = last)", loc="left")
        spots = _depth_spots(ax, runs, curves, metric)
    else:
        layer_axis(ax, layers, 9 if width < 6 else 17, "decoder layer (0 = first)")
        spots = layer_spots(ax, layers, partial(_layer_text, runs, curves, metric))
    draw_legend(figure, runs, left)
    return spots


def _layer_text(
    runs: Sequence[Run], curves: Sequence[Sequence[Score]], metric: str, layer: int
) -> str:
    lines = [f"layer {layer}"]
    for run, scores in zip(runs, curves, strict=True):
        lines += [f"{run.name}: {with_interval(s, metric)}" for s in scores if s.layer == layer]
    return "\n".join(lines)


def _depth_spots(
    ax: Any, runs: Sequence[Run], curves: Sequence[Sequence[Score]], metric: str
) -> list[Spot]:
    box, (x0, x1), (y0, y1) = ax.get_position(), ax.get_xlim(), ax.get_ylim()
    spots = []
    for run, scores in zip(runs, curves, strict=True):
        for s, x in zip(scores, _places(run, scores, True), strict=True):
            spots.append(
                Spot(
                    box.x0 + box.width * (x - x0) / (x1 - x0),
                    1 - box.y0 - box.height * (s.value - y0) / (y1 - y0),
                    0,
                    0,
                    f"{run.name}\nlayer {s.layer}: {with_interval(s, metric)}",
                )
            )
    return spots
