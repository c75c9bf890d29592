"""Fill a page's template: one file, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

from signbridge import __version__
from signbridge.report.figures.chart import embedded
from signbridge.report.text.tables import Table
from signbridge.results.format import FIGURES_FOLDER
from signbridge.runtime.terminal import visible

if TYPE_CHECKING:
    from signbridge.report.figures.plot import Drawing, Plot

_LARGEST_TABLE = 500_000  # bytes; a larger one is a link to the file beside the page

__all__ = ["fill_template", "pairs", "plot_words", "section", "words"]


def fill_template(
    name: str,
    *,
    scripts: Iterable[str] = (),
    pictures: Mapping[int, str] | None = None,
    **content: Any,
) -> str:
    """Make a page.

    Everything that comes from data is escaped by the template engine; scripts and styles other than
    the page's own, and any network access, are refused by its content security policy.

    Args:
        name: The template's file.
        scripts: Further files of ``templates`` that the page runs.
        pictures: Small pictures as data URIs, by row, which charts and pictures show.
        content: Its variables.

    Returns:
        HTML text.
    """
    import jinja2
    from markupsafe import Markup

    css = _asset("report.css")
    files = dict.fromkeys(
        ("shared.js", "../vendor/echarts.min.js", "chart.js", "report.js", *scripts)
    )
    run = [_asset(file) for file in files]
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
            f"style-src {_hash(css)}; script-src {' '.join(map(_hash, run))}"
        ),
        version=__version__,
        css=Markup(css),
        scripts=[Markup(script) for script in run],
        pictures=Markup(embedded(pictures or {})),
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


def plot_words(plot: Plot) -> dict[str, Any]:
    """What the template needs of a figure.

    Args:
        plot: The figure.

    Returns:
        Text and data URIs by name.
    """
    from markupsafe import Markup

    chart, csv = plot.chart, plot.csv().encode()
    return {
        "name": plot.name,
        "title": plot.title,
        "caption": plot.caption,
        "alt": plot.alt,
        "csv": _uri(csv, "text/csv;charset=utf-8")
        if len(csv) < _LARGEST_TABLE
        else f"{FIGURES_FOLDER}/{plot.name}.csv",
        "picture": _uri(plot.narrow.png, "image/png"),
        "size": (plot.narrow.width, plot.narrow.height),
        "spots": "[]" if chart else _spots(plot.narrow),
        "chart": None if chart is None else Markup(chart.json()),
        "frames": [] if chart is None else [name for name, _ in chart.frames],
        "frame": 0 if chart is None else chart.frame,
    }


def section(
    name: str,
    title: str,
    content: Any = None,
    template: str = "",
    *,
    plot: Plot | None = None,
    note: str = "",
    closed: bool = False,
    wide: bool = False,
) -> dict[str, Any]:
    """What the template needs of a section that opens.

    Args:
        name: Its anchor.
        title: Its heading.
        content: What it shows besides a figure.
        template: How; by default a :class:`Table` as a table, pairs as a list of them, and text.
        plot: Its figure.
        note: A sentence below the figure.
        closed: Whether it is closed at first, and not printed.
        wide: Whether it takes the whole width of the page.
    """
    kinds = {Table: "table", list: "pairs"}
    return {
        "name": name,
        "title": title,
        "plot": None if plot is None else plot_words(plot),
        "note": note,
        "content": content,
        "template": template or kinds.get(type(content), "text"),
        "closed": closed,
        "wide": wide,
    }


def _spots(drawing: Drawing) -> str:
    spots = []
    for s in drawing.spots:
        spot: list[object] = [round(1e4 * v) for v in (s.x, s.y, s.width, s.height)]
        spot.append(_visible(s.text))
        if s.thumbnail is not None:
            spot.append(s.thumbnail)
        spots.append(spot)
    return json.dumps(spots, ensure_ascii=False, separators=(",", ":"))


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
