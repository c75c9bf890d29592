"""Fill a page's template: one file, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from signbridge import __version__
from signbridge.runtime.terminal import visible

if TYPE_CHECKING:
    from signbridge.report.figures.plot import Drawing, Plot

__all__ = ["fill_template", "pairs", "plot_words", "thumbnails", "words"]

_MOST_THUMBNAILS = 1200
_SHEET_COLUMNS = 40


def fill_template(name: str, **content: Any) -> str:
    """Make a page.

    Everything that comes from data is escaped by the template engine; scripts and styles other than
    the page's own, and any network access, are refused by its content security policy.

    Args:
        name: The template's file.
        content: Its variables.

    Returns:
        HTML text.
    """
    import jinja2
    from markupsafe import Markup

    css = _asset("report.css")
    scripts = [_asset(name) for name in ("../vendor/echarts.min.js", "chart.js", "report.js")]
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
        loader=jinja2.FunctionLoader(_asset),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(
        policy=(
            "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
            f"style-src {_hash(css)}; script-src {' '.join(map(_hash, scripts))}"
        ),
        version=__version__,
        css=Markup(css),
        scripts=[Markup(script) for script in scripts],
        **content,
    )


def _visible(value: Any) -> Any:
    """Text from data with its control characters spelt out; lines stay lines."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "\n".join(map(visible, value.split("\n")))


def _asset(name: str) -> str:
    return (resources.files("signbridge.report") / "templates" / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def plot_words(plot: Plot, place: Mapping[int, int]) -> dict[str, Any]:
    """What the template needs of a figure.

    Args:
        plot: The figure.
        place: Place of each sample in the sheet of thumbnails.

    Returns:
        Text and data URIs by name.
    """
    from markupsafe import Markup

    chart = plot.chart
    return {
        "name": plot.name,
        "title": plot.title,
        "caption": plot.caption,
        "alt": plot.alt,
        "csv": _uri(plot.csv().encode(), "text/csv;charset=utf-8"),
        "wide": _uri(plot.wide.png, "image/png"),
        "wide_size": (plot.wide.width, plot.wide.height),
        "wide_spots": _spots(plot.wide, place),
        "narrow": _uri(plot.narrow.png, "image/png"),
        "narrow_size": (plot.narrow.width, plot.narrow.height),
        "narrow_spots": _spots(plot.narrow, place),
        "chart": None if chart is None else Markup(chart.json()),
        "frames": [] if chart is None else [name for name, _ in chart.frames],
        "frame": 0 if chart is None else chart.frame,
    }


def _spots(drawing: Drawing, place: Mapping[int, int]) -> str:
    spots = []
    for s in drawing.spots:
        spot: list[object] = [round(1e4 * v) for v in (s.x, s.y, s.width, s.height)]
        spot.append(_visible(s.text))
        if s.thumbnail is not None and s.thumbnail in place:
            spot.append(place[s.thumbnail])
        spots.append(spot)
    return json.dumps(spots, ensure_ascii=False, separators=(",", ":"))


def thumbnails(
    plots: Iterable[Plot], pixels: npt.NDArray[np.uint8] | None
) -> tuple[dict[str, Any] | None, dict[int, int]]:
    """Put the small images that the pointer shows into one picture.

    Returns:
        The sheet (None without images) and the place of each sample in it. Where the figures name
        more samples than a page should carry, only those of figures with few of them are kept.
    """
    wanted: dict[int, int] = {}
    if pixels is None:
        return None, wanted
    for plot in plots:
        rows = {s.thumbnail for s in plot.wide.spots if s.thumbnail is not None}
        new = rows - wanted.keys()
        if len(wanted) + len(new) <= _MOST_THUMBNAILS:
            wanted |= {row: len(wanted) + i for i, row in enumerate(sorted(new))}
    if not wanted:
        return None, wanted
    from PIL import Image

    edge = math.isqrt(pixels.shape[1])
    rows_of_sheet = math.ceil(len(wanted) / _SHEET_COLUMNS)
    sheet = np.full((rows_of_sheet * edge, _SHEET_COLUMNS * edge), 255, dtype=np.uint8)
    for row, i in wanted.items():
        y, x = (i // _SHEET_COLUMNS) * edge, (i % _SHEET_COLUMNS) * edge
        sheet[y : y + edge, x : x + edge] = pixels[row, : edge * edge].reshape(edge, edge)
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "PNG", optimize=True)
    return {
        "uri": _uri(buffer.getvalue(), "image/png"),
        "columns": _SHEET_COLUMNS,
        "rows": rows_of_sheet,
    }, wanted


def pairs(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values as text, those without a value left out."""
    return [
        (str(key).replace("_", " "), words(value))
        for key, value in values.items()
        if value is not None and value not in ("", [], {}, ())
    ]


def words(value: Any) -> str:
    """A value of JSON as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(words(v) for v in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{k}: {words(v)}" for k, v in value.items()) or "none"
    return str(value)
