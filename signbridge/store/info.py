"""What is in a store, for a terminal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from signbridge.store.reader import Store, open_store

if TYPE_CHECKING:
    from rich.console import Console

_LONGEST = 200


def print_info(path: str | os.PathLike[str], console: Console | None = None) -> None:
    """Print the sizes, classes, features and provenance of a store.

    Args:
        path: the store's file.
        console: where to print; standard output by default.

    Raises:
        StoreError: if it is no store, an incomplete one, or one of a newer format.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = console or Console()
    with open_store(path) as store:
        rows = list(_rows(store))
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        # Text objects: brackets in class names and prompts are not markup.
        table.add_row(Text(name), Text(value))
    console.print(table)


def _rows(store: Store) -> Iterator[tuple[str, str]]:
    counts = np.bincount(store.labels, minlength=len(store.class_names))
    yield "file", f"{store.path}, {store.path.stat().st_size / 1e6:,.1f} MB"
    yield "samples", f"{store.n_samples:,} in {len(np.unique(store.groups)):,} groups"
    yield "classes", f"{len(store.class_names)}, {counts.min():,} to {counts.max():,} samples each"
    yield "", ", ".join(store.class_names)[:_LONGEST]
    dtype = store.layer(store.layers[0], rows=slice(0, 1)).dtype
    layers = ", ".join(str(layer) for layer in store.layers)
    yield "resid_post", f"layers {layers}; {store.hidden_size:,} values of {dtype}"
    for name in store.baselines:
        one = store.feature(name, rows=slice(0, 1))
        yield name, f"{one.shape[1]:,} values of {one.dtype}"
    if store.responses is not None:
        example = next((text for text in store.responses if text), "")
        yield "response", f"answers such as {example!r}"
    for key, value in sorted(store.provenance.items()):
        yield key, str(value)[:_LONGEST]
