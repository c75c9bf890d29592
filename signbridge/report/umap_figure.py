"""A map of the best layer's vectors (UMAP; McInnes, Healy and Melville 2018)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from signbridge.report import style
from signbridge.report.plot import Plot, Spot

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.path import Path

    from signbridge.report.results import Results

__all__ = ["embed", "thinned", "umap_figure"]

_SPECTRAL_FROM = 30
_UMAP_FROM = 5
_CROWDED_FROM = 700


def embed(
    vectors: npt.NDArray[np.floating[Any]], seed: int = 42
) -> tuple[npt.NDArray[np.float64], str]:
    """Place vectors on a plane.

    Features are standardised first (residual streams have a few dimensions of huge variance), then
    UMAP with a fixed seed in one thread, so that a machine gives the same map again. Fewer than
    five distinct vectors are placed by their two principal components.

    Args:
        vectors: (n, d) feature vectors.
        seed: Seed of UMAP.

    Returns:
        (n, 2) positions and the name of the method, ``UMAP`` or ``PCA``.
    """
    x = np.asarray(vectors, dtype=np.float64)
    x = x - x.mean(axis=0)
    deviation = x.std(axis=0)
    x /= np.where(deviation > 0, deviation, 1.0)
    n = len(x)
    if n < _UMAP_FROM or len(np.unique(x, axis=0)) < _UMAP_FROM:
        u, s, _ = np.linalg.svd(x, full_matrices=False)
        plane = np.zeros((n, 2))
        plane[:, : min(2, len(s))] = (u * s)[:, :2]
        return plane, "PCA"
    import umap

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        position = umap.UMAP(
            n_neighbors=min(15, n - 1),
            min_dist=0.15,
            # The spectral start needs more samples than it has eigenvectors to find.
            init="spectral" if n >= _SPECTRAL_FROM else "random",
            random_state=seed,
            n_jobs=1,
        ).fit_transform(x.astype(np.float32))
    return np.asarray(position, dtype=np.float64), "UMAP"


def umap_figure(
    results: Results,
    vectors: npt.NDArray[np.floating[Any]],
    rows: npt.NDArray[np.int64] | None = None,
    seed: int = 42,
) -> Plot:
    """Draw a map of one layer's vectors, each sample as its letter.

    Letters carry the class and colour tells whether the held-out probe reads the sample right, so
    that 24 classes need no 24 colours. Classes with longer names are dots, named at their middle.

    Args:
        results: A results folder.
        vectors: (m, d) vectors of the best layer.
        rows: (m,) which samples of the predictions these are, all of them if None.
        seed: Seed of UMAP.

    Returns:
        The figure. Columns of its data: sample_id, class, predicted, x, y.
    """
    predictions = results.predictions
    rows = np.arange(len(predictions.sample_id)) if rows is None else np.asarray(rows)
    position, method = embed(vectors, seed)
    predicted = predictions.predicted(results.best_feature)[rows]
    label = predictions.label[rows]
    names = results.class_names
    layer = results.best_layer

    def draw(figure: Figure) -> list[Spot]:
        return _draw(
            figure, f"{method} of layer {layer}", position, label, predicted, rows, results
        )

    total = len(predictions.sample_id)
    sampled = f" A random {len(rows):,} of the {total:,} images." if len(rows) < total else ""
    letters = _as_letters(names, len(rows))
    marks = "letter" if letters else "dot"
    named = "" if letters else " Names stand where there is room for them."
    few = " Too few samples for UMAP: the two principal components." if method == "PCA" else ""
    return Plot(
        name="umap",
        title="The best layer as a map",
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


def _as_letters(names: tuple[str, ...], n: int) -> bool:
    """Whether each sample is drawn as its letter; more than some hundred would hide each other."""
    return _short(names) and n < _CROWDED_FROM


def _short(names: tuple[str, ...]) -> bool:
    return all(len(name) <= 2 and name.isascii() and name.isalnum() for name in names)


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
    letters = _as_letters(names, len(rows))
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
            _marks(
                ax, position, label, chosen, colour, names, letters, size, bool(right[chosen][0])
            )
    if not letters and _short(names):
        _letters_where_there_is_room(figure, ax, position, label, names)
    elif not letters:
        _class_names(figure, ax, position, label, names)
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


def _marks(
    ax: Any,
    position: npt.NDArray[np.float64],
    label: npt.NDArray[np.int64],
    chosen: npt.NDArray[np.bool_],
    colour: str,
    names: tuple[str, ...],
    letters: bool,
    size: float,
    right: bool,
) -> None:
    if not letters:
        ax.scatter(
            *position[chosen].T,
            s=size * 0.55,
            facecolor=colour if right else "white",
            edgecolor=colour,
            linewidth=0.9 if len(position) < _CROWDED_FROM else 0.6,
            alpha=0.85 if len(position) < _CROWDED_FROM else 0.5,
            zorder=3 if right else 2,
        )
        return
    if right:
        ax.scatter(*position[chosen].T, s=size * 2.1, color="#cfe6f5", linewidth=0, zorder=1)
    for k in np.unique(label[chosen]):
        points = position[chosen & (label == k)]
        ax.scatter(
            *points.T, s=size * 1.5, marker=_letter(names[k]), color=colour, linewidth=0, zorder=3
        )


def _letters_where_there_is_room(
    figure: Figure,
    ax: Any,
    position: npt.NDArray[np.float64],
    label: npt.NDArray[np.int64],
    names: tuple[str, ...],
) -> None:
    wide = figure.get_size_inches()[0] > 6
    points = np.asarray(ax.transData.transform(position)) / figure.dpi * 72
    shown = thinned(points, label, 13.0 if wide else 9.0)
    for outline, colour in ((2.0, "white"), (0.0, style.INK)):
        for k in np.unique(label[shown]):
            ax.scatter(
                *position[shown[label[shown] == k]].T,
                s=105 if wide else 50,
                marker=_letter(names[k]),
                color=colour,
                linewidth=outline,
                zorder=4,
            )


def thinned(
    points: npt.NDArray[np.float64], label: npt.NDArray[np.int64], distance: float
) -> npt.NDArray[np.int64]:
    """Choose samples whose letters do not overlap.

    A sample amid others of its class speaks for more of them, so samples are taken in the order of
    how many of their class lie within ``distance``, and those near a taken one are left out.

    Args:
        points: (n, 2) positions.
        label: (n,) classes.
        distance: Least distance of two chosen samples.

    Returns:
        Indices of the chosen samples.
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(points)
    near = tree.query_ball_point(points, distance, return_sorted=True)
    alike = [int((label[others] == label[i]).sum()) for i, others in enumerate(near)]
    free = np.ones(len(points), dtype=bool)
    chosen = []
    for i in np.argsort(-np.asarray(alike), kind="stable"):
        if free[i]:
            chosen.append(int(i))
            free[near[i]] = False
    return np.array(sorted(chosen), dtype=np.int64)


