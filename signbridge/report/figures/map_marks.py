"""How samples are marked on a map: letters, dots, and names of classes where there is room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from signbridge.report.figures import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.path import Path

    from signbridge.report.figures.plot import Canvas

__all__ = [
    "as_letters",
    "class_names",
    "draw_marks",
    "letters_where_there_is_room",
    "map_axes",
    "short_names",
    "thinned",
]

_CROWDED_FROM = 700


def map_axes(canvas: Canvas, left: float, top: float, width: float, height: float) -> Any:
    """Framed axes without ticks, as of :meth:`signbridge.report.figures.plot.Canvas.axes`."""
    ax = canvas.axes(left, top, width, height)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(True)
    ax.spines[:].set_color(style.FAINT)
    return ax


def as_letters(names: tuple[str, ...], n: int) -> bool:
    """Whether each sample is drawn as its letter; more than some hundred would hide each other."""
    return short_names(names) and n < _CROWDED_FROM


def short_names(names: tuple[str, ...]) -> bool:
    """Whether all names are short enough to be drawn at each sample."""
    return all(len(name) <= 2 and name.isascii() and name.isalnum() for name in names)


def draw_marks(
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
    """Mark the chosen samples with a colour: letters, or filled (right) and open (wrong) dots."""
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


def letters_where_there_is_room(
    figure: Figure,
    ax: Any,
    position: npt.NDArray[np.float64],
    label: npt.NDArray[np.int64],
    names: tuple[str, ...],
) -> None:
    """Draw the letters of a crowd of dots where they do not overlap."""
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


def class_names(
    figure: Figure,
    ax: Any,
    position: npt.NDArray[np.float64],
    label: npt.NDArray[np.int64],
    names: tuple[str, ...],
) -> None:
    """Name the classes at their middles, the tightest ones first, where there is room."""
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
        if box.count_overlaps(taken):
            name.remove()
        else:
            taken.append(box)
