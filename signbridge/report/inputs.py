"""What the report is made from: the results, and what their activation store adds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from signbridge.errors import ProbeError, SignBridgeError
from signbridge.report.figures import style

if TYPE_CHECKING:
    from signbridge.results.results import Results
    from signbridge.store import Store

__all__ = ["Inputs", "open_inputs"]


@dataclass(frozen=True)
class Inputs:
    """A results folder with its open activation store, or its absence.

    Attributes:
        results: The results folder.
        store: The store, None where it was not found.
        umap: Which layers are drawn as maps, see :func:`signbridge.report.write_report`.
        notes: Why the store is missing, in sentences.
    """

    results: Results
    store: Store | None = None
    umap: Literal["best", "all", "none"] | int = "best"
    notes: tuple[str, ...] = ()

    @property
    def baselines(self) -> list[str]:
        """Features of the store that belong to no layer, in the order of the page."""
        found = () if self.store is None else self.store.baselines
        return sorted(found, key=style.feature_rank)

    @cached_property
    def pixels(self) -> npt.NDArray[np.uint8] | None:
        """(n, side * side) grey images, None where there are none."""
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
def open_inputs(
    results: Results,
    store_path: str | Path | None,
    umap: Literal["best", "all", "none"] | int = "best",
) -> Iterator[Inputs]:
    """Open the store that the probes were trained on.

    Args:
        results: A results folder.
        store_path: The store, if it is not where the results say.
        umap: Which layers are drawn as maps.

    Yields:
        The inputs; a note instead of the store where it is not where the results say.

    Raises:
        ProbeError: ``store_path`` is another store.
        StoreError: ``store_path`` is not a readable store.
    """
    from signbridge.store import open_store

    place = _place(results) if store_path is None else Path(store_path)
    store, notes = None, ""
    with ExitStack() as stack:
        if place is None:
            notes = (
                f"The activation store {results.store.path} was not found, so maps, "
                "geometry and images are left out; run report again with the store's path."
            )
        else:
            try:
                store = stack.enter_context(open_store(place))
                _check_same(results, store)
            except SignBridgeError as error:
                if store_path is not None:
                    raise
                store, notes = None, f"Maps, geometry and images are left out: {error}"
        yield Inputs(results, store, umap, (notes,) if notes else ())


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
