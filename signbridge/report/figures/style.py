"""One look for all figures: colours, type, sizes, and drawing without global state.

Figures are made from :class:`matplotlib.figure.Figure` directly, so pyplot is never imported, no
backend is chosen for the caller and no display is needed. Colours are those of Okabe and Ito (2008,
"Color Universal Design"), which stay apart for all common kinds of colour blindness; nothing is
told by colour alone.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from signbridge.results.features import Feature
from signbridge.runtime.terminal import visible
from signbridge.statistics.metrics import measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    from signbridge.results.results import Score

__all__ = [
    "COLOURS",
    "DPI",
    "FAINT",
    "INK",
    "MUTED",
    "PER_CENT",
    "RC",
    "feature_label",
    "feature_rank",
    "fit",
    "format_score",
    "format_value",
    "heading",
    "labels_at",
    "printable",
    "short",
    "split_label",
    "spread",
    "text",
    "text_width",
]

DPI = 200
_JOINERS = "\u200c\u200d"  # Persian and Indic words and joined emoji are spelt with them
PER_CENT = "\u00a0%"  # never parted from its number
INK = "#1a1a1a"
MUTED = "#5f6368"
FAINT = "#d9dce0"
COLOURS = {
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "grey": "#8a8d91",
}

_FEATURE_LABELS = {
    "resid_post": "decoder layers",
    "pixels": "raw pixels",
    "vision": "vision tower",
    "projector": "projector",
    "text": "says: answer",
    "forced_choice": "would say: choice",
    "zero_shot": "forced choice, no probe",
    "majority": "largest class",
    "random_weights": "random weights",
    "decoder_resid_post": "decoder, answer’s begin",
}
_SPLIT_LABELS = {
    "grouped": "grouped folds",
    "random": "random split",
    "source": "the data's own split",
    "file": "the split of a file",
}
RC: dict[str, Any] = {
    "font.size": 10.0,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "text.parse_math": False,
    "text.usetex": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.dpi": DPI,
    "lines.solid_capstyle": "round",
    "path.simplify": True,
}


def feature_label(feature: str) -> str:
    """A feature's name in words."""
    kind, layer = Feature.stored(feature).kind, Feature.stored(feature).layer
    words = _FEATURE_LABELS.get(kind, kind.replace("_", " "))
    return words if layer is None else f"{words} {layer}"


def feature_rank(feature: str) -> tuple[int, int, str]:
    """Where a feature stands among others: the known ones in their order, then by name."""
    known, one = list(_FEATURE_LABELS), Feature.stored(feature)
    return known.index(one.kind) if one.kind in known else len(known), one.layer or 0, feature


def split_label(split: str) -> str:
    """A split's name in words."""
    return _SPLIT_LABELS.get(split, split.replace("_", " "))


def format_value(metric: str, value: float) -> str:
    """A score as text: shares in per cent, others with two or three decimals."""
    if not math.isfinite(value):
        return "–"
    if measure(metric).is_share:
        return f"{round(100 * value, 1) + 0.0:.1f}{PER_CENT}".replace("-", "−")
    digits = 2 if abs(value) >= 0.1 else 3
    # Adding 0 to the rounded value keeps a minus sign away from zero.
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def format_score(metric: str, s: Score) -> str:
    """A score as text, with its interval in brackets where it has one."""
    value = format_value(metric, s.value)
    if not (math.isfinite(s.ci_low) and math.isfinite(s.ci_high)):
        return value
    low = format_value(metric, s.ci_low).removesuffix(PER_CENT)
    return f"{value} [{low} to {format_value(metric, s.ci_high)}]"


def printable(name: str) -> str:
    """A name in one line: control characters are spelt out, characters that are none a sign."""
    text = visible(" ".join(name.split()))
    return "".join(c if c.isprintable() or c in _JOINERS else "�" for c in text) or "–"


