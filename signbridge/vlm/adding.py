"""Layers that a finished store lacks are extracted by themselves and joined to it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signbridge.errors import StoreError
from signbridge.store import open_store
from signbridge.store.merge import merge_stores
from signbridge.store.provenance import checked_provenance, refuse_difference


@dataclass(frozen=True)
class Target:
    """What a run has to extract, and into which file.

    Attributes:
        path: the store to make.
        layers: the decoder layers to extract.
        base: a finished store to which the new one will be joined, or None.
    """

    path: Path
    layers: tuple[int, ...]
    base: Path | None = None

    def join(self) -> None:
        """Put the new layers into the base, atomically, and remove the file that held them."""
        if self.base is not None:
            merge_stores([self.base, self.path], self.base, overwrite=True)
            self.path.unlink()


def choose_target(
    output: Path, layers: tuple[int, ...], provenance: Mapping[str, Any], *, overwrite: bool
) -> Target:
    """Decide what is left to extract.

    Args:
        output: the store that is to hold the layers.
        layers: the wanted decoder layers, ascending.
        provenance: what this run's vectors are made with.
        overwrite: whether a store that is there will be replaced.

    Returns:
        All of it where there is no finished store, nothing new where the store has every wanted
        layer, otherwise the layers that it lacks.

    Raises:
        StoreError: if the store that is there was made otherwise, or refers to shards.
    """
    if overwrite or not output.is_file():
        return Target(output, layers)
    with open_store(output) as store:
        there = store.layers
        if set(layers) - set(there):
            where = f"The finished store {output}"
            refuse_difference(store.provenance, checked_provenance(provenance), where)
            if "shards" in store:
                raise StoreError(
                    f"{output} refers to its shards, so no layers can be added to it: extract them "
                    "into another file, then run 'signbridge merge'."
                )
    lacking = tuple(layer for layer in layers if layer not in there)
    if not lacking:
        _remove_leftovers(output, set(there))
        return Target(output, there)
    name = hashlib.sha256(repr(lacking).encode()).hexdigest()[:8]
    return Target(output.with_name(f"{output.name}.adding-{name}"), lacking, base=output)


def _remove_leftovers(output: Path, there: set[int]) -> None:
    """Remove what a run killed between joining and tidying up has left."""
    for path in output.parent.glob(f"{output.name}.adding-????????"):
        try:
            with open_store(path) as store:
                joined = set(store.layers) <= there
        except StoreError:
            continue
        if joined:
            path.unlink(missing_ok=True)
