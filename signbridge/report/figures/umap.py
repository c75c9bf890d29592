"""Maps of layers' vectors: one layer, or all of them with a slider; a still for paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from signbridge.report.figures import style
from signbridge.report.figures.chart import Chart, base
from signbridge.report.figures.embedding import embed, spread_out
from signbridge.report.figures.plot import NARROW, WIDE, Canvas, Plot, build
from signbridge.report.figures.subsample import independent_rows, rows_in_words
from signbridge.report.images import Said
from signbridge.results.features import RESID_POST
from signbridge.store.provenance import grouping

if TYPE_CHECKING:
    from signbridge.report.inputs import Inputs

__all__ = ["layer_map", "layer_maps", "map_figure"]

_MOST = 3000  # images of one map
_MOST_OF_EACH = 500  # images of a map of every layer: 32 layers should take a minute
_CROWDED_FROM = 700
_LONGEST = 60


def layer_map(inputs: Inputs) -> Plot | None:
    """The map of the best layer or of the one that was asked for; None where none was."""
    if inputs.umap == "none":
        return None
    best = inputs.results.best_layer
    layer = inputs.umap if isinstance(inputs.umap, int) else best
    return map_figure(
        inputs,
        "umap" if layer == best else f"umap_layer_{layer}",
        f"{'The best layer' if layer == best else f'Layer {layer}'} as a map",
        [layer],
        independent_rows(inputs.results, _MOST, inputs.results.protocol.seed),
    )


def layer_maps(inputs: Inputs) -> Plot | None:
    """The maps of all layers, where they were asked for."""
    results = inputs.results
    if inputs.umap != "all" or len(results.layers) < 2:
        return None
    rows = independent_rows(results, _MOST_OF_EACH, results.protocol.seed)
    return map_figure(inputs, "umap_layers", "The layers as a map", results.layers, rows)


def map_figure(
    inputs: Inputs,
    name: str,
    title: str,
    layers: Sequence[int],
    rows: npt.NDArray[np.int64],
) -> Plot:
    """Draw maps of some layers' vectors, the same images on each.

    The map of a layer starts from that of the layer before it, so that images stay where they were
    as far as their neighbours let them. Axes are drawn mostly by rank: far clusters would press
    all others together.

    Args:
        inputs: The results and their store.
        name: File name without suffix.
        title: A heading in words.
        layers: The layers, ascending.
        rows: (m,) which samples of the predictions are drawn.

    Returns:
        The figure. Columns of its data: layer (of several), sample_id, class, predicted, and x and
        y as the method gave them.
    """
    results = inputs.results
    predictions, names, seed = results.predictions, results.class_names, results.protocol.seed
    label, ids = predictions.label[rows], predictions.sample_id
    positions: list[npt.NDArray[np.float64]] = []
    read: list[npt.NDArray[np.int64]] = []
    method = ""
    for layer in layers:
        feature = f"{RESID_POST}/{layer}"
        start = positions[-1] if positions else None
        position, method = embed(inputs.vectors(feature, rows), seed, start)
        positions.append(position)
        known = feature in predictions.feature_names
        read.append(predictions.predicted(feature)[rows] if known else np.full(len(rows), -1))
    places = [spread_out(position) for position in positions]
    one = len(layers) == 1
    sampled = rows_in_words(results, rows)
    few = "Too few samples for UMAP: the two principal components." if method == "PCA" else ""
    how = f"Images with alike standardised vectors are near ({method}, seed {seed}); each axis is "
    how += "three tenths position, seven rank, so far clusters do not press the others together."
    chain = "" if one else "Each layer's map starts from that of the layer before."

    def draw(canvas: Canvas) -> None:
        canvas.heading(
            f"{method} of layer {layers[0]}" if one else "Every layer as a map",
            "each dot one image · filled blue: read right, open orange: read wrong",
        )
        for layer, place, answer, box in zip(
            layers, places, read, _boxes(canvas, len(layers)), strict=True
        ):
            title = "" if one else f"{layer}, best" if layer == results.best_layer else str(layer)
            _draw(canvas, box, title, place, label, answer, names if one else ())

    return build(
        name,
        draw,
        title=title,
        caption=" ".join(filter(None, (how, chain, few, sampled))),
        alt=f"{method} map of {len(rows)} images at "
        + (f"layer {layers[0]}." if one else f"{len(layers)} layers."),
        height=(7.2, 4.6) if one else (_height(WIDE, len(layers)), _height(NARROW, len(layers))),
        columns=(*(() if one else ("layer",)), "sample_id", "class", "predicted", "x", "y"),
        rows=(
            (
                *(() if one else (layer,)),
                *(ids[row], names[label[i]], names[answer[i]] if answer[i] >= 0 else ""),
                *map(float, position[i]),
            )
            for layer, position, answer in zip(layers, positions, read, strict=True)
            for i, row in enumerate(rows.tolist())
        ),
        chart=_chart(inputs, layers, rows, places, read),
    )


def _chart(
    inputs: Inputs,
    layers: Sequence[int],
    rows: npt.NDArray[np.int64],
    places: Sequence[npt.NDArray[np.float64]],
    read: Sequence[npt.NDArray[np.int64]],
) -> Chart:
    results = inputs.results
    predictions, names = results.predictions, results.class_names
    said = Said(inputs)
    label, group = predictions.label[rows], predictions.group[rows]
    answers = None if said.answers is None else [said.answers[row] for row in rows]
    distinct = {text: place for place, text in enumerate(dict.fromkeys(answers or []))}
    choice = None if said.choice is None else said.choice[rows]
    mentioned = {*label.tolist(), *(k for one in read for k in one.tolist() if k >= 0)}
    mentioned |= set() if choice is None else set(choice.tolist())
    axis = {"type": "value", "min": -0.03, "max": 1.07, "show": False}
    option = base(
        grid={"left": 8, "right": 8, "top": 8, "bottom": 8, "show": True},
        xAxis=axis,
        yAxis=axis,
        dataZoom=[
            {"type": "inside", axis: 0, "filterMode": "none", "zoomOnMouseWheel": "ctrl"}
            for axis in ("xAxisIndex", "yAxisIndex")
        ],
    )
    group_names = predictions.group_names
    return Chart(
        option,
        (560, 420),
        frames=[(f"layer {layer}", {}) for layer in layers] if len(layers) > 1 else (),
        frame=layers.index(results.best_layer) if results.best_layer in layers else 0,
        map={
            "rows": rows.tolist(),
            "ids": [style.short(predictions.sample_id[row], _LONGEST) for row in rows],
            "label": label.tolist(),
            "group": None if group_names is None else group.tolist(),
            "answer": None if answers is None else [distinct[text] for text in answers],
            "choice": None if choice is None else choice.tolist(),
            "read": [one.tolist() for one in read],
            "place": [np.round(place.T, 3).tolist() for place in places],
            "classes": {k: style.printable(names[k]) for k in sorted(mentioned)},
            "groups": None
            if group_names is None
            else {g: style.printable(group_names[g]) for g in sorted(set(group.tolist()))},
            "group_word": grouping(results.provenance).one.partition(" ")[2],
            "answers": [style.short(text or "(nothing)", _LONGEST) for text in distinct],
        },
    )


_TITLE = 0.19  # inches above each of several maps
_PAD = 0.06


def _columns(width: float, n: int) -> int:
    return min(n, 6 if width > 6 else 3)


def _side(width: float, n: int) -> float:
    return (width - _PAD) / _columns(width, n) - _PAD


def _height(width: float, n: int) -> float:
    return 0.62 + math.ceil(n / _columns(width, n)) * (_side(width, n) + _TITLE + _PAD)


def _boxes(canvas: Canvas, n: int) -> list[tuple[float, float, float, float]]:
    """Left, top, width and height of each map."""
    if n == 1:
        return [(0.03, canvas.top + 0.02, canvas.width - 0.06, canvas.height - canvas.top - 0.05)]
    columns, side = _columns(canvas.width, n), _side(canvas.width, n)
    return [
        (
            _PAD + (k % columns) * (side + _PAD),
            0.62 + _TITLE + (k // columns) * (side + _TITLE + _PAD),
            *(side, side),
        )
        for k in range(n)
    ]


def _draw(
    canvas: Canvas,
    box: tuple[float, float, float, float],
    title: str,
    place: npt.NDArray[np.float64],
    label: npt.NDArray[np.int64],
    read: npt.NDArray[np.int64],
    names: Sequence[str],
) -> None:
    ax = canvas.axes(*box)
    ax.set(xticks=[], yticks=[], xlim=(-0.04, 1.04), ylim=(-0.04, 1.04))
    ax.spines[:].set_visible(True)
    ax.spines[:].set_color(style.FAINT)
    ax.set_title(title, loc="left", size=8.5, pad=2)
    area = box[2] * box[3] * 72**2
    size = float(np.clip(0.16 * area / max(1, len(place)), 2.0, 34))
    right, unscored = read == label, read < 0
    crowded = len(place) >= _CROWDED_FROM
    for chosen, colour in (
        (unscored, style.COLOURS["grey"]),
        (~right & ~unscored, style.COLOURS["vermillion"]),
        (right, style.COLOURS["blue"]),
    ):
        ax.scatter(
            *place[chosen].T,
            s=size,
            facecolor=colour if right[chosen].any() else "white",
            edgecolor=colour,
            linewidth=0.6 if crowded else 0.9,
            alpha=0.5 if crowded else 0.85,
        )
    if names:
        _class_names(canvas, ax, place, label, names)


def _class_names(
    canvas: Canvas,
    ax: Any,
    place: npt.NDArray[np.float64],
    label: npt.NDArray[np.int64],
    names: Sequence[str],
) -> None:
    """Name the classes at their middles, the tightest ones first, where there is room."""
    from matplotlib.patheffects import withStroke

    size = 6.5 if len(names) > 30 else 10.0
    renderer = canvas.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    taken: list[Any] = []
    # The tightest classes first: their name says most about the place where it stands.
    middles = {int(k): np.median(place[label == k], axis=0) for k in np.unique(label)}
    spreads = {
        k: float(np.linalg.norm(place[label == k] - m, axis=1).mean()) for k, m in middles.items()
    }
    for k in sorted(middles, key=lambda k: (spreads[k], k)):
        name = style.text(
            ax,
            float(middles[k][0]),
            float(middles[k][1]),
            style.short(names[k], 14),
            size=size,
            weight="bold",
            ha="center",
            va="center",
            zorder=5,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )
        extent = name.get_window_extent(renderer)
        if extent.count_overlaps(taken):
            name.remove()
        else:
            taken.append(extent)
