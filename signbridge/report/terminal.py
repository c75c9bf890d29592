"""A summary of a results folder for the terminal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from signbridge.report.figures import style
from signbridge.report.text.findings import find
from signbridge.report.text.first_screen import headline, tiles, verdicts
from signbridge.report.text.tables import Row, group_cells, score_rows, shown_metrics
from signbridge.results.features import RANDOM_WEIGHTS, RESID_POST, SAID, ZERO_SHOT
from signbridge.results.results import Results, load_results
from signbridge.runtime.terminal import as_text
from signbridge.statistics.metrics import METRICS

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

__all__ = ["print_table"]

_MOST_LAYERS = 16
_BETWEEN = 2  # columns between two columns of the table


@dataclass(frozen=True)
class _Column:
    head: str
    cells: tuple[str, ...]
    style: str = ""

    @property
    def width(self) -> int:
        return max(len(self.head), *(len(cell) for cell in self.cells)) + _BETWEEN


def print_table(results_dir: str | Path, console: Console | None = None) -> None:
    """Print known against said, scores by layer, the first screen of the page and the warnings.

    In a narrow terminal whole columns are left out, the least important first; no number is cut.

    Args:
        results_dir: A results folder.
        console: Where to print, standard output if None.

    Raises:
        ProbeError: The folder is not a whole results folder.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    results = load_results(results_dir)
    console = console or Console()
    title = f"{results.store.name or results.path.name} · {style.split_label(results.split)}"
    table = Table(
        title=as_text(title), title_justify="left", pad_edge=False, padding=(0, 1), box=SIMPLE_HEAD,
        collapse_padding=True,
    )  # fmt: skip
    metrics = [m for m in shown_metrics(results) if m in METRICS and METRICS[m].head]
    metrics.sort(key=lambda m: METRICS[m].priority)
    rows = [r for r in score_rows(results, metrics) if not r.name.startswith(_TWIN)]
    kept, left_out = _kept(rows)
    kept.sort(key=_part)
    known = [replace(r, name=f"knows ({r.name})", layer=None, best=False) for r in kept if r.best]
    kept[:0] = known
    columns = _columns(results, metrics, kept)
    names, rest = columns[0], columns[1:]
    shown, room = [names], console.width - names.width
    for column in rest:
        if column.width <= room or len(shown) == 1:
            shown.append(column)
            room -= column.width
    for column in shown:
        right = column is not names
        table.add_column(
            as_text(column.head),
            justify="right" if right else "left",
            no_wrap=True,
            overflow="fold" if right else "ellipsis",
            style=column.style or None,
        )
    for i, row in enumerate(kept):
        if i and _part(row) != _part(kept[i - 1]):
            table.add_section()
        cells = [as_text(column.cells[i]) for column in shown]
        table.add_row(*cells, style="bold" if row.best else None)
    console.print(table)
    if left_out:
        console.print(as_text(f"{left_out} more layers in {results.path / 'scores.csv'}", "dim"))
    if missing := [c.head for c in rest if c not in shown]:
        words = ", ".join(missing)
        console.print(as_text(f"no room for: {words} (see {results.path / 'scores.csv'})", "dim"))
    lines = [headline(results)]
    lines += [f"- {v.question} {v.answer}{f' ({v.numbers})' if v.numbers else ''}"
              for v in verdicts(results)]  # fmt: skip
    lines += [f"- {t.label}: {t.value}{f' ({t.detail})' if t.detail else ''}"
              for t in tiles(results)]  # fmt: skip
    for line in lines:
        # Rich would break the line at the no-break space before a per cent sign.
        console.print(as_text(line.replace(style.PER_CENT, "%")))
    for warning in find(results).warnings:
        console.print(as_text(f"Warning: {warning}", "yellow"))


_TWIN = style.feature_label(RANDOM_WEIGHTS)


def _part(row: Row) -> int:
    """Known and said first, then the baselines, then the layers."""
    if row.layer is not None:
        return 2
    return 0 if row.feature in (*SAID, ZERO_SHOT) or "/" in row.feature else 1


def _columns(results: Results, metrics: list[str], rows: list[Row]) -> list[_Column]:
    """The table's columns, the most important one first."""
    names = tuple(row.name + (" (best)" if row.best else "") for row in rows)
    columns = [_Column("feature", names)]
    for number, metric in enumerate(metrics):
        cells = tuple(row.cells[number].value for row in rows)
        columns.append(_Column(METRICS[metric].head, cells))
        if metric == "accuracy":
            intervals = tuple(row.cells[number].interval for row in rows)
            columns.append(_Column("95 %", intervals, "dim"))
            columns += [
                _Column(style.short(name, 10), tuple(cell.value for cell in cells))
                for name, cells in group_cells(results, rows)
            ]
            columns += _further_accuracies(results, rows)
    return columns


def _further_accuracies(results: Results, rows: list[Row]) -> list[_Column]:
    """Accuracy under the other splits, and of the same layers with random weights."""
    columns = []
    for split in results.splits[1:]:
        if results.curve(RESID_POST, "accuracy", split):
            there = {row.feature: row.cells[0].value for row in
                     score_rows(results, ["accuracy"], split)}  # fmt: skip
            cells = tuple(there.get(row.feature, "–") for row in rows)
            columns.append(_Column(f"{style.short(split, 10)} %", cells))
    twins = {s.layer: s for s in results.curve(RANDOM_WEIGHTS, "accuracy", results.split)}
    if twins:
        values = [twins.get(row.layer) if row.layer is not None else None for row in rows]
        cells = tuple(
            style.format_value("accuracy", s.value).removesuffix(style.PER_CENT) if s else "–"
            for s in values
        )
        columns.append(_Column("rnd.w. %", cells))
    return columns


def _kept(rows: list[Row]) -> tuple[list[Row], int]:
    """Baselines, and of many layers an even selection with first, last and best."""
    layers = [i for i, row in enumerate(rows) if row.layer is not None]
    if len(layers) <= _MOST_LAYERS:
        return rows, 0
    chosen = set(style.labels_at(layers, _MOST_LAYERS))
    chosen |= {i for i in layers if rows[i].best}
    kept = [row for i, row in enumerate(rows) if row.layer is None or i in chosen]
    return kept, len(rows) - len(kept)
