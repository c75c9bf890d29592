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
    short_names,
)
from signbridge.report.figures.plot import Plot, Spot
from signbridge.report.figures.subsample import rows_in_words
from signbridge.results.results import SITE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from signbridge.results.results import Results

__all__ = ["umap_figure"]


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
    predicted = predictions.predicted(f"{SITE}/{layer}")[rows]
    label = predictions.label[rows]
    names = results.class_names

    def draw(figure: Figure) -> list[Spot]:
        return _draw(
            figure, f"{method} of layer {layer}", position, label, predicted, rows, results
        )

    sampled = rows_in_words(results, rows)
    sampled = f" {sampled}" if sampled else ""
    letters = as_letters(names, len(rows))
    marks = "letter" if letters else "dot"
    named = "" if letters else " Names stand where there is room for them."
    few = " Too few samples for UMAP: the two principal components." if method == "PCA" else ""
    return Plot(
        name="umap" if layer == results.best_layer else f"umap_layer_{layer}",
        title=f"{'The best layer' if layer == results.best_layer else f'Layer {layer}'} as a map",
        caption=(
            f"Each {marks} is one image, near others whose vectors at layer {layer} are alike "
            f"(standardised features, seed {seed}); {_key(letters)}, by the held-out probe. "
            "Distances between far clusters mean little." + named + few + sampled
        ),
        alt=f"{method} map of {len(rows)} images at layer {layer}.",
        wide=style.render(draw, 8.0, 7.2),
        narrow=style.render(draw, 4.2, 4.6),
        columns=("sample_id", "class", "predicted", "x", "y"),
        rows=tuple(
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
    figure: Figure,
    title: str,
    position: npt.NDArray[np.float64],
    label: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    results: Results,
) -> list[Spot]:
    width, height = figure.get_size_inches()
    names = results.class_names
    letters = as_letters(names, len(rows))
    top = style.heading(
        figure,
        title,
        f"each {'letter' if letters else 'dot'} one image · {_key(letters)}",
    )
    ax: Any = figure.add_axes(
        (0.03 / width, 0.03 / height, 1 - 0.06 / width, 1 - (top + 0.05) / height)
    )
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(True)
    ax.spines[:].set_color(style.FAINT)
    centre = (position.max(axis=0) + position.min(axis=0)) / 2
    half = np.maximum(np.ptp(position, axis=0) / 2, 1e-3) * 1.06
    ax.set_xlim(centre[0] - half[0], centre[0] + half[0])
    ax.set_ylim(centre[1] - half[1], centre[1] + half[1])
    area = width * (height - top) * 72**2
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
        letters_where_there_is_room(figure, ax, position, label, names)
    elif not letters:
        class_names(figure, ax, position, label, names)
    box = ax.get_position()
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    return [
        Spot(
            box.x0 + box.width * (x - x0) / (x1 - x0),
            1 - box.y0 - box.height * (y - y0) / (y1 - y0),
            0,
            0,
            _tip(i, row, label, predicted, results),
            row,
        )
        for i, (row, (x, y)) in enumerate(zip(rows.tolist(), position.tolist(), strict=True))
    ]


def _tip(
    i: int,
    row: int,
    label: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    results: Results,
) -> str:
    names = results.class_names
    read = f"read as {style.printable(names[predicted[i]])}" if predicted[i] >= 0 else "not scored"
    return (
        f"{style.printable(names[label[i]])}, {read}\n"
        f"{style.printable(results.predictions.sample_id[row])}"
    )