def _letter(name: str) -> Path:
    """A letter as a marker, centred, all letters at one scale."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.path import Path
    from matplotlib.textpath import TextPath

    glyph = TextPath((0, 0), name, size=1.0, prop=FontProperties(weight="bold"))
    box = glyph.get_extents()
    scale = 1.25 if len(name) == 1 else 0.9
    vertices = (glyph.vertices - [(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2]) * scale
    # Markers are scaled to their largest coordinate: two invisible corners fix it for all letters.
    corners = np.array([[-0.6, -0.6], [0.6, 0.6]])
    codes = np.concatenate([glyph.codes, [Path.MOVETO, Path.MOVETO]])
    return Path(np.concatenate([vertices, corners]), codes)


def _class_names(
    figure: Figure,
    ax: Any,
    position: npt.NDArray[np.float64],
    label: npt.NDArray[np.int64],
    names: tuple[str, ...],
) -> None:
    from matplotlib.patheffects import withStroke

    size = 6.5 if len(names) > 30 else 9.0
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    taken: list[Any] = []
    # The tightest classes first: their name says most about the place where it stands.
    middles = {int(k): np.median(position[label == k], axis=0) for k in np.unique(label)}
    spreads = {k: float(np.linalg.norm(position[label == k] - m, axis=1).mean())
               for k, m in middles.items()}  # fmt: skip
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
        box = name.get_window_extent(renderer)
        if any(box.overlaps(other) for other in taken):
            name.remove()
        else:
            taken.append(box)
