"""A figure: how it is built, its picture in two widths, its data and what the pointer shows.

A figure's file holds a function that draws on a :class:`Canvas` and one that gives it, its words
and its rows to :func:`build`. ``registry.py`` lists the figures of the report.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from signbridge.report.figures import fonts, style
from signbridge.report.figures.chart import Chart
from signbridge.runtime.files import replace_file
from signbridge.runtime.tables import csv_text
from signbridge.runtime.terminal import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["NARROW", "WIDE", "Canvas", "Drawing", "Plot", "Spot", "build", "render"]

WIDE = 8.0
"""Inches of a picture for a screen or paper."""
NARROW = 4.2
"""Inches of a picture for a phone."""

Range = float | tuple[float, float]


@dataclass(frozen=True)
class Spot:
    """An area of a picture that answers to the pointer.

    Attributes:
        x: Left edge, as a fraction of the picture's width.
        y: Top edge, as a fraction of the picture's height.
        width: Width, as a fraction of the picture's width; 0 with ``height`` 0 for a point.
        height: Height, as a fraction of the picture's height.
        text: What to show; lines are parted by line breaks.
        thumbnail: Row of the image to show, or None.
    """

    x: float
    y: float
    width: float
    height: float
    text: str
    thumbnail: int | None = None


@dataclass(frozen=True)
class Drawing:
    """A picture as PNG bytes with its size in pixels and its pointer areas.

    ``missing`` are the characters that it shows as boxes.
    """

    png: bytes
    width: int
    height: int
    spots: tuple[Spot, ...] = ()
    missing: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Plot:
    """A figure of the report.

    Attributes:
        name: File name without suffix.
        title: A heading in words.
        caption: How to read it, in one to three sentences.
        alt: What the picture shows, for those who do not see it.
        wide: The picture for a screen or paper.
        narrow: The picture for a phone.
        columns: Column names of the data behind it.
        rows: The data behind it.
        chart: What a screen shows instead of the picture, or None.
    """

    name: str
    title: str
    caption: str
    alt: str
    wide: Drawing
    narrow: Drawing
    columns: tuple[str, ...]
    rows: tuple[Sequence[object], ...]
    chart: Chart | None = None

    def csv(self) -> str:
        """The data behind the figure as CSV text."""
        return csv_text(self.columns, self.rows)

    def save(self, folder: Path) -> Path:
        """Write ``NAME.png`` (the wide picture) and ``NAME.csv``.

        Args:
            folder: Where to; made if it does not exist.

        Returns:
            Path of the PNG.
        """
        folder.mkdir(parents=True, exist_ok=True)
        picture = folder / f"{self.name}.png"
        replace_file(picture, self.wide.png, durable=False)
        replace_file(folder / f"{self.name}.csv", self.csv().encode(), durable=False)
        return picture


class Canvas:
    """An empty picture, measured in inches from its top left corner.

    Attributes:
        figure: Matplotlib's figure.
        width: Its width in inches.
        height: Its height in inches.
        narrow: Whether it is drawn for a phone.
        top: Height that title and subtitle take.
        spots: The areas that answer to the pointer.
    """

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self.width, self.height = figure.get_size_inches()
        self.narrow = self.width < 6
        self.top = 0.0
        self.spots: list[Spot] = []

    def heading(self, title: str, subtitle: str = "") -> None:
        """Write title and subtitle at the top left, and set ``top`` to what they take."""
        self.top = style.heading(self.figure, title, subtitle)

    def axes(self, left: float, top: float, width: float, height: float) -> Any:
        """Axes whose frame lies here."""
        return self.figure.add_axes(
            (
                left / self.width,
                1 - (top + height) / self.height,
                width / self.width,
                height / self.height,
            )
        )

    def axes_between(self, left: float, right: float, bottom: float) -> Any:
        """Axes that leave these inches free, and what the heading takes at the top."""
        return self.axes(left, self.top, self.width - left - right, self.height - self.top - bottom)

    def legend(
        self, entries: Sequence[tuple[str, str, Mapping[str, Any]]], left: float, row: float
    ) -> None:
        """Name lines at the bottom of the picture, one below the other.

        Args:
            entries: Text, its weight and the look of the line, as of matplotlib's ``Line2D``.
            left: Inches left of the legend.
            row: Inches of each entry.
        """
        from matplotlib.lines import Line2D

        for i, (words, weight, look) in enumerate(entries):
            y = (0.06 + row * (len(entries) - i - 0.5)) / self.height
            x = [(left + part) / self.width for part in (0, 0.22, 0.44)]
            self.figure.add_artist(Line2D(x, [y] * 3, linewidth=2, markevery=[1], **look))
            name = style.fit(self.figure, words, self.width - left - 0.7, 9, weight)
            self.figure.text(
                (left + 0.56) / self.width, y, name, size=9, weight=weight, va="center",
                parse_math=False,
            )  # fmt: skip

    def spot(
        self, ax: Any, x: Range | None, y: Range, text: str, thumbnail: int | None = None
    ) -> None:
        """Let an area of axes answer to the pointer.

        Args:
            ax: Axes with linear scales, their limits set.
            x: Where it lies, in data units: a point, a range (cut at the axes' ends), or None for
                the whole width of the picture.
            y: The same upwards.
            text: What to show.
            thumbnail: Row of the image to show.
        """
        box = ax.get_position()
        if isinstance(x, tuple):
            x = (_clip(ax.get_xlim(), x[0]), _clip(ax.get_xlim(), x[1]))
        if isinstance(y, tuple):
            y = (_clip(ax.get_ylim(), y[0]), _clip(ax.get_ylim(), y[1]))
        xs = [0.0, 1.0]
        if x is not None:
            xs = [box.x0 + box.width * _share(ax.get_xlim(), v) for v in _ends(x)]
        ys = [1 - box.y0 - box.height * _share(ax.get_ylim(), v) for v in _ends(y)]
        self.spots.append(
            Spot(min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys), text, thumbnail)
        )

    def layer_spots(
        self, ax: Any, layers: Sequence[int], text: Callable[[int], str | None]
    ) -> None:
        """Let each layer answer to the pointer, as high as the axes.

        Args:
            ax: Axes whose x is the layer.
            layers: The layers, ascending.
            text: What to show of a layer; nothing where that is None or empty.
        """
        between = [(a + b) / 2 for a, b in itertools.pairwise(layers)]
        edges = [layers[0] - 0.5, *between, layers[-1] + 0.5]
        for layer, ends in zip(layers, itertools.pairwise(edges), strict=True):
            if words := text(layer):
                self.spot(ax, ends, ax.get_ylim(), words)


def _ends(values: Range) -> tuple[float, ...]:
    return values if isinstance(values, tuple) else (values,)


def _share(limits: tuple[float, float], value: float) -> float:
    return (value - limits[0]) / (limits[1] - limits[0])


def _clip(limits: tuple[float, float], value: float) -> float:
    return min(max(value, min(limits)), max(limits))


def build(
    name: str,
    draw: Callable[[Canvas], None],
    *,
    title: str,
    caption: str,
    alt: str,
    height: float | tuple[float, float],
    columns: Sequence[str],
    rows: Iterable[object],
    chart: Chart | None = None,
) -> Plot:
    """Draw a figure in both widths.

    Args:
        name: File name without suffix.
        draw: Draws on an empty canvas.
        title: A heading in words.
        caption: How to read it, in one to three sentences.
        alt: What the picture shows, for those who do not see it.
        height: Inches of both pictures, or of the wide and of the narrow one.
        columns: Column names of the data behind it.
        rows: The data behind it: sequences of values, or objects with the columns as attributes.
            What is None or NaN is an empty cell.
        chart: What a screen shows instead of the picture, or None.

    Returns:
        The figure.
    """
    wide, narrow = height if isinstance(height, tuple) else (height, height)
    return Plot(
        name=name,
        title=title,
        caption=caption,
        alt=alt,
        wide=render(draw, WIDE, wide),
        narrow=render(draw, NARROW, narrow),
        columns=tuple(columns),
        rows=tuple(tuple(map(_cell, _values(row, columns))) for row in rows),
        chart=chart,
    )


def _values(row: object, columns: Sequence[str]) -> Iterable[object]:
    return row if isinstance(row, tuple) else (getattr(row, column) for column in columns)


def _cell(value: object) -> object:
    if isinstance(value, str):
        return visible(value)
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def render(
    draw: Callable[[Canvas], object], width: float, height: float, *, dpi: int = style.DPI
) -> Drawing:
    """Draw a picture and return it as PNG bytes.

    Matplotlib's settings are the library's defaults plus this package's for the time of drawing,
    whatever the caller's settings are, and are put back afterwards.

    Args:
        draw: Draws on an empty canvas.
        width: Width in inches.
        height: Height in inches.
        dpi: Pixels an inch.

    Returns:
        The picture and its areas.
    """
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    while True:
        with (
            matplotlib.style.context(["default", {**style.RC, "font.family": fonts.families()}]),
            fonts.missing_characters() as missing,
        ):
            figure = Figure(figsize=(width, height), dpi=dpi)
            FigureCanvasAgg(figure)
            canvas = Canvas(figure)
            draw(canvas)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": "SignBridge"})
        if not fonts.find_for(missing):
            break
    size = round(width * dpi), round(height * dpi)
    return Drawing(buffer.getvalue(), *size, tuple(canvas.spots), frozenset(missing))
