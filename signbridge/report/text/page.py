"""The words and tables of a results folder's page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from signbridge.report.classes import top_confusions
from signbridge.report.figures import style
from signbridge.report.figures.axes import points
from signbridge.report.figures.differences import family_label
from signbridge.report.groups import few_names
from signbridge.report.template import fill_template, pairs, plot_words
from signbridge.report.text.findings import describe_data, find
from signbridge.report.text.key_figures import key_figures, points_interval
from signbridge.report.text.said import class_answers
from signbridge.report.text.tables import Cell, Row, group_cells, score_rows, shown_metrics
from signbridge.results.comparisons import p_text
from signbridge.results.records import to_json
from signbridge.runtime.words import listed
from signbridge.statistics.metrics import measure
from signbridge.store.provenance import grouping
from signbridge.store.settings import SETTINGS, summary_of_settings

if TYPE_CHECKING:
    from signbridge.report.figures.plot import Plot
    from signbridge.report.images import Browser
    from signbridge.results.results import Results
    from signbridge.results.summary import SklearnDefault

__all__ = ["against_rows", "fit_rows", "render_page", "title"]


def render_page(
    results: Results,
    plots: Sequence[Plot],
    images: Browser | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Make the page.

    Everything that comes from data is escaped by the template engine; scripts and styles other than
    the page's own, and any network access, are refused by its content security policy.

    Args:
        results: A results folder.
        plots: The figures, the most important one first.
        images: The images that are shown one by one, or None.
        notes: Further warnings.

    Returns:
        HTML text.
    """
    findings = find(results)
    metrics = shown_metrics(results)
    others = [s for s in results.splits[1:] if any(x.split == s for x in results.scores)]
    names = results.class_names
    shown = [plot_words(plot) for plot in plots]
    heads, rows = _scores(results, metrics, others)
    return fill_template(
        "report.html.j2",
        title=title(results),
        question=_question(results),
        figures=key_figures(results),
        curve=shown[0],
        plots=shown[1:],
        against=against_rows(results),
        answers=class_answers(results),
        fits=fit_rows(results),
        findings=findings,
        warnings=(*findings.warnings, *notes),
        data=describe_data(results),
        confusions=[(names[t], names[p], c, n) for t, p, c, n in top_confusions(results)],
        description=results.protocol.description,
        protocol=pairs(to_json(replace(results.protocol, description=""))),
        score_note=_score_note(results, others),
        heads=heads,
        rows=rows,
        provenance=_provenance(results),
        command="\n".join(filter(None, (*results.store.commands, results.summary.command))),
        created=results.summary.created,
        images=images,
        pictures=None if images is None else images.pictures,
    )


def title(results: Results) -> str:
    """Model and images in a few words."""
    model = results.provenance.get("model") or results.store.name or results.path.name
    images = results.provenance.get("image_source")
    return style.printable(f"{model} on {images}" if images else str(model))


def _head(metric: str) -> str:
    label = measure(metric).label
    return f"{label} %" if measure(metric).is_share else label


def _scores(
    results: Results, metrics: Sequence[str], others: Sequence[str]
) -> tuple[list[str], list[Row]]:
    """The table of scores: beside the accuracy stand that of other splits, and of a few groups."""
    rows = score_rows(results, metrics)
    beside: list[tuple[str, tuple[Cell, ...]]] = []
    for split in others:
        cells = {row.name: row.cells[0] for row in score_rows(results, ["accuracy"], split)}
        head = f"{style.split_label(split)} %"
        beside.append((head, tuple(cells.get(row.name, Cell("–")) for row in rows)))
    beside += [(f"{name} %", cells) for name, cells in group_cells(results, rows)]
    heads = [_head(m) for m in metrics]
    return (
        [*heads[:1], *(head for head, _ in beside), *heads[1:]],
        [
            replace(row, cells=(*row.cells[:1], *(c[i] for _, c in beside), *row.cells[1:]))
            for i, row in enumerate(rows)
        ],
    )


