"""``report.html`` and the figures of a results folder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from signbridge.errors import ProbeError
from signbridge.report.figures.embedding import warm_up
from signbridge.report.figures.fonts import missing_note
from signbridge.report.figures.registry import draw_figures
from signbridge.report.groups import few_names
from signbridge.report.images import browser
from signbridge.report.inputs import open_inputs
from signbridge.report.text.page import render_page, title
from signbridge.results.format import FIGURES_FOLDER, REPORT_FILE
from signbridge.results.results import load_results
from signbridge.runtime.files import refusal, replace_file, try_to_write

__all__ = ["write_report"]


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
    path = results.path / REPORT_FILE
    try:
        try_to_write(path)  # before what takes half a minute
    except OSError as error:
        raise _not_written(results.path, error) from error
    with open_inputs(results, store_path, umap) as inputs:
        if inputs.store is not None and umap != "none":
            warm_up()  # compiles while the other figures are drawn
        drawn = list(draw_figures(inputs))
        missing = {one for plot in drawn for one in (*plot.wide.missing, *plot.narrow.missing)}
        names = (*results.class_names, *few_names(results), title(results))
        notes = filter(None, (*inputs.notes, missing_note(missing, names)))
        page = render_page(results, drawn, browser(inputs, drawn), tuple(notes))
    try:
        for plot in drawn:
            plot.save(results.path / FIGURES_FOLDER)
        replace_file(path, page.encode("utf-8", errors="replace"), durable=False)
    except OSError as error:
        raise _not_written(results.path, error) from error
    return path


def _not_written(folder: Path, error: OSError) -> ProbeError:
    return ProbeError(f"The report cannot be written: {refusal(error, folder)}.")
