"""Maps of all layers side by side, in shared colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from signbridge.report.figures import style
from signbridge.report.figures.embedding import align, embed
from signbridge.report.figures.map_marks import map_axes
from signbridge.report.figures.plot import NARROW, WIDE, Canvas, Plot, build
from signbridge.report.figures.subsample import independent_rows, rows_in_words
from signbridge.results.features import RESID_POST

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from signbridge.report.inputs import Inputs
    from signbridge.results.results import Results

__all__ = ["layer_maps", "umap_strip"]

_MOST = 500  # images: the maps are small, and a strip of 32 layers should take a minute
_NAMED = ("blue", "vermillion", "green", "orange", "purple", "sky")
_COLOURS = (*(style.COLOURS[name] for name in _NAMED), style.INK)
_OTHER = "#c3c7cc"
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_MOST_SPOTS = 6000


def layer_maps(inputs: Inputs) -> Plot | None:
    """The maps of all layers, where they were asked for."""
    results = inputs.results
    if inputs.umap != "all" or len(results.layers) < 2:
        return None
    rows = independent_rows(results, _MOST, results.protocol.seed)
    return umap_strip(
        results, lambda k: inputs.vectors(f"{RESID_POST}/{k}", rows), rows, results.protocol.seed
    )


def umap_strip(
    results: Results,
    vectors: Callable[[int], npt.NDArray[np.floating[Any]]],
    rows: npt.NDArray[np.int64],
    seed: int = 42,
) -> Plot:
    """Draw a small map of every layer, the same samples in the same colours on each.

    Colours and marks tell the classes; where there are more than seven, the seven of most images
    (of equal ones the first) stand out and the others are grey. Each map is turned, never
    stretched, to fit the one before it.

    Args:
        results: A results folder.
        vectors: Gives the (m, d) vectors of a layer.
        rows: (m,) which samples of the predictions these are.
        seed: Seed of UMAP.

    Returns:
        The figure. Columns of its data: layer, sample_id, class, predicted, x, y.
    """
    predictions = results.predictions
    names, label = results.class_names, predictions.label[rows]
    positions: list[npt.NDArray[np.float64]] = []
    predicted: list[npt.NDArray[np.int64]] = []
    method = "UMAP"
    for layer in results.layers:
        position, method = embed(vectors(layer), seed)
        positions.append(align(position, positions[-1] if positions else position))
        feature = f"{RESID_POST}/{layer}"
        known = feature in predictions.feature_names
        predicted.append(predictions.predicted(feature)[rows] if known else np.full(len(rows), -1))
    shown = _classes(label)
    # Place of each sample's class among the coloured ones, -1 where it has no colour.
    marks = np.where(np.isin(label, shown), np.searchsorted(shown, label), -1)

    n = len(results.layers)
    key = ", ".join(style.short(names[k], 12) for k in shown)
    others = "; all other classes grey" if len(shown) < len(np.unique(label)) else ""
    sampled = rows_in_words(results, rows)
    return build(
        "umap_layers",
        lambda canvas: _draw(canvas, results, positions, marks, shown, rows),
        title="All layers as maps",
        caption=(
            f"Each dot is one image, in the same colour on every map ({key}{others}). "
            f"{method} of the standardised vectors of each layer, seed {seed}; a map is turned to "
            "fit the one before it, never stretched. Distances between far clusters mean little."
            + (f" {sampled}" if sampled else "")
        ),
        alt=f"{method} maps of {len(rows)} images at {n} layers.",
        height=(_height(WIDE, n, len(shown)), _height(NARROW, n, len(shown))),
        columns=("layer", "sample_id", "class", "predicted", "x", "y"),
        rows=(
            (
                layer,
                predictions.sample_id[row],
                names[label[i]],
                names[answer[i]] if answer[i] >= 0 else "",
                float(position[i, 0]),
                float(position[i, 1]),
            )
            for layer, position, answer in zip(results.layers, positions, predicted, strict=True)
            for i, row in enumerate(rows.tolist())
        ),
    )


def _classes(label: npt.NDArray[np.int64]) -> list[int]:
    """The classes that get a colour."""
    present, count = np.unique(label, return_counts=True)
    order = np.argsort(-count, kind="stable")[: len(_COLOURS)]
    return sorted(int(k) for k in present[order])


_HEAD = 0.62  # inches above the maps
_TITLE = 0.19  # inches above each map, for the layer
_PAD = 0.06


def _columns(width: float, n: int) -> int:
    return min(n, 6 if width > 6 else 3)


def _side(width: float, columns: int) -> float:
    return (width - _PAD) / columns - _PAD


def _height(width: float, n: int, n_shown: int) -> float:
    columns = _columns(width, n)
    legend = 0.2 * math.ceil(n_shown / (7 if width > 6 else 4)) + 0.1
    return _HEAD + math.ceil(n / columns) * (_side(width, columns) + _TITLE + _PAD) + legend


def _draw(
    canvas: Canvas,
    results: Results,
    positions: Sequence[npt.NDArray[np.float64]],
    marks: npt.NDArray[np.int64],
    shown: Sequence[int],
    rows: npt.NDArray[np.int64],
) -> None:
    canvas.heading("Every layer as a map", "each dot one image, the same on every map")
    columns = _columns(canvas.width, len(positions))
    side = _side(canvas.width, columns)
    every = max(1, math.ceil(len(positions) * len(rows) / _MOST_SPOTS))
    for number, (layer, position) in enumerate(zip(results.layers, positions, strict=True)):
        x = _PAD + (number % columns) * (side + _PAD)
        y = _HEAD + (number // columns) * (side + _TITLE + _PAD)
        best = layer == results.best_layer
        canvas.figure.text(
            x / canvas.width,
            1 - (y + 0.02) / canvas.height,
            f"{layer}, best" if best else f"layer {layer}" if number == 0 else str(layer),
            size=8.5,
            weight="bold" if best else "normal",
            va="top",
        )
        ax = map_axes(canvas, x, y + _TITLE, side, side)
        _one(ax, position, marks, side)
        for i in range(0, len(rows), every):
            name = style.printable(results.class_names[results.predictions.label[rows[i]]])
            sample = style.printable(results.predictions.sample_id[rows[i]])
            canvas.spot(
                ax,
                float(position[i, 0]),
                float(position[i, 1]),
                f"layer {layer}: {name}\n{sample}",
                int(rows[i]),
            )
    _legend(canvas.figure, results, shown, bool((marks < 0).any()))


def _one(
    ax: Any, position: npt.NDArray[np.float64], marks: npt.NDArray[np.int64], side: float
) -> None:
    middle = (position.max(axis=0) + position.min(axis=0)) / 2
    half = max(1e-3, float(np.ptp(position, axis=0).max()) / 2) * 1.07
    ax.set_xlim(middle[0] - half, middle[0] + half)
    ax.set_ylim(middle[1] - half, middle[1] + half)
    size = float(np.clip(0.16 * (side * 72) ** 2 / max(1, len(position)), 2.0, 14))
    ax.scatter(*position[marks < 0].T, s=size * 0.7, color=_OTHER, linewidth=0, zorder=1)
    for number in range(int(marks.max(initial=-1)) + 1):
        ax.scatter(
            *position[marks == number].T,
            s=size,
            marker=_MARKERS[number],
            color=_COLOURS[number],
            linewidth=0,
            zorder=2,
        )


def _legend(figure: Figure, results: Results, shown: Sequence[int], others: bool) -> None:
    from matplotlib.lines import Line2D

    width, height = figure.get_size_inches()
    entries = [
        (style.short(results.class_names[k], 12), _MARKERS[i], _COLOURS[i])
        for i, k in enumerate(shown)
    ]
    if others:
        entries.append(("other", "o", _OTHER))
    handles = [
        Line2D([], [], linestyle="none", marker=marker, color=colour, markersize=5, label=label)
        for label, marker, colour in entries
    ]
    legend = figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.0, 0.02 / height),
        ncols=len(entries) if width > 6 else 4,
        frameon=False,
        fontsize=8.5,
        handletextpad=0.1,
        columnspacing=1.0,
        borderpad=0.1,
    )
    for name in legend.get_texts():
        name.set_parse_math(False)
