"""Layers that a finished store lacks are extracted by themselves and joined to it."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signbridge.errors import StoreError
from signbridge.store import SampleTable, StoreSpec, estimated_bytes, open_store
from signbridge.store.files import check_space
from signbridge.store.merge import merge_stores
from signbridge.store.parts import samples_identity
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

    def check_space(self, spec: StoreSpec, samples: SampleTable) -> None:
        """Refuse to start where the joined store would not fit beside what it is made of.

        Raises:
            StoreError: if the disk has not the room.
        """
        if self.base is not None:
            new = estimated_bytes(spec, len(samples), len(samples.class_names))
            # the new layers as shards and as a file, then the joined file beside the base
            check_space(self.base, 3 * new + self.base.stat().st_size)

    def join(self) -> None:
        """Put the new layers into the base, atomically, and remove the file that held them."""
        if self.base is not None:
            merge_stores([self.base, self.path], self.base, overwrite=True)
            self.path.unlink()


def choose_target(
    output: Path,
    layers: tuple[int, ...],
    provenance: Mapping[str, Any],
    samples: SampleTable,
    *,
    overwrite: bool,
) -> Target:
    """Decide what is left to extract.

    Args:
        output: the store that is to hold the layers.
        layers: the wanted decoder layers, ascending.
        provenance: what this run's vectors are made with.
        samples: this run's samples.
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
        lacking = tuple(layer for layer in layers if layer not in there)
        if lacking:
            where = f"The finished store {output}"
            refuse_difference(store.provenance, checked_provenance(provenance), where)
            refuse_difference(samples_identity(store.samples), samples_identity(samples), where)
            if "shards" in store:
                raise StoreError(
                    f"{output} refers to its shards, so no layers can be added to it: extract them "
                    "into another file, then run 'signbridge merge'."
                )
    if not lacking:
        _remove_leftovers(output, set(there))
        return Target(output, there)
    name = hashlib.sha256(repr(lacking).encode()).hexdigest()[:8]
    return Target(output.with_name(f"{output.name}.adding-{name}"), lacking, base=output)


def _remove_leftovers(output: Path, there: set[int]) -> None:
    """Remove what a run killed between joining and tidying up has left."""
    for path in output.parent.glob(f"{glob.escape(output.name)}.adding-????????"):
        try:
            with open_store(path) as store:
                joined = set(store.layers) <= there
        except StoreError:
            continue
        if joined:
            path.unlink(missing_ok=True)
