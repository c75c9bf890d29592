"""The words and tables of a results folder's page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from signbridge.report.classes import top_confusions
from signbridge.report.figures import style
from signbridge.report.figures.axes import points
from signbridge.report.figures.differences import family_label
from signbridge.report.figures.layer_curve import last_part
from signbridge.report.groups import few_names
from signbridge.report.template import pairs
from signbridge.report.text.findings import describe_data
from signbridge.report.text.first_screen import MARGIN, points_interval
from signbridge.report.text.said import class_answers
from signbridge.report.text.tables import Cell, Row, Table, group_cells, score_rows, shown_metrics
from signbridge.results.comparisons import p_text
from signbridge.results.records import to_json
from signbridge.runtime.words import listed
from signbridge.statistics.metrics import measure
from signbridge.store.provenance import grouping
from signbridge.store.settings import SETTINGS, summary_of_settings

if TYPE_CHECKING:
    from signbridge.results.results import Results
    from signbridge.results.summary import SklearnDefault

__all__ = [
    "against_table",
    "answers_table",
    "command_lines",
    "confusion_words",
    "fit_rows",
    "protocol_rows",
    "provenance_rows",
    "question",
    "scores_table",
    "setting",
    "title",
]


def title(results: Results) -> str:
    """Model and images in a few words."""
    model = results.provenance.get("model") or results.store.name or results.path.name
    images = results.provenance.get("image_source")
    return style.printable(f"{model} on {images}" if images else str(model))


def _head(metric: str) -> str:
    label = measure(metric).label
    return f"{label} %" if measure(metric).is_share else label


def scores_table(results: Results) -> Table:
    """All scores: beside the accuracy stand that of other splits, and of a few groups."""
    metrics = shown_metrics(results)
    others = [s for s in results.splits[1:] if any(x.split == s for x in results.scores)]
    rows = score_rows(results, metrics)
    beside: list[tuple[str, tuple[Cell, ...]]] = []
    for split in others:
        cells = {row.name: row.cells[0] for row in score_rows(results, ["accuracy"], split)}
        head = f"{style.split_label(split)} %"
        beside.append((head, tuple(cells.get(row.name, Cell("–")) for row in rows)))
    beside += [(f"{name} %", cells) for name, cells in group_cells(results, rows)]
    heads = [_head(m) for m in metrics]
    return Table(
        ("feature", *heads[:1], *(head for head, _ in beside), *heads[1:]),
        tuple(
            replace(row, cells=(*row.cells[:1], *(c[i] for _, c in beside), *row.cells[1:]))
            for i, row in enumerate(rows)
        ),
        _score_note(results, others),
    )


def answers_table(results: Results) -> Table | None:
    """The commonest answers to the images of every class."""
    rows = tuple(
        Row(
            one.class_name,
            cells=(
                Cell(", ".join(f"{answer} {share}" for answer, share in one.answers)),
                Cell(one.names_class),
            ),
        )
        for one in class_answers(results)
    )
    heads = ("class", "commonest answers", "names the class")
    return Table(heads, rows, words=True) if rows else None


def confusion_words(results: Results) -> str:
    """The most frequent mistakes."""
    names = results.class_names
    found = [
        f"{style.printable(names[t])} read as {style.printable(names[p])} ({count} of {total})"
        for t, p, count, total in top_confusions(results, 5)
    ]
    return f"Most frequent: {', '.join(found)}." if found else ""


def protocol_rows(results: Results) -> list[tuple[str, str]]:
    """How it was measured: images and groups, the description, and every setting with a value."""
    described = ("how", results.protocol.description) if results.protocol.description else None
    settings = pairs(to_json(replace(results.protocol, description="")))
    verdict = (
        "verdicts",
        f"no: the 95 % interval leaves less than {100 * MARGIN:.0f} points",
    )
    return [row for row in (("data", describe_data(results)), described, verdict, *settings) if row]


def command_lines(results: Results) -> str:
    """The commands that make the store and the results; empty where not recorded."""
    return "\n".join(filter(None, (*results.store.commands, results.summary.command)))


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


def provenance_rows(results: Results) -> list[tuple[str, str]]:
    """Everything that the store and the sweep record of themselves."""
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


def question(results: Results) -> str:
    """What was asked, in one sentence."""
    model = style.short(last_part(results.provenance.get("model") or "the model"), 40)
    text = (
        f"Shown an image of one of {len(results.class_names):,} classes, what does {model} know of "
        f"the class at each {results.stack} layer"
    )
    return f"{text}, and what does it say?" if results.summary.said else f"{text}?"


def setting(results: Results) -> str:
    """What was probed, and in which images."""
    words = grouping(results.provenance)
    position = _POSITIONS.get(str(results.provenance.get("position")), "the residual stream")
    new = {
        "near_duplicates": " of photographs",
        "signers": " of signers",
        "none": "",
    }.get(words.kind, " of groups") + " that they have not seen"
    if results.split == "random":
        new = " that they have not seen, copies of which they may have"
    n = len(results.predictions.sample_id)
    return f"Linear probes of {position}, scored on {n:,} images{new}."


_POSITIONS = {
    "last_prompt": "the residual stream at the last token of the prompt",
    "last_generated": "the residual stream in the last pass of the answer",
    "image_mean": "the mean of the residual stream over the image’s tokens",
}


def against_table(results: Results) -> Table | None:
    """The best layer's rows of ``comparisons.csv``; what older folders hold of them otherwise."""
    rows = []
    for c in results.comparisons:
        if c.layer != results.best_layer or c.metric != "accuracy":
            continue
        if c.family == "layers_vs_peak" or not math.isfinite(c.difference):
            continue
        texts = (
            points(c.difference),
            points_interval(c.ci_low, c.ci_high),
            p_text(c.p, "").lstrip(" ="),
            p_text(c.p_corrected, "").lstrip(" ="),
            "" if c.n_comparisons is None else str(c.n_comparisons),
        )
        rows.append(Row(family_label(c.family), cells=tuple(map(Cell, texts))))
    if not rows:
        for name, entry in results.summary.against_baselines.items():
            texts = (points(entry.difference), points_interval(*entry.ci), "", "", "")
            rows.append(Row(style.feature_label(name), cells=tuple(map(Cell, texts))))
    heads = ("accuracy", "points", "95 % interval", "p", "corrected p", "corrected for")
    return Table(heads, tuple(rows)) if rows else None


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
