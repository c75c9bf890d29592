"""Layers that a finished store lacks are extracted by themselves and joined to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from signbridge.errors import StoreError
from signbridge.store import SampleTable, StoreSpec, estimated_bytes, open_store
from signbridge.store.files import check_space
from signbridge.store.leftovers import adding_path, tidy_addings
from signbridge.store.merge import extend_store
from signbridge.store.parts import samples_identity
from signbridge.store.provenance import checked_provenance, refuse_difference
from signbridge.store.stages import StageProgress


@dataclass(frozen=True)
class Target:
    """What a run has to extract, and into which file.

    Attributes:
        path: the store to make.
        layers: the decoder layers to extract.
        base: a finished store to which the new one will be joined, or None.
        replaces: whether what is there will be replaced.
    """

    path: Path
    layers: tuple[int, ...]
    base: Path | None = None
    replaces: bool = False

    def check_space(self, spec: StoreSpec, samples: SampleTable) -> None:
        """Refuse to start where the joined store would not fit beside what it is made of.

        Raises:
            StoreError: if the disk has not the room.
        """
        if self.base is not None:
            new = estimated_bytes(spec, len(samples), len(samples.class_names))
            # the new layers as shards and as a file, then the joined file beside the base
            check_space(self.base, 3 * new + self.base.stat().st_size)

    def join(self, progress: StageProgress | None = None) -> None:
        """Put the new layers into the base, atomically, and remove the file that held them."""
        if self.base is not None:
            extend_store(self.base, self.path, progress)
            self.path.unlink()

    def tidy(self) -> list[str]:
        """Remove what earlier addings have left and the store holds already; say what stays.

        For the first process alone, before it opens the target.
        """
        if self.base is not None:
            return tidy_addings(self.base, self.path)
        return tidy_addings(self.path) if self.path.is_file() and not self.replaces else []


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
        return Target(output, layers, replaces=overwrite)
    with open_store(output, verify=_first_look(output)) as store:
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
        return Target(output, there)
    return Target(adding_path(output, lacking), lacking, base=output)


def _first_look(output: Path) -> Literal["none", "read"]:
    """Shards that a store refers to may be missing: its writer makes them again."""
    with open_store(output, verify="none") as store:
        return "none" if "shards" in store else "read"