def _score_note(results: Results, others: Sequence[str]) -> str:
    text = (
        f"Held-out scores with {style.split_label(results.split)}; small figures: 95 % interval. "
        "Layers count from 0. The best layer is marked."
    )
    if names := few_names(results):
        one = grouping(results.provenance).one.partition(" ")[2]
        text += f" {listed([style.printable(name) for name in names])}: accuracy of each {one}."
    tested = {s.n_test for s in results.scores if s.split == results.split and s.n_test}
    if len(tested) == 1:
        text += f" {tested.pop():,} images scored."
    for split in others:
        scored = {s.n_test for s in results.scores if s.split == split and s.n_test}
        if len(scored) == 1:
            text += f" {style.split_label(split).capitalize()}: {scored.pop():,} images scored."
    return text


def _provenance(results: Results) -> list[tuple[str, str]]:
    store, summary = results.store, results.summary
    found: dict[str, Any] = {"activation store": store.path}
    found |= {
        key: summary_of_settings(value) if key in SETTINGS else value
        for key, value in results.provenance.items()
    }
    found["store fingerprint"] = store.fingerprint
    found |= {f"random weights: {key}": value for key, value in (summary.control or {}).items()}
    found["library versions"] = ", ".join(f"{k} {v}" for k, v in summary.versions.items())
    return pairs(found)


def _question(results: Results) -> str:
    """What was asked, in one sentence."""
    words = grouping(results.provenance)
    position = _POSITIONS.get(str(results.provenance.get("position")), "the residual stream")
    new = {
        "near_duplicates": "photographs that it has not seen",
        "signers": "signers that it has not seen",
        "none": "images that it has not seen",
    }.get(words.kind, "groups of images that it has not seen")
    if results.split == "random":
        new = "images that it has not seen, copies of which it may have"
    return (
        f"How well does a linear probe read which of {len(results.class_names):,} classes an image "
        f"shows from {position}, in {new}, and is that more than the image itself gives away?"
    )


_POSITIONS = {
    "last_prompt": "the residual stream at the last token of the prompt",
    "last_generated": "the residual stream in the last pass of the answer",
    "image_mean": "the mean of the residual stream over the image's tokens",
}


@dataclass(frozen=True)
class _Against:
    """One row of the table of comparisons, as text."""

    what: str
    difference: str
    interval: str
    p: str
    corrected: str
    count: str


def against_rows(results: Results) -> list[_Against]:
    """The best layer's rows of ``comparisons.csv``."""
    rows = []
    for c in results.comparisons:
        if c.layer != results.best_layer or c.metric != "accuracy":
            continue
        if c.family == "layers_vs_peak" or not math.isfinite(c.difference):
            continue
        rows.append(
            _Against(
                family_label(c.family),
                points(c.difference),
                points_interval(c.ci_low, c.ci_high),
                p_text(c.p, "").lstrip(" ="),
                p_text(c.p_corrected, "").lstrip(" ="),
                "" if c.n_comparisons is None else str(c.n_comparisons),
            )
        )
    return rows


def _limits(default: SklearnDefault) -> str | None:
    """What may stop scikit-learn's fits: steps and tolerance, where the results give them."""
    tol = default.tol if math.isfinite(default.tol) else None
    found = {"max_iter": default.max_iter, "tol": tol}
    return ", ".join(f"{k}={v:g}" for k, v in found.items() if v is not None) or None


def fit_rows(results: Results) -> list[tuple[str, str]]:
    """What is known about how well the probes were fitted."""
    found: dict[str, Any] = {}
    default = results.summary.sklearn_default
    if default is not None:
        for name, value in (
            ("accuracy at the optimum", default.optimum_accuracy),
            ("accuracy of scikit-learn's default fit", default.accuracy),
            ("images with the same answer", default.agreement),
        ):
            if math.isfinite(value):
                found[name] = style.format_value("accuracy", value)
        found["its steps in each fold"] = list(default.n_iter) or None
        found["its limits"] = _limits(default)
    for name, part in (
        ("training in batches", results.summary.sgd),
        ("description length", results.summary.description_length),
    ):
        # The records of single fits are too long for the page.
        shown = {} if part is None else {k: v for k, v in to_json(part).items() if k != "fits"}
        found |= {f"{name}: {key.replace('_', ' ')}": value for key, value in shown.items()}
    return pairs(found)
