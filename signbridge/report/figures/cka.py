"""How alike the geometries of all layers and baselines are, as a matrix."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from signbridge.report.figures import style
from signbridge.report.figures.plot import Plot, Spot
from signbridge.report.figures.subsample import rows_in_words
from signbridge.results.results import SITE
from signbridge.statistics.cka import cka_matrix

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from signbridge.results.results import Results

__all__ = ["CKA_MOST", "cka_figure"]

CKA_MOST = 2000
"""Most images of the matrix."""

_LEAST = 8  # with fewer images the estimate is all noise
_NUMBERS_UP_TO = 12
_COLOURS = ("#ffffff", "#fde9c9", "#f3b562", "#c8601f", "#5e1a04")


def cka_figure(
    results: Results,
    feature: Callable[[str], npt.NDArray[Any]],
    names: Sequence[str],
    rows: npt.NDArray[np.int64],
) -> Plot | None:
    """Draw debiased linear CKA between all pairs of features.

    Args:
        results: A results folder.
        feature: Gives the (m, width) vectors of a feature for ``rows``.
        names: Features in the order of the rows: baselines, then ``resid_post/0`` and so on.
        rows: (m,) which samples of the predictions these are.

    Returns:
        The figure, or None with fewer than 8 images or fewer than two features. Columns of its
        data: a, b, cka, images.
    """
    if len(rows) < _LEAST or len(names) < 2:
        return None

    def give(name: str) -> Callable[[], npt.NDArray[Any]]:
        return lambda: feature(name)

    matrix = cka_matrix([give(name) for name in names])
    layers = [i for i, name in enumerate(names) if name.startswith(f"{SITE}/")]

    def draw(narrow: bool) -> Any:
        return lambda figure: _draw(figure, matrix, names, narrow)

    between = [float(matrix[i, j]) for i, j in itertools.pairwise(layers)]
    lowest = min((v for v in between if np.isfinite(v)), default=float("nan"))
    sampled = rows_in_words(results, rows)
    return Plot(
        name="cka",
        title="Which layers are alike",
        caption=(
            "Linear centred kernel alignment of the standardised vectors, debiased: 1 where two "
            "features give the same similarities to all pairs of images, 0 where they are "
            "unrelated (it may then fall below 0). Features are compared as they are, without "
            f"labels or probes.{' ' + sampled if sampled else ''}"
        ),
        alt=(
            f"CKA of {len(layers)} layers"
            + (f"; neighbouring layers: {lowest:.2f} or more." if np.isfinite(lowest) else ".")
        ),
        wide=style.render(draw(False), 8.0, 6.6),
        narrow=style.render(draw(True), 4.2, 4.05),
        columns=("a", "b", "cka", "images"),
        rows=tuple(
            (a, b, "" if np.isnan(matrix[i, j]) else float(matrix[i, j]), len(rows))
            for i, a in enumerate(names)
            for j, b in enumerate(names)
        ),
    )


def _label(name: str) -> str:
    feature, _, layer = name.partition("/")
    return layer if feature == SITE else style.feature_label(feature)


def _draw(
    figure: Figure, matrix: npt.NDArray[np.float64], names: Sequence[str], narrow: bool
) -> list[Spot]:
    from matplotlib.colors import LinearSegmentedColormap

    width, height = figure.get_size_inches()
    n = len(names)
    top = style.heading(
        figure, "How alike the features are", "debiased linear CKA, decoder layers by number"
    )
    size = 8.0 if narrow else 9.5
    labels = [_label(name) for name in names]
    longest = max(style.text_width(figure, label, size) for label in labels)
    left, bottom, bar = 0.15 + longest, 0.2 + longest, 0.75
    side = min(width - left - bar - 0.1, height - top - bottom)
    ax: Any = figure.add_axes(
        (left / width, (height - top - side) / height, side / width, side / height)
    )
    colours = LinearSegmentedColormap.from_list("paper_browns", _COLOURS)
    n_baselines = sum(not name.startswith(f"{SITE}/") for name in names)
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
    scale: Any = figure.add_axes(
        ((left + side + 0.14) / width, (height - top - side) / height, 0.11 / width, side / height)
    )
    figure.colorbar(image, cax=scale)
    scale.tick_params(labelsize=size, length=2)
    scale.spines[:].set_visible(False)
    box = ax.get_position()
    return [
        Spot(
            box.x0 + box.width * edges[j],
            1 - box.y1 + box.height * edges[i],
            box.width * (edges[j + 1] - edges[j]),
            box.height * (edges[i + 1] - edges[i]),
            f"{_long(names[i])} and {_long(names[j])}\nCKA " + _number(matrix[i, j], 3),
        )
        for i in range(n)
        for j in range(n)
        if np.isfinite(matrix[i, j])
    ]


def _number(value: float, digits: int) -> str:
    return f"{round(float(value), digits) + 0.0:.{digits}f}".replace("-", "−")


def _long(name: str) -> str:
    feature, _, layer = name.partition("/")
    return f"layer {layer}" if feature == SITE else style.feature_label(feature)
