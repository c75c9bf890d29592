"""The scores as rows to show, shared by the page and the terminal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from signbridge.report.figures import style
from signbridge.report.groups import few_accuracies, few_names
from signbridge.results.features import RESID_POST
from signbridge.statistics.metrics import METRICS, UNITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from signbridge.results.results import Results, Score

__all__ = ["Cell", "Row", "Table", "group_cells", "score_rows", "shown_metrics"]


@dataclass(frozen=True)
class Cell:
    """A value and its interval as text; ``interval`` is empty where there is none."""

    value: str
    interval: str = ""


@dataclass(frozen=True)
class Row:
    """One feature's scores.

    Attributes:
        name: The feature in words, ``layer 5`` for a decoder layer.
        layer: The decoder layer, or None.
        best: Whether this is the best layer.
        cells: One entry a metric.
        feature: The feature's name among the predictions, such as ``resid_post/5``.
    """

    name: str
    layer: int | None = None
    best: bool = False
    cells: tuple[Cell, ...] = ()
    feature: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the page: heads (the first is that of the names), rows, a note above it.

    Cells of ``words`` are set left.
    """

    heads: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""
    words: bool = False


def shown_metrics(results: Results, split: str | None = None) -> tuple[str, ...]:
    """The metrics to show of those that a split was scored with, by unit, shares first."""
    split = split or results.split
    present = dict.fromkeys(s.metric for s in results.scores if s.split == split)
    n_classes = len(results.class_names)
    shown = [name for name, m in METRICS.items() if name in present and m.shown(n_classes)]
    shown.sort(key=lambda name: UNITS.index(METRICS[name].unit))
    return (*shown, *(name for name in present if name not in METRICS))


def score_rows(results: Results, metrics: Sequence[str], split: str | None = None) -> list[Row]:
    """Rows of a table of scores: baselines first, then every layer.

    Args:
        results: A results folder.
        metrics: The columns.
        split: The split, the main one if None.

    Returns:
        The rows, with text ready to show (not escaped).
    """
    split = split or results.split
    features = dict.fromkeys((s.feature, s.layer) for s in results.scores if s.split == split)
    rows = []
    for feature, layer in sorted(
        features, key=lambda f: (f[1] is not None, f[0] != RESID_POST, f[0], f[1] or 0)
    ):
        if layer is None:
            name = style.feature_label(feature)
        else:
            name = (
                f"layer {layer}"
                if feature == RESID_POST
                else f"{style.feature_label(feature)} {layer}"
            )
        rows.append(
            Row(
                name=name,
                layer=layer,
                best=feature == RESID_POST and layer == results.best_layer,
                cells=tuple(_cell(results.score(feature, layer, m, split), m) for m in metrics),
                feature=feature if layer is None else f"{feature}/{layer}",
            )
        )
    return rows


def group_cells(results: Results, rows: Sequence[Row]) -> list[tuple[str, tuple[Cell, ...]]]:
    """Columns with the accuracy of each of a few groups: its name, and a cell for each row.

    Args:
        results: A results folder.
        rows: Rows of :func:`score_rows`.

    Returns:
        Empty where there are many groups. What no probe was held out for has an empty cell.
    """
    found = [few_accuracies(results, row.feature) for row in rows]
    return [
        (
            style.printable(name),
            tuple(
                Cell(style.format_value("accuracy", one[name]).removesuffix(style.PER_CENT))
                if one
                else Cell("–")
                for one in found
            ),
        )
        for name in few_names(results)
    ]


def _cell(score: Score | None, metric: str) -> Cell:
    if score is None or not math.isfinite(score.value):
        return Cell("–")
    value = style.format_value(metric, score.value).removesuffix(style.PER_CENT)
    if not (math.isfinite(score.ci_low) and math.isfinite(score.ci_high)):
        return Cell(value)
    ends = (
        style.format_value(metric, v).removesuffix(style.PER_CENT)
        for v in (score.ci_low, score.ci_high)
    )
    return Cell(value, "–".join(ends) if "−" not in value else " to ".join(ends))
