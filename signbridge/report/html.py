"""``report.html`` and the figures of a results folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from signbridge.errors import ProbeError
from signbridge.report.figures.cka import CKA_MOST, cka_figure
from signbridge.report.figures.class_grid import class_grid
from signbridge.report.figures.confusion import confusion
from signbridge.report.figures.differences import differences_figure
from signbridge.report.figures.embedding import warm_up
from signbridge.report.figures.layer_curve import layer_curve
from signbridge.report.figures.leakage import leakage_figure
from signbridge.report.figures.memorisation import memorisation_figure, selectivity_figure
from signbridge.report.figures.peak import peak_figure
from signbridge.report.figures.plot import Plot
from signbridge.report.figures.reliability import reliability_figure
from signbridge.report.figures.subsample import independent_rows
from signbridge.report.figures.umap import umap_figure
from signbridge.report.figures.umap_strip import STRIP_MOST, umap_strip
from signbridge.report.material import Material, open_material
from signbridge.report.text.page import render_page
from signbridge.results.results import SITE, Results, load_results
from signbridge.runtime.files import replace_file

__all__ = ["write_report"]

FIGURES_FOLDER = "figures"
REPORT_FILE = "report.html"
_MOST_MAPPED = 3000
_BASELINES = ("pixels", "vision", "projector")


def write_report(
    results_dir: str | Path,
    store_path: str | Path | None = None,
    *,
    umap: Literal["best", "all", "none"] | int = "best",
) -> Path:
    """Draw all figures of a results folder and write its page.

    Maps, geometry and the images of the classes come from the activation store. Where the store
    that the results name has moved, they are left out and the page says so.

    Args:
        results_dir: A folder that ``train_probes`` wrote.
        store_path: The activation store, if it is not where the results say.
        umap: Which layer is drawn as a map: the ``best``, a layer's number, ``none``, or ``all``
            (the best one, and a strip of small maps of every layer: one to three seconds a layer).

    Returns:
        Path of ``report.html``.

    Raises:
        ProbeError: The folder is not a whole results folder, ``store_path`` is not the store that
            its probes were trained on, ``umap`` names a layer that it does not hold, or the folder
            cannot be written.
        StoreError: ``store_path`` is not a readable store.
    """
    results = load_results(results_dir)
    if isinstance(umap, int) and umap not in results.layers:
        listed = ", ".join(map(str, results.layers))
        raise ProbeError(f"{results.path} has no layer {umap} to map: it has {listed}.")
    with open_material(results, store_path) as material:
        if material.store is not None and umap != "none":
            warm_up()  # compiles while the other figures are drawn
        pixels = material.pixels()
        plots: list[Plot | None] = [
            layer_curve(results),
            *_said_curve(results),
            leakage_figure(results),
            memorisation_figure(results),
            selectivity_figure(results),
            differences_figure(results),
            peak_figure(results),
            *_other_curves(results),
            class_grid(results, pixels),
            confusion(results),
            reliability_figure(results),
            *_maps(results, material, umap),
            _geometry(results, material),
        ]
    drawn = [plot for plot in plots if plot is not None]
    page = render_page(results, drawn, pixels, material.notes)
    path = results.path / REPORT_FILE
    try:
        for plot in drawn:
            plot.save(results.path / FIGURES_FOLDER)
        replace_file(path, page.encode("utf-8", errors="replace"), durable=False)
    except OSError as error:
        raise ProbeError(
            f"The report cannot be written into {results.path} ({error.strerror or error}): free "
            "some room or make the folder writable, then run report again."
        ) from error
    return path


def _said_curve(results: Results) -> Iterable[Plot]:
    """Known and said in bits: the question itself, so second where anything was said."""
    if results.summary.said:
        yield layer_curve(results, "usable_information", "usable_information")


def _other_curves(results: Results) -> Iterable[Plot]:
    for metric in ("usable_information", "description_length"):
        there = metric == "usable_information" and results.summary.said
        if not there and results.curve(SITE, metric, results.split):
            yield layer_curve(results, metric, metric)


def _maps(results: Results, material: Material, umap: str | int) -> Iterable[Plot]:
    if material.store is None or umap == "none":
        return
    seed = results.protocol.seed
    layer = umap if isinstance(umap, int) else results.best_layer
    rows = independent_rows(results, _MOST_MAPPED, seed)
    yield umap_figure(results, material.vectors(f"{SITE}/{layer}", rows), rows, seed, layer)
    if umap == "all" and len(results.layers) > 1:
        few = independent_rows(results, STRIP_MOST, seed)
        yield umap_strip(results, lambda k: material.vectors(f"{SITE}/{k}", few), few, seed)


def _geometry(results: Results, material: Material) -> Plot | None:
    if material.store is None:
        return None
    rows = independent_rows(results, CKA_MOST, results.protocol.seed)
    names = [name for name in _BASELINES if name in material.store.baselines]
    names += [f"{SITE}/{k}" for k in results.layers]
    return cka_figure(results, lambda name: material.vectors(name, rows), names, rows)
