"""What is in a store, for a terminal."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from signbridge.runtime.terminal import as_text
from signbridge.runtime.words import counted, duration, size
from signbridge.store.leftovers import Unfinished, addings, unfinished
from signbridge.store.reader import Store, open_store
from signbridge.store.schema import SHARDS
from signbridge.store.settings import SETTINGS, summary_of_settings

if TYPE_CHECKING:
    from rich.console import Console

_LONGEST = 200


def print_info(path: str | os.PathLike[str], console: Console | None = None) -> None:
    """Print the sizes, classes, features and provenance of a store, finished or not.

    Args:
        path: the store's file, or the file that an unfinished extraction is to become.
        console: where to print; standard output by default.

    Raises:
        StoreError: if it is no store, a damaged one, or one of a newer format.
    """
    from rich.console import Console
    from rich.table import Table

    console = console or Console()
    begun = None if os.path.lexists(path) else unfinished(Path(path))
    if begun is not None:
        rows = list(_rows_of_unfinished(begun))
    else:
        with open_store(path) as store:
            rows = [*_rows(store), *_leftover_rows(store)]
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(as_text(name), as_text(value))
    console.print(table)


def merged_line(path: str | os.PathLike[str], n_stores: int) -> str:
    """Say in one line what a merge has made.

    Args:
        path: the merged store.
        n_stores: of how many stores it was made.
    """
    with open_store(path) as store:
        return (
            f"merged {n_stores} stores: {counted(store.n_samples, 'sample')}, "
            f"{counted(len(store.layers), 'layer')} ({_listed(store.layers)}), "
            f"{size(store.path.stat().st_size)} in {path}"
        ) + "".join(f"; {note}" for note in store.info.get("not_compared", []))


def _listed(layers: Sequence[int]) -> str:
    """Layer numbers with runs shortened: ``0 to 7, 16``."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(
        ", ".join(map(str, run)) if len(run) < 3 else f"{run[0]} to {run[-1]}" for run in runs
    )


def _rows_of_unfinished(begun: Unfinished) -> Iterator[tuple[str, str]]:
    yield "file", f"{begun.path} (not finished: run the same extraction again to complete it)"
    yield "samples", f"{begun.samples_done:,} of {begun.n_samples:,} are done"
    shards = f"{begun.shards_done:,} of {begun.shards:,} in {begun.folder}"
    if begun.last_written is not None:
        ago = duration(max(0.0, time.time() - begun.last_written))
        shards += f", the newest written {ago} ago"
    yield "shards", shards
    yield "resid_post", f"layers {_listed(begun.layers)}"
    yield from _provenance_rows(begun.provenance)


def _leftover_rows(store: Store) -> Iterator[tuple[str, str]]:
    """What stopped runs have left beside the store."""
    replacement = unfinished(store.path) if SHARDS not in store else None
    if replacement is not None and not replacement.is_within(store):
        yield "unfinished", f"a replacement: {replacement}"
    for path in addings(store.path):
        adding = unfinished(path)
        if path.exists():
            yield "unfinished", f"layers that are still to be joined, in {path}"
        elif adding is not None:
            yield "unfinished", f"more layers: {adding}"


def _rows(store: Store) -> Iterator[tuple[str, str]]:
    counts = np.bincount(store.labels, minlength=len(store.class_names))
    yield "file", f"{store.path}, {size(store.path.stat().st_size)}"
    yield "samples", f"{store.n_samples:,} in {counted(len(np.unique(store.groups)), 'group')}"
    if store.group_names is not None:
        yield "", ", ".join(sorted(store.group_names))[:_LONGEST]
    least, most = counts.min(), counts.max()
    spread = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    yield "classes", f"{len(store.class_names)}, {spread} samples each"
    yield "", ", ".join(store.class_names)[:_LONGEST]
    dtype = store.layer(store.layers[0], rows=slice(0, 1)).dtype
    yield "resid_post", f"layers {_listed(store.layers)}; {store.hidden_size:,} values of {dtype}"
    for name in store.baselines:
        one = store.feature(name, rows=slice(0, 1))
        yield name, f"{one.shape[1]:,} values of {one.dtype}"
    if store.responses is not None:
        example = next((text for text in store.responses if text), "")
        yield "response", f"answers such as {example!r}"
    yield from _rows_of_info(store.info)
    if "thumbnail" in store:
        yield "thumbnail", "each image, made small"
    yield from _provenance_rows(store.provenance)


def _rows_of_info(info: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What was said when the store was made, and what the model was found to do."""
    notes = info.get("notes")
    for number, note in enumerate(notes if isinstance(notes, list) else ()):
        yield "" if number else "notes", str(note)
    checks = [
        f"{key.removeprefix('check_')} {value:.1g}"
        for key, value in info.items()
        if key.startswith("check_") and isinstance(value, float)
    ]
    if checks:
        yield "checks", ", ".join(checks)
    if "forced_choice_by" in info:
        yield "names scored by", str(info["forced_choice_by"]).replace("_", " ")


def _provenance_rows(provenance: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in sorted(provenance.items()):
        text = summary_of_settings(value) if key in SETTINGS else str(value)
        yield key, text[:_LONGEST]
