"""How the runs of a comparison are told apart: colours, marks, dashes and their legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from signbridge.report.compare.runs import Run, legend_texts
from signbridge.report.figures import style

if TYPE_CHECKING:
    from signbridge.report.figures.plot import Canvas

__all__ = ["LEGEND_ROW", "draw_legend", "run_style"]

_COLOURS = ("blue", "vermillion", "green", "purple", "orange", "sky", "grey", "ink")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 2)),
    (0, (3, 1, 1, 1)),
    (0, (1, 1)),
    (0, (7, 2)),
    (0, (3, 3)),
    (0, (6, 1.5, 1, 1.5)),
    (0, (2, 1)),
)
LEGEND_ROW = 0.21  # inches of one line of a legend


def run_style(number: int) -> tuple[str, str, Any]:
    """Colour, marker and dashes of a run."""
    name = _COLOURS[number]
    colour = style.INK if name == "ink" else style.COLOURS[name]
    return colour, _MARKERS[number], _DASHES[number]


def draw_legend(canvas: Canvas, runs: Sequence[Run], left: float) -> None:
    """Draw one line a run at the bottom of the figure."""
    entries = []
    for number, words in enumerate(legend_texts(runs)):
        colour, marker, dashes = run_style(number)
        look = {"color": colour, "linestyle": dashes, "marker": marker, "markersize": 4.5}
        entries.append((words, "normal", look))
    canvas.legend(entries, left, LEGEND_ROW)