def short(name: str, limit: int) -> str:
    """A printable name of at most ``limit`` characters, cut with an ellipsis."""
    name = printable(name)
    return name if len(name) <= limit else name[: max(1, limit - 1)].rstrip() + "…"


def text(ax: Axes, x: float, y: float, content: str, **kwargs: Any) -> Text:
    """Put text that comes from data on axes: never read as mathematical notation."""
    return ax.text(x, y, content, parse_math=False, **kwargs)


def heading(figure: Figure, title: str, subtitle: str = "", *, left: float = 0.03) -> float:
    """Write title and subtitle at the top left, wrapped to the figure's width.

    Args:
        figure: The figure.
        title: Bold first line.
        subtitle: Smaller grey text below it.
        left: Left edge in inches.

    Returns:
        Height in inches that the two take, from the top edge.
    """
    width, height = figure.get_size_inches()
    used = 0.10
    for content, size, weight, colour in (
        (title, 11.5, "bold", INK),
        (subtitle, 8.8, "normal", MUTED),
    ):
        for line in _wrap(figure, content, size, weight, width - left - 0.1):
            figure.text(
                left / width,
                1 - used / height,
                line,
                size=size,
                weight=weight,
                color=colour,
                va="top",
                parse_math=False,
            )
            used += size * 1.35 / 72
    return used + 0.08


def text_width(figure: Figure, content: str, size: float, weight: str = "normal") -> float:
    """Width of a line of text in inches."""
    from matplotlib.text import Text

    probe = Text(0, 0, content, size=size, weight=weight, parse_math=False, figure=figure)
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    return float(probe.get_window_extent(renderer).width) / float(figure.dpi)


def fit(figure: Figure, content: str, width: float, size: float, weight: str = "normal") -> str:
    """A name shortened until it is at most ``width`` inches wide."""
    content = printable(content)

    def wide(limit: int) -> float:
        return text_width(figure, short(content, limit), size, weight)

    most = min(60, len(content))
    return short(
        content, 60 if wide(60) <= width else 1 + bisect(range(2, most + 1), width, key=wide)
    )


def _wrap(figure: Figure, content: str, size: float, weight: str, width: float) -> list[str]:
    lines: list[str] = []
    for word in content.split(" "):
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(figure, joined, size, weight) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines


def spread(
    positions: Sequence[float], gap: float, low: float, high: float
) -> npt.NDArray[np.float64]:
    """Move labels apart along one axis, each as little as possible.

    Least squares under ``y[i + 1] - y[i] >= gap``, which is isotonic regression of
    ``y[i] - i * gap``.

    Args:
        positions: Wanted positions, in any order.
        gap: Smallest distance between neighbours; reduced where the room is too small.
        low: Lowest position allowed.
        high: Highest position allowed.

    Returns:
        New positions, in the order given.
    """
    from scipy.optimize import isotonic_regression

    wanted = np.asarray(positions, dtype=np.float64)
    if len(wanted) > 1:
        gap = min(gap, max(0.0, high - low) / (len(wanted) - 1))
    order = np.argsort(wanted, kind="stable")
    offsets = gap * np.arange(len(wanted))
    fitted = isotonic_regression(wanted[order] - offsets).x
    result = np.empty(len(wanted))
    result[order] = np.clip(fitted, low, max(low, high - offsets[-1])) + offsets
    return result


def labels_at(values: Sequence[int], most: int) -> list[int]:
    """A regular selection of at most ``most`` tick values, with first and last kept."""
    values = list(values)
    if len(values) <= most:
        return values
    for step in (2, 4, 5, 8, 10, 16, 20, 25, 50, 100):
        chosen = values[::step]
        if len(chosen) <= most:
            break
    if values[-1] != chosen[-1]:
        if values[-1] - chosen[-1] < 0.6 * (chosen[1] - chosen[0]):
            chosen.pop()
        chosen.append(values[-1])
    return chosen
