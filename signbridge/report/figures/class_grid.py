"""One picture of every class with its held-out recall."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from signbridge.report.classes import ClassRecall, class_recall, slider_layers
from signbridge.report.figures import style
from signbridge.report.figures.chart import Chart, base
from signbridge.report.figures.plot import NARROW, WIDE, Canvas, Plot, build
from signbridge.report.images import squares
from signbridge.results.features import RESID_POST

if TYPE_CHECKING:
    from signbridge.results.results import Results
    from signbridge.store import Store

__all__ = ["class_grid", "typical_images"]


def class_grid(
    results: Results,
    pixels: npt.NDArray[np.uint8] | None = None,
    store: Store | None = None,
) -> Plot:
    """Draw a grid of the classes: a typical image, the name and the recall at the best layer.

    Args:
        results: A results folder.
        pixels: (n, side * side) grey images in the order of the predictions, or None to draw the
            grid without images.
        store: Holds the images as they are shown; the grey ones if None.

    Returns:
        The figure. Columns of its data: class, images, independent, scored, right, recall, ci_low,
        ci_high, mostly_taken_for.
    """
    recalls = class_recall(results)
    names = results.class_names
    chosen = None if pixels is None else typical_images(pixels, results.predictions.label)
    layer = results.best_layer
    seen = [r for r in recalls if r.n_scored]
    drawn = recalls
    if len(recalls) > _MOST:
        drawn = sorted(recalls, key=lambda r: (r.recall if r.n_scored else 2.0, r.index))[:_MOST]
    shown: dict[int, npt.NDArray[np.uint8]] | None = None
    if chosen is not None and pixels is not None and len(drawn) <= _PICTURED:
        rows = {r.index: chosen[r.index] for r in drawn if r.index in chosen}
        edge = math.isqrt(pixels.shape[1])
        grey = {row: pixels[row, : edge * edge].reshape(edge, edge) for row in rows.values()}
        small = grey if store is None else grey | squares(store, list(rows.values()))
        shown = {k: small[row] for k, row in rows.items()}
    worst = sorted(seen, key=lambda r: (r.recall, r.index))[:3]
    best = sorted(seen, key=lambda r: (-r.recall, r.index))[:3]
    return build(
        "class_grid",
        lambda canvas: _draw(canvas, layer, drawn, names, chosen or {}, shown),
        title="Class by class",
        caption=(
            "Share of each class’s images read right, with its 95 % interval, which counts images "
            "of a group as copies as far as they are right or wrong together."
            + (f" In print: the {_MOST} read worst." if len(recalls) > _MOST else "")
        ),
        alt="Best: "
        + ", ".join(f"{r.name} {100 * r.recall:.0f}{style.PER_CENT}" for r in best)
        + "; worst: "
        + ", ".join(f"{r.name} {100 * r.recall:.0f}{style.PER_CENT}" for r in worst)
        + ".",
        height=(_height(WIDE, drawn, shown), _height(NARROW, drawn, shown)),
        columns=(
            *("class", "images", "independent", "scored", "right", "recall"),
            *("ci_low", "ci_high", "mostly_taken_for"),
        ),
        rows=(
            (
                r.name,
                r.n_images,
                r.n_groups,
                r.n_scored,
                r.n_right,
                *(r.recall, r.low, r.high),
                None if r.taken_for is None else names[r.taken_for],
            )
            for r in recalls
        ),
        chart=_chart(results, chosen or {}),
    )


def _chart(results: Results, chosen: dict[int, int]) -> Chart:
    """Recall of every class at each layer, chosen by a slider; its typical image on hover."""
    names = [style.short(name, 14) for name in results.class_names]
    layers = slider_layers(results, len(names), 6_000)
    frames = []
    for k in layers:
        recalls = class_recall(results, f"{RESID_POST}/{k}")
        bars = [_bar(r, results.class_names, chosen) for r in recalls]
        ends = [[r.index, 100 * r.low, 100 * r.high] for r in recalls]
        frames.append((f"layer {k}", {"series": [{"data": bars}, {"data": ends}]}))
    option = base(
        xAxis={"type": "category", "data": names, "axisTick": {"show": False},
               "axisLabel": {"interval": "auto" if len(names) > 30 else 0,
                             "rotate": 90 if max(map(len, names)) > 2 else 0}},
        yAxis={"type": "value", "min": 0, "max": 100,
               "axisLabel": {"formatter": f"{{value}}{style.PER_CENT}"}},
        grid={"left": 52, "right": 10, "top": 12,
              "bottom": 28 if max(map(len, names)) <= 2 else 14 + 7 * max(map(len, names))},
        series=[
            {"type": "bar", "data": [], "itemStyle": {"color": style.COLOURS["blue"]},
             "barCategoryGap": "25%"},
            {"type": "custom", "renderItem": "interval", "data": [], "silent": True,
             "itemStyle": {"color": style.INK}, "encode": {"x": 0, "y": [1, 2]}, "z": 4},
        ],
    )  # fmt: skip
    if len(names) > 60:
        option["dataZoom"] = [{"type": "inside", "startValue": 0, "endValue": 59}]
    return Chart(option, (420, 340), frames, layers.index(results.best_layer))


def _bar(r: ClassRecall, names: tuple[str, ...], chosen: dict[int, int]) -> dict[str, Any]:
    bar = {"value": 100 * r.recall, "tip": _tip(r, names)}
    return bar | ({"image": chosen[r.index]} if r.index in chosen else {})


def typical_images(pixels: npt.NDArray[np.uint8], label: npt.NDArray[np.int64]) -> dict[int, int]:
    """The image of each class that is nearest to the class mean, after removing brightness.

    Args:
        pixels: (n, p) grey images.
        label: (n,) class indices.

    Returns:
        Row of the chosen image by class index.
    """
    chosen = {}
    for k in np.unique(label):
        rows = np.flatnonzero(label == k)
        images = pixels[rows].astype(np.float32)
        images -= images.mean(axis=1, keepdims=True)
        images /= np.maximum(images.std(axis=1, keepdims=True), 1e-6)
        distance = ((images - images.mean(axis=0)) ** 2).sum(axis=1)
        chosen[int(k)] = int(rows[distance.argmin()])
    return chosen


_MOST = 240  # classes in the picture; of more, those read worst
_PICTURED = 60  # classes up to which the picture shows an image of each: photographs are large
_PAD = 0.07  # space between cells, inches
_TEXT = 0.46  # height of name, number and bar below the image, inches
_TOP = 0.56


def _columns(width: float, recalls: list[ClassRecall]) -> int:
    """Columns that leave room for the names, filled evenly; many classes get small cells."""
    names = [r.name for r in recalls]
    longest = float(np.quantile([len(name) for name in names], 0.9))
    largest = 1.3 if len(names) <= 40 else 0.8
    cell = min(largest, max(0.64, 0.25 + 0.085 * longest))
    most = max(3, int((width - 0.03) / cell))
    return math.ceil(len(names) / math.ceil(len(names) / most))


def _cell(width: float, columns: int) -> float:
    return min(1.3, (width - 0.03) / columns)


def _height(width: float, recalls: list[ClassRecall], shown: object) -> float:
    columns = _columns(width, recalls)
    image = _cell(width, columns) - _PAD if shown is not None else 0.0
    return _TOP + math.ceil(len(recalls) / columns) * (image + _TEXT) + 0.02


def _draw(
    canvas: Canvas,
    layer: int,
    recalls: list[ClassRecall],
    names: tuple[str, ...],
    chosen: dict[int, int],
    shown: dict[int, npt.NDArray[np.uint8]] | None,
) -> None:
    from matplotlib.patches import Rectangle

    figure, width, height = canvas.figure, canvas.width, canvas.height
    canvas.heading(
        f"Held-out recall of every class, layer {layer}",
        "bar, number: share read right · line: 95 % interval"
        if canvas.narrow
        else "bar and number: share of the class's images read right · line: 95 % interval",
    )
    columns = _columns(width, recalls)
    # One axes in inches, from the top left: every cell is then placed in plain units.
    ax = canvas.axes(0, 0, width, height)
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)
    ax.axis("off")
    cell = _cell(width, columns)
    side = cell - _PAD
    image_height = side if shown is not None else 0.0
    widest = {r.index: style.fit(figure, r.name, side, 9, "bold") for r in recalls}
    # Short names stand beside their number, long ones above it.
    beside = all(
        style.text_width(figure, widest[r.index], 9, "bold") <= side - 0.42 for r in recalls
    )
    for i, r in enumerate(recalls):
        x = 0.03 + (i % columns) * cell
        y = _TOP + (i // columns) * (image_height + _TEXT)
        if shown is not None:
            ax.add_patch(Rectangle((x, y), side, side, facecolor=style.FAINT, linewidth=0))
            if r.index in shown:
                ax.imshow(
                    shown[r.index],
                    cmap="gray",
                    vmin=0,
                    vmax=255,
                    extent=(x, x + side, y + side, y),
                    interpolation="nearest",
                    aspect="auto",
                    zorder=2,
                )
        y += image_height
        percent = f"{100 * r.recall:.0f}{style.PER_CENT}" if r.n_scored else "–"
        style.text(ax, x, y + 0.115, widest[r.index], size=9, weight="bold", va="center")
        if beside:
            style.text(ax, x + side, y + 0.115, percent, size=8.5, va="center", ha="right")
            bar = (x, y + 0.215, side)
        else:
            style.text(ax, x + side, y + 0.265, percent, size=8, va="center", ha="right")
            bar = (x, y + 0.225, side - 0.42)
        for length, colour in ((1.0, style.FAINT), (r.recall, style.COLOURS["blue"])):
            if length > 0:  # false for NaN too
                ax.add_patch(
                    Rectangle(bar[:2], bar[2] * length, 0.07, facecolor=colour, linewidth=0)
                )
        if math.isfinite(r.low) and math.isfinite(r.high):
            middle = bar[1] + 0.035
            ax.plot(
                [bar[0] + bar[2] * r.low, bar[0] + bar[2] * r.high],
                [middle, middle],
                color=style.INK,
                linewidth=1.1,
                solid_capstyle="butt",
                zorder=4,
            )
        # imshow moves the limits.
        ax.set_xlim(0, width)
        ax.set_ylim(height, 0)
        canvas.spot(
            ax,
            (x, x + side),
            (y - image_height, y + 0.3),
            _tip(r, names),
            chosen.get(r.index),
        )


def _tip(r: ClassRecall, names: tuple[str, ...]) -> str:
    lines = [f"{style.printable(r.name)}: {r.n_right} of {r.n_scored} read right"]
    if math.isfinite(r.low) and math.isfinite(r.high):
        lines.append(f"95 % interval {100 * r.low:.0f} to {100 * r.high:.0f}{style.PER_CENT}")
    groups = f" in {r.n_groups} groups" if r.n_groups != r.n_images else ""
    lines.append(f"{r.n_images} images{groups}")
    if r.taken_for is not None:
        lines.append(f"else mostly read as {style.printable(names[r.taken_for])}")
    return "\n".join(lines)
