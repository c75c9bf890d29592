"""What the report takes from the activation store: images, vectors, and whether it is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from signbridge.errors import ProbeError, SignBridgeError

if TYPE_CHECKING:
    from signbridge.results.results import Results
    from signbridge.store import Store

__all__ = ["Material", "open_material"]


@dataclass(frozen=True)
class Material:
    """An open store of the results, or its absence.

    Attributes:
        store: The store, None where it was not found.
        notes: Why it is missing, in sentences.
    """

    store: Store | None
    notes: tuple[str, ...] = ()

    def pixels(self) -> npt.NDArray[np.uint8] | None:
        """The grey images, None where there are none."""
        if self.store is None or "pixels" not in self.store.baselines:
            return None
        return np.asarray(self.store.feature("pixels"))

    def vectors(self, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Vectors of a feature for some samples.

        Args:
            name: A baseline, or ``resid_post/5``.
            rows: Ascending rows.

        Returns:
            (len(rows), width).
        """
        assert self.store is not None
        # Reading it whole and picking is faster than picking from the file.
        return np.asarray(self.store.feature(name)[rows])


@contextmanager
def open_material(results: Results, store_path: str | Path | None) -> Iterator[Material]:
    """Open the store that the probes were trained on.

    Args:
        results: A results folder.
        store_path: The store, if it is not where the results say.

    Yields:
        The store; a note instead where it is not where the results say.

    Raises:
        ProbeError: ``store_path`` is another store.
        StoreError: ``store_path`` is not a readable store.
    """
    from signbridge.store import open_store

    place = _place(results) if store_path is None else Path(store_path)
    with ExitStack() as stack:
        if place is None:
            material = Material(
                None,
                (
                    f"The activation store {results.store.path} was not found, so maps, "
                    "geometry and images are left out; run report again with the store's path.",
                ),
            )
        else:
            try:
                store = stack.enter_context(open_store(place))
                _check_same(results, store)
                material = Material(store)
            except SignBridgeError as error:
                if store_path is not None:
                    raise
                material = Material(None, (f"Maps, geometry and images are left out: {error}",))
        yield material


def _place(results: Results) -> Path | None:
    """Where the results say the store is, tried from here and from the folder's parents."""
    named = results.store.path
    if not named:
        return None
    bases = [Path(), *results.path.resolve().parents]
    found = (base / named for base in bases)
    return next((path for path in found if path.is_file()), None)


def _check_same(results: Results, store: Store) -> None:
    fingerprint = results.store.fingerprint
    if (fingerprint and fingerprint != store.fingerprint) or tuple(
        store.sample_ids
    ) != results.predictions.sample_id:
        raise ProbeError(
            f"{store.path} is not the store that the probes in {results.path} were trained on: "
            "give that store, or run train_probes on this one."
        )
