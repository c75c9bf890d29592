"""A map of one layer's vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from signbridge.report.figures import style
from signbridge.report.figures.embedding import embed
from signbridge.report.figures.map_marks import (
    as_letters,
    class_names,
    draw_marks,
    letters_where_there_is_room,
    map_axes,
    short_names,
)
from signbridge.report.figures.plot import Canvas, Plot, build
from signbridge.report.figures.subsample import independent_rows, rows_in_words
from signbridge.results.features import RESID_POST

if TYPE_CHECKING:
    from signbridge.report.inputs import Inputs
    from signbridge.results.results import Results

__all__ = ["layer_map", "umap_figure"]


_MOST = 3000  # images


def layer_map(inputs: Inputs) -> Plot | None:
    """The map of the best layer or of the one that was asked for; None where none was."""
    if inputs.umap == "none":
        return None
    results = inputs.results
    layer = inputs.umap if isinstance(inputs.umap, int) else results.best_layer
    rows = independent_rows(results, _MOST, results.protocol.seed)
    return umap_figure(
        results, inputs.vectors(f"{RESID_POST}/{layer}", rows), rows, results.protocol.seed, layer
    )


def umap_figure(
    results: Results,
    vectors: npt.NDArray[np.floating[Any]],
    rows: npt.NDArray[np.int64] | None = None,
    seed: int = 42,
    layer: int | None = None,
) -> Plot:
    """Draw a map of one layer's vectors, each sample as its letter.

    Letters carry the class and colour tells whether the held-out probe reads the sample right, so
    that 24 classes need no 24 colours. Classes with longer names are dots, named at their middle.

    Args:
        results: A results folder.
        vectors: (m, d) vectors of the layer.
        rows: (m,) which samples of the predictions these are, all of them if None.
        seed: Seed of UMAP.
        layer: The layer, the best one if None.

    Returns:
        The figure. Columns of its data: sample_id, class, predicted, x, y.
    """
    predictions = results.predictions
    rows = np.arange(len(predictions.sample_id)) if rows is None else np.asarray(rows)
    position, method = embed(vectors, seed)
    layer = results.best_layer if layer is None else layer
    predicted = predictions.predicted(f"{RESID_POST}/{layer}")[rows]
    label = predictions.label[rows]
    names = results.class_names

    sampled = rows_in_words(results, rows)
    sampled = f" {sampled}" if sampled else ""
    letters = as_letters(names, len(rows))
    named = "" if letters else " Names stand where there is room for them."
    few = " Too few samples for UMAP: the two principal components." if method == "PCA" else ""
    return build(
        "umap" if layer == results.best_layer else f"umap_layer_{layer}",
        lambda canvas: _draw(
            canvas, f"{method} of layer {layer}", position, label, predicted, rows, results
        ),
        title=f"{'The best layer' if layer == results.best_layer else f'Layer {layer}'} as a map",
        caption=(
            f"Images with alike standardised vectors are near (seed {seed}); colours: held-out "
            "answers. Distances between far clusters mean little." + named + few + sampled
        ),
        alt=f"{method} map of {len(rows)} images at layer {layer}.",
        height=(7.2, 4.6),
        columns=("sample_id", "class", "predicted", "x", "y"),
        rows=(
            (
                predictions.sample_id[row],
                names[label[i]],
                names[predicted[i]] if predicted[i] >= 0 else "",
                float(position[i, 0]),
                float(position[i, 1]),
            )
            for i, row in enumerate(rows.tolist())
        ),
    )


def _key(letters: bool) -> str:
    how = ("blue on a disc", "orange") if letters else ("filled blue", "open orange")
    return f"{how[0]}: read right, {how[1]}: read wrong"


def _draw(
    canvas: Canvas,
    title: str,
    position: npt.NDArray[np.float64],
    label: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    results: Results,
) -> None:
    names = results.class_names
    letters = as_letters(names, len(rows))
    canvas.heading(title, f"each {'letter' if letters else 'dot'} one image · {_key(letters)}")
    ax = map_axes(
        canvas, 0.03, canvas.top + 0.02, canvas.width - 0.06, canvas.height - canvas.top - 0.05
    )
    centre = (position.max(axis=0) + position.min(axis=0)) / 2
    half = np.maximum(np.ptp(position, axis=0) / 2, 1e-3) * 1.06
    ax.set_xlim(centre[0] - half[0], centre[0] + half[0])
    ax.set_ylim(centre[1] - half[1], centre[1] + half[1])
    area = canvas.width * (canvas.height - canvas.top) * 72**2
    size = float(np.clip(0.30 * area / max(1, len(rows)), 9, 62))
    right, unscored = predicted == label, predicted < 0
    kinds = (
        (unscored, style.COLOURS["grey"]),
        (~right & ~unscored, style.COLOURS["vermillion"]),
        (right, style.COLOURS["blue"]),
    )
    for chosen, colour in kinds:
        if chosen.any():
            draw_marks(
                ax, position, label, chosen, colour, names, letters, size, bool(right[chosen][0])
            )
    if not letters and short_names(names):
        letters_where_there_is_room(canvas.figure, ax, position, label, names)
    elif not letters:
        class_names(canvas.figure, ax, position, label, names)
    for i, (row, (x, y)) in enumerate(zip(rows.tolist(), position.tolist(), strict=True)):
        read = "not scored"
        if predicted[i] >= 0:
            read = f"read as {style.printable(names[predicted[i]])}"
        sample = style.printable(results.predictions.sample_id[row])
        canvas.spot(ax, x, y, f"{style.printable(names[label[i]])}, {read}\n{sample}", row)
