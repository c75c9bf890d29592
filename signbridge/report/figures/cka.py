"""How alike the geometries of all layers and baselines are, as a matrix."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from signbridge.report.figures import style
from signbridge.report.figures.plot import Canvas, Plot, build
from signbridge.report.figures.subsample import independent_rows, rows_in_words
from signbridge.results.features import RESID_POST
from signbridge.statistics.cka import cka_matrix

if TYPE_CHECKING:
    from signbridge.report.inputs import Inputs

__all__ = ["cka_figure"]

_MOST = 2000  # images
_LEAST = 8  # with fewer images the estimate is all noise
_NUMBERS_UP_TO = 12
_COLOURS = ("#ffffff", "#fde9c9", "#f3b562", "#c8601f", "#5e1a04")


def cka_figure(inputs: Inputs) -> Plot | None:
    """Draw debiased linear CKA between all pairs of baselines and layers.

    Args:
        inputs: A results folder with its activation store.

    Returns:
        The figure, or None with fewer than 8 images or fewer than two features.
        Columns of its data: a, b, cka, images.
    """
    results = inputs.results
    rows = independent_rows(results, _MOST, results.protocol.seed)
    names = [*inputs.baselines, *(f"{RESID_POST}/{k}" for k in results.layers)]
    if len(rows) < _LEAST or len(names) < 2:
        return None
    matrix = cka_matrix([partial(inputs.vectors, name, rows) for name in names])
    layers = [i for i, name in enumerate(names) if name.startswith(f"{RESID_POST}/")]
    between = [float(matrix[i, j]) for i, j in itertools.pairwise(layers)]
    lowest = min((v for v in between if np.isfinite(v)), default=float("nan"))
    sampled = rows_in_words(results, rows)
    return build(
        "cka",
        lambda canvas: _draw(canvas, results.stack, matrix, names),
        title="Which layers are alike",
        caption=(
            "Debiased linear centred kernel alignment of the standardised vectors, without labels "
            "or probes: 1 where two features give all pairs of images the same similarities, "
            f"about 0 (or below) where unrelated.{' ' + sampled if sampled else ''}"
        ),
        alt=(
            f"CKA of {len(layers)} layers"
            + (f"; neighbouring layers: {lowest:.2f} or more." if np.isfinite(lowest) else ".")
        ),
        height=(6.6, 4.05),
        columns=("a", "b", "cka", "images"),
        rows=(
            (a, b, float(matrix[i, j]), len(rows))
            for i, a in enumerate(names)
            for j, b in enumerate(names)
        ),
    )


def _label(name: str, of_a_layer: str = "") -> str:
    feature, _, layer = name.partition("/")
    return f"{of_a_layer}{layer}" if feature == RESID_POST else style.feature_label(feature)


def _draw(
    canvas: Canvas, stack: str, matrix: npt.NDArray[np.float64], names: Sequence[str]
) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    n, narrow = len(names), canvas.narrow
    canvas.heading("How alike the features are", f"debiased linear CKA, {stack} layers by number")
    size = 8.0 if narrow else 9.5
    labels = [_label(name) for name in names]
    longest = max(style.text_width(canvas.figure, label, size) for label in labels)
    left, bottom, bar = 0.15 + longest, 0.2 + longest, 0.75
    side = min(canvas.width - left - bar - 0.1, canvas.height - canvas.top - bottom)
    ax = canvas.axes(left, canvas.top, side, side)
    colours = LinearSegmentedColormap.from_list("paper_browns", _COLOURS)
    n_baselines = sum(not name.startswith(f"{RESID_POST}/") for name in names)
    # Names of baselines need room where many layers make the rows thin.
    thick = max(1.0, 1.3 * size * n / (72 * side))
    edges = np.concatenate([[0.0], np.cumsum([thick] * n_baselines + [1.0] * (n - n_baselines))])
    edges /= edges[-1]
    middles = (edges[1:] + edges[:-1]) / 2
    image = ax.pcolormesh(edges, edges, np.ma.masked_invalid(matrix), cmap=colours, vmin=0, vmax=1)
    ax.set_xlim(0, 1)
    ax.set_ylim(1, 0)
    step = 1 if n <= (14 if narrow else 26) else 4
    ticks = [*range(n_baselines), *range(n_baselines, n, step)]
    ax.set_xticks(middles[ticks], [labels[i] for i in ticks])
    ax.set_yticks(middles[ticks], [labels[i] for i in ticks])
    for tick in ax.get_xticklabels()[:n_baselines]:
        tick.set_rotation(90)
    ax.tick_params(length=0, pad=3, labelsize=size)
    ax.spines[:].set_visible(False)
    if 0 < n_baselines < n:
        ax.axhline(edges[n_baselines], color="white", linewidth=2.5)
        ax.axvline(edges[n_baselines], color="white", linewidth=2.5)
    if n <= _NUMBERS_UP_TO and not narrow:
        for i in range(n):
            for j in range(n):
                if np.isfinite(matrix[i, j]):
                    ax.text(
                        middles[j], middles[i], _number(matrix[i, j], 2), ha="center", va="center",
                        size=8, color="white" if matrix[i, j] > 0.7 else style.INK,
                    )  # fmt: skip
    scale = canvas.axes(left + side + 0.14, canvas.top, 0.11, side)
    canvas.figure.colorbar(image, cax=scale)
    scale.tick_params(labelsize=size, length=2)
    scale.spines[:].set_visible(False)
    long = [_label(name, "layer ") for name in names]
    for i, j in np.argwhere(np.isfinite(matrix)).tolist():
        canvas.spot(
            ax,
            (edges[j], edges[j + 1]),
            (edges[i], edges[i + 1]),
            f"{long[i]} and {long[j]}\nCKA {_number(matrix[i, j], 3)}",
        )


def _number(value: float, digits: int) -> str:
    return f"{round(float(value), digits) + 0.0:.{digits}f}".replace("-", "−")
