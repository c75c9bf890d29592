"""How the runs of a comparison are told apart: colours, marks, dashes and their legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from signbridge.report.compare.runs import Run, legend_texts
from signbridge.report.figures import style

if TYPE_CHECKING:
    from signbridge.report.figures.plot import Canvas

__all__ = ["LEGEND_ROW", "draw_legend", "looks"]

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


def looks(number: int) -> tuple[str, str, Any]:
    """Colour, marker and dashes of a run."""
    name = _COLOURS[number]
    colour = style.INK if name == "ink" else style.COLOURS[name]
    return colour, _MARKERS[number], _DASHES[number]


def draw_legend(canvas: Canvas, runs: Sequence[Run], left: float) -> None:
    """Draw one line a run at the bottom of the figure."""
    from matplotlib.lines import Line2D

    figure, width, height = canvas.figure, canvas.width, canvas.height
    for number, words in enumerate(legend_texts(runs)):
        colour, marker, dashes = looks(number)
        y = (0.08 + LEGEND_ROW * (len(runs) - number - 0.5)) / height
        figure.add_artist(
            Line2D(
                [left / width, (left + 0.22) / width, (left + 0.44) / width], [y, y, y],
                color=colour, linestyle=dashes, linewidth=2, marker=marker, markevery=[1],
                markersize=4.5,
            )
        )  # fmt: skip
        name = style.fit(figure, words, width - left - 0.7, 9)
        figure.text((left + 0.56) / width, y, name, size=9, va="center", parse_math=False)
