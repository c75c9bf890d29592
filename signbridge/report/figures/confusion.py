"""The confusion matrix of the best layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from signbridge.report.classes import confusion_counts, slider_layers
from signbridge.report.figures import style
from signbridge.report.figures.chart import Chart, base
from signbridge.report.figures.plot import Canvas, Plot, build
from signbridge.results.features import RESID_POST

if TYPE_CHECKING:
    from signbridge.results.results import Results

__all__ = ["confusion"]

_NUMBERS_UP_TO = 26
_MOST_CELLS = 4000
_BLUES = ("#ffffff", "#cfe1f2", "#6baed6", "#2171b5", "#08306b")


def confusion(results: Results) -> Plot:
    """Draw the row-normalised confusion matrix of the best layer's held-out predictions.

    Args:
        results: A results folder.

    Returns:
        The figure. Columns of its data: true, predicted, count, share (of the true class).
    """
    counts = confusion_counts(results)
    totals = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    names = results.class_names

    n = len(names)
    right = int(np.trace(counts))
    return build(
        "confusion",
        lambda canvas: _draw(canvas, results.best_layer, counts, share, names),
        title="Mistakes",
        caption=(
            "Rows: true class; columns: the probe’s answer; darker: a larger share of the row"
            + (" (numbers: per cent)." if n <= _NUMBERS_UP_TO else ".")
        ),
        alt=f"Confusion matrix: {right} of {int(counts.sum())} images on the diagonal.",
        height=(min(8.3, 2.0 + 0.55 * max(n, 4)), min(4.7, 1.8 + 0.55 * max(n, 3))),
        columns=("true", "predicted", "count", "share"),
        rows=(
            (names[i], names[j], int(counts[i, j]), float(share[i, j]))
            for i in range(n)
            for j in range(n)
        ),
        chart=_chart(results, counts),
    )


def _draw(
    canvas: Canvas,
    layer: int,
    counts: npt.NDArray[np.int64],
    share: npt.NDArray[np.float64],
    names: tuple[str, ...],
) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    n, narrow = len(names), canvas.narrow
    canvas.heading(
        f"What is taken for what, layer {layer}", "each row: held-out images of one class"
    )
    size = min(9.5, max(3.2, 0.62 * 72 * (canvas.width - 1.2) / n))
    shown = [style.short(name, 9 if narrow else 14) for name in names]
    labels = max(style.text_width(canvas.figure, name, size) for name in shown)
    left = 0.48 + labels
    turned = max(len(name) for name in shown) > 2
    bottom = 0.42 + (labels if turned else size / 72)
    side = min(canvas.width - left - 0.15, canvas.height - canvas.top - bottom)
    ax = canvas.axes(left, canvas.top, side, side)
    # From white on: an empty cell is paper, and prints as such.
    blues = LinearSegmentedColormap.from_list("paper_blues", _BLUES)
    ax.imshow(share, cmap=blues, vmin=0, vmax=1, interpolation="nearest")
    step = 1 if size * n * 1.05 <= 72 * side else int(np.ceil(size * n * 1.05 / (72 * side)))
    ticks = list(range(0, n, step))
    ax.set_xticks(ticks, [shown[i] for i in ticks], rotation=90 if turned else 0)
    ax.set_yticks(ticks, [shown[i] for i in ticks])
    for tick in (*ax.get_xticklabels(), *ax.get_yticklabels()):
        tick.set_parse_math(False)
        tick.set_fontsize(size)
    ax.tick_params(length=0, pad=2)
    ax.set_xlabel("read as", labelpad=4, size=9 if narrow else 10)
    ax.set_ylabel("true class", labelpad=4, size=9 if narrow else 10)
    ax.spines[:].set_visible(False)
    if n <= 60:
        edges = np.arange(-0.5, n)
        ax.hlines(edges, -0.5, n - 0.5, color=style.FAINT, linewidth=0.5)
        ax.vlines(edges, -0.5, n - 0.5, color=style.FAINT, linewidth=0.5)
    else:
        ax.spines[:].set_visible(True)
    if n <= _NUMBERS_UP_TO and not narrow:
        for i, j in np.argwhere(counts > 0):
            ax.text(
                j,
                i,
                f"{100 * share[i, j]:.0f}",
                ha="center",
                va="center",
                size=min(8.5, 0.36 * 72 * side / n),
                color="white" if share[i, j] > 0.55 else style.INK,
            )


def _chart(results: Results, counts: npt.NDArray[np.int64]) -> Chart:
    """The matrix of each layer, chosen by a slider; of many cells those that hold most."""
    names = [style.short(name, 14) for name in results.class_names]
    n = len(names)
    layers = slider_layers(results, min(int((counts > 0).sum()), _MOST_CELLS))
    frames = [
        (f"layer {k}", {"series": [{"data": _cells(results, f"{RESID_POST}/{k}")}]}) for k in layers
    ]
    axis = {"type": "category", "data": names, "axisTick": {"show": False}, "splitArea":
            {"show": False}, "axisLine": {"show": False}}  # fmt: skip
    option = base(
        xAxis={**axis, "name": "read as", "nameLocation": "middle", "nameGap": 30},
        yAxis={**axis, "inverse": True},
        grid={"left": 16 + 7 * max(map(len, names)), "right": 10, "top": 8, "bottom": 48},
        visualMap={"min": 0, "max": 100, "dimension": 2, "show": False,
                   "inRange": {"color": list(_BLUES)}},
        series=[{"type": "heatmap", "data": [], "label": {"show": n <= _NUMBERS_UP_TO,
                 "formatter": "{@[2]}", "fontSize": 9},
                 "itemStyle": {"borderColor": style.FAINT, "borderWidth": 0.5 if n <= 60 else 0}}],
    )  # fmt: skip
    best = layers.index(results.best_layer)
    return Chart(option, (560, 380), frames, best)


def _cells(results: Results, feature: str) -> list[dict[str, Any]]:
    counts = confusion_counts(results, feature)
    totals, names = counts.sum(axis=1), results.class_names
    cells = np.argwhere(counts > 0)
    order = np.argsort(-counts[counts > 0], kind="stable")[:_MOST_CELLS]
    return [
        {"value": [j, i, round(100 * counts[i, j] / totals[i])],
         "label": {"color": "#ffffff" if counts[i, j] > 0.55 * totals[i] else style.INK},
         "tip": f"{style.printable(names[i])} read as {style.printable(names[j])}: "
                f"{counts[i, j]} of {totals[i]}"}
        for i, j in cells[np.sort(order)].tolist()
    ]  # fmt: skip
