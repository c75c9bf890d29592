"""``report.html`` and the figures of a results folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from signbridge.errors import ProbeError, SignBridgeError
from signbridge.report.class_grid import class_grid
from signbridge.report.confusion import confusion
from signbridge.report.layer_curve import layer_curve
from signbridge.report.leakage import leakage_figure
from signbridge.report.page import render_page
from signbridge.report.plot import Plot, replace_file
from signbridge.report.results import Results, load_results
from signbridge.report.umap_figure import umap_figure

if TYPE_CHECKING:
    from signbridge.store import Store

__all__ = ["write_report"]

FIGURES_FOLDER = "figures"
REPORT_FILE = "report.html"
_MOST_MAPPED = 3000


def write_report(results_dir: str | Path, store_path: str | Path | None = None) -> Path:
    """Draw all figures of a results folder and write its page.

    The images of the classes and the map of the best layer come from the activation store. Where
    the store that the results name has moved, they are left out and the page says so.

    Args:
        results_dir: A folder that ``train_probes`` wrote.
        store_path: The activation store, if it is not where the results say.

    Returns:
        Path of ``report.html``.

    Raises:
        ProbeError: The folder is not a whole results folder, ``store_path`` is not the store that
            its probes were trained on, or the folder cannot be written.
        StoreError: ``store_path`` is not a readable store.
    """
    results = load_results(results_dir)
    vectors, rows, pixels, notes = _from_store(results, store_path)
    plots: list[Plot | None] = [
        layer_curve(results),
        leakage_figure(results),
        class_grid(results, pixels),
        confusion(results),
        None if vectors is None else umap_figure(results, vectors, rows, seed=_seed(results)),
    ]
    if results.curve("resid_post", "usable_information", results.split):
        plots.append(layer_curve(results, "usable_information", "usable_information"))
    drawn = [plot for plot in plots if plot is not None]
    page = render_page(results, drawn, pixels, notes)
    path = results.path / REPORT_FILE
    try:
        for plot in drawn:
            plot.save(results.path / FIGURES_FOLDER)
        replace_file(path, page.encode("utf-8", errors="replace"))
    except OSError as error:
        raise ProbeError(
            f"The report cannot be written into {results.path} ({error.strerror or error}): free "
            "some room or make the folder writable, then run report again."
        ) from error
    return path


def _seed(results: Results) -> int:
    seed = results.protocol.get("seed")
    return seed if isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 else 42


def _from_store(
    results: Results, store_path: str | Path | None
) -> tuple[
    npt.NDArray[Any] | None,
    npt.NDArray[np.int64] | None,
    npt.NDArray[np.uint8] | None,
    list[str],
]:
    """Vectors of the best layer, which samples they are, the grey images, and notes."""
    from signbridge.store import open_store

    place = _place(results) if store_path is None else Path(store_path)
    if place is None:
        return (
            None,
            None,
            None,
            [
                f"The activation store {results.store.get('path')} was not found, so the map of "
                "the layer and the images are left out; run report again with the store's path."
            ],
        )
    try:
        with open_store(place) as store:
            _check_same(results, store)
            return (*_read(results, store), [])
    except SignBridgeError as error:
        if store_path is not None:
            raise
        return None, None, None, [f"The map and the images are left out: {error}"]


def _place(results: Results) -> Path | None:
    """Where the results say the store is, tried from here and from the folder's parents."""
    named = results.store.get("path")
    if not isinstance(named, str) or not named:
        return None
    bases = [Path(), *results.path.resolve().parents]
    found = (base / named for base in bases)
    return next((path for path in found if path.is_file()), None)


def _check_same(results: Results, store: Store) -> None:
    fingerprint = results.store.get("fingerprint")
    if (fingerprint and fingerprint != store.fingerprint) or tuple(
        store.sample_ids
    ) != results.predictions.sample_id:
        raise ProbeError(
            f"{store.path} is not the store that the probes in {results.path} were trained on: "
            "give that store, or run train_probes on this one."
        )


def _read(
    results: Results, store: Store
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[np.uint8] | None]:
    vectors = store.layer(results.best_layer)
    rows = np.arange(store.n_samples)
    if len(rows) > _MOST_MAPPED:
        generator = np.random.default_rng(_seed(results))
        rows = np.sort(generator.choice(len(rows), _MOST_MAPPED, replace=False))
        vectors = vectors[rows]
    pixels = store.feature("pixels") if "pixels" in store.baselines else None
    return vectors, rows, pixels
