"""Fill the page's template: one file, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from signbridge import __version__
from signbridge.report import style
from signbridge.report.classes import top_confusions
from signbridge.report.findings import describe_data, find
from signbridge.report.tables import Cell, Row, score_rows, shown_metrics

if TYPE_CHECKING:
    from signbridge.report.plot import Drawing, Plot
    from signbridge.report.results import Results

__all__ = ["render_page"]

_MOST_THUMBNAILS = 1200
_SHEET_COLUMNS = 40
# Shown in words elsewhere on the page.
_NOT_IN_PROTOCOL = frozenset({"description"})


def render_page(
    results: Results,
    plots: Sequence[Plot],
    pixels: npt.NDArray[np.uint8] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Make the page.

    Everything that comes from data is escaped by the template engine; scripts and styles other than
    the page's own, and any network access, are refused by its content security policy.

    Args:
        results: A results folder.
        plots: The figures, the most important one first.
        pixels: (n, p) grey images in the order of the predictions, for the thumbnails.
        notes: Further warnings.

    Returns:
        HTML text.
    """
    import jinja2
    from markupsafe import Markup

    css, js = _asset("report.css"), _asset("report.js")
    findings = find(results)
    sheet, place = _thumbnails(plots, pixels)
    metrics = shown_metrics(results)
    others = [s for s in results.splits[1:] if any(x.split == s for x in results.scores)]
    names = results.class_names
    shown = [_plot(plot, place) for plot in plots]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_asset("report.html.j2")).render(
        policy=(
            "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
            f"style-src {_hash(css)}; script-src {_hash(js)}"
        ),
        version=__version__,
        title=_title(results),
        css=Markup(css),
        js=Markup(js),
        curve=shown[0],
        plots=shown[1:],
        findings=findings,
        warnings=(*findings.warnings, *notes),
        data=describe_data(results),
        confusions=[(names[t], names[p], c, n) for t, p, c, n in top_confusions(results)],
        description=str(results.protocol.get("description", "")),
        protocol=_pairs({k: v for k, v in results.protocol.items() if k not in _NOT_IN_PROTOCOL}),
        score_note=_score_note(results, others),
        heads=_heads(metrics, others),
        rows=_rows(results, metrics, others),
        provenance=_provenance(results),
        command=str(results.summary.get("command") or ""),
        created=str(results.summary.get("created") or ""),
        sheet=sheet,
    )


def _asset(name: str) -> str:
    return (resources.files("signbridge.report") / "templates" / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _title(results: Results) -> str:
    store = results.store
    model = results.provenance.get("model") or store.get("name") or results.path.name
    images = results.provenance.get("image_source")
    return style.printable(f"{model} on {images}" if images else str(model))


def _plot(plot: Plot, place: Mapping[int, int]) -> dict[str, Any]:
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
    }


def _spots(drawing: Drawing, place: Mapping[int, int]) -> str:
    spots = []
    for s in drawing.spots:
        spot: list[object] = [round(1e4 * v) for v in (s.x, s.y, s.width, s.height)]
        spot.append(s.text)
        if s.thumbnail is not None and s.thumbnail in place:
            spot.append(place[s.thumbnail])
        spots.append(spot)
    return json.dumps(spots, ensure_ascii=False, separators=(",", ":"))


def _thumbnails(
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


def _head(metric: str) -> str:
    label = style.METRIC_LABELS.get(metric, metric.replace("_", " "))
    return f"{label} %" if metric in style.SHARES else label


def _heads(metrics: Sequence[str], others: Sequence[str]) -> list[str]:
    """Column heads: the other splits' accuracy stands beside the main one."""
    heads = [_head(m) for m in metrics]
    return heads[:1] + [f"{style.split_label(split)} %" for split in others] + heads[1:]


def _rows(results: Results, metrics: Sequence[str], others: Sequence[str]) -> list[Row]:
    rows = score_rows(results, metrics)
    for at, split in enumerate(others, start=1):
        by_name = {row.name: row for row in score_rows(results, ["accuracy"], split)}
        rows = [
            Row(
                row.name,
                row.layer,
                row.best,
                (
                    *row.cells[:at],
                    *(by_name[row.name].cells if row.name in by_name else (Cell("–"),)),
                    *row.cells[at:],
                ),
            )
            for row in rows
        ]
    return rows


def _score_note(results: Results, others: Sequence[str]) -> str:
    text = (
        f"Held-out scores with {style.split_label(results.split)}; small figures: 95 % interval. "
        "Layers count from 0. The best layer is marked."
    )
    tested = {s.n_test for s in results.scores if s.split == results.split and s.n_test}
    if len(tested) == 1:
        text += f" {tested.pop():,} images scored."
    for split in others:
        scored = {s.n_test for s in results.scores if s.split == split and s.n_test}
        if len(scored) == 1:
            text += f" {style.split_label(split).capitalize()}: {scored.pop():,} images scored."
    return text


def _provenance(results: Results) -> list[tuple[str, str]]:
    store = results.store
    pairs: dict[str, Any] = {"activation store": store.get("path")}
    pairs |= results.provenance
    pairs["store fingerprint"] = store.get("fingerprint")
    versions = results.summary.get("versions")
    if isinstance(versions, dict):
        pairs["library versions"] = ", ".join(f"{k} {v}" for k, v in versions.items())
    return _pairs(pairs)


def _pairs(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (str(key).replace("_", " "), _words(value))
        for key, value in values.items()
        if value is not None and value != ""
    ]


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_words(v) for v in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{k}: {_words(v)}" for k, v in value.items()) or "none"
    return str(value)
