"""A summary of a results folder for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from signbridge.report import style
from signbridge.report.findings import find
from signbridge.report.results import load_results
from signbridge.report.tables import Row, score_rows

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

__all__ = ["print_table"]

_METRICS = ("accuracy", "macro_f1", "top3_accuracy", "usable_information")
_HEADS = {
    "accuracy": "accuracy %",
    "macro_f1": "F1 %",
    "top3_accuracy": "top-3 %",
    "usable_information": "bits",
}
_MOST_LAYERS = 16


def print_table(results_dir: str | Path, console: Console | None = None) -> None:
    """Print scores by layer, the finding and the warnings.

    Args:
        results_dir: A results folder.
        console: Where to print, standard output if None.

    Raises:
        ProbeError: The folder is not a whole results folder.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    results = load_results(results_dir)
    console = console or Console()
    narrow = console.width < 100
    metrics = [m for m in _METRICS if m in results.metrics and not (narrow and m == "macro_f1")]
    title = f"{results.store.get('name', results.path.name)} · {style.split_label(results.split)}"
    # Text objects throughout: brackets in names from data are not markup.
    table = Table(
        title=Text(title),
        title_justify="left",
        pad_edge=False,
        box=SIMPLE_HEAD,
        collapse_padding=True,
    )
    table.add_column("feature", no_wrap=True)
    for metric in metrics:
        table.add_column(_HEADS[metric], justify="right", no_wrap=True)
        if metric == "accuracy":
            table.add_column("95 % interval", justify="right", no_wrap=True, style="dim")
    others = [s for s in results.splits[1:] if results.curve("resid_post", "accuracy", s)]
    for split in others:
        table.add_column(f"{style.short(split, 12)} %", justify="right", no_wrap=True)
    rows = score_rows(results, metrics)
    elsewhere = {
        split: {row.name: row for row in score_rows(results, ["accuracy"], split)}
        for split in others
    }
    kept, left_out = _kept(rows)
    section = False
    for row in kept:
        if row.layer is not None and not section:
            table.add_section()
            section = True
        cells = [Text(row.name + (" (best)" if row.best else ""))]
        for metric, cell in zip(metrics, row.cells, strict=True):
            cells.append(Text(cell.value))
            if metric == "accuracy":
                cells.append(Text(cell.interval))
        for split in others:
            other = elsewhere[split].get(row.name)
            cells.append(Text(other.cells[0].value if other else "–"))
        table.add_row(*cells, style="bold" if row.best else None)
    console.print(table)
    if left_out:
        console.print(Text(f"{left_out} more layers in {results.path / 'scores.csv'}", "dim"))
    findings = find(results)
    for sentence in (findings.headline, *findings.details):
        console.print(Text(sentence))
    for warning in findings.warnings:
        console.print(Text(f"Warning: {warning}", "yellow"))


def _kept(rows: list[Row]) -> tuple[list[Row], int]:
    """Baselines, and of many layers an even selection with first, last and best."""
    layers = [i for i, row in enumerate(rows) if row.layer is not None]
    if len(layers) <= _MOST_LAYERS:
        return rows, 0
    chosen = set(style.labels_at(layers, _MOST_LAYERS))
    chosen |= {i for i in layers if rows[i].best}
    kept = [row for i, row in enumerate(rows) if row.layer is None or i in chosen]
    return kept, len(rows) - len(kept)
