"""``report.html`` and the figures of a results folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from signbridge.errors import ProbeError
from signbridge.report.figures.embedding import warm_up
from signbridge.report.figures.fonts import missing_note
from signbridge.report.figures.layer_curve import known_and_said, layer_curve
from signbridge.report.figures.registry import draw_figures
from signbridge.report.groups import few_names
from signbridge.report.images import browser
from signbridge.report.inputs import open_inputs
from signbridge.report.sections import shown_sections
from signbridge.report.template import fill_template, plot_words, section
from signbridge.report.text import first_screen
from signbridge.report.text.findings import find
from signbridge.report.text.page import question, setting, title
from signbridge.results.format import FIGURES_FOLDER, REPORT_FILE
from signbridge.results.results import Results, load_results
from signbridge.runtime.files import refusal, replace_file, try_to_write

if TYPE_CHECKING:
    from signbridge.report.figures.plot import Plot
    from signbridge.report.inputs import Inputs

__all__ = ["render_page", "write_report"]


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
        # The maps of all layers show the best one too.
        every = any(plot.name == "umap_layers" for plot in drawn)
        on_page = [plot for plot in drawn if not (every and plot.name == "umap")]
        page = render_page(inputs, on_page, tuple(notes))
    try:
        for plot in drawn:
            plot.save(results.path / FIGURES_FOLDER)
        replace_file(path, page.encode("utf-8", errors="replace"), durable=False)
    except OSError as error:
        raise _not_written(results.path, error) from error
    return path


def render_page(inputs: Inputs, plots: Sequence[Plot], notes: Sequence[str] = ()) -> str:
    """Make the page: the first screen, then the sections.

    Args:
        inputs: A results folder with its activation store.
        plots: The figures, the most important one first.
        notes: Further warnings.

    Returns:
        HTML text.
    """
    results, findings = inputs.results, find(inputs.results)
    first = next(
        (p for p in plots if p.name == "usable_information" and results.summary.said), plots[0]
    )
    rest = [plot for plot in plots if plot is not first]
    images = browser(inputs, plots)
    sections = shown_sections(inputs, rest, findings.notes, {"images": images})
    return fill_template(
        "report.html.j2",
        scripts=[one.script for one, *_ in sections if one.script],
        title=title(results),
        question=question(results),
        headline=first_screen.headline(results),
        setting=setting(results),
        tiles=first_screen.tiles(results),
        verdicts=first_screen.verdicts(results),
        first=plot_words(first),
        warnings=(*findings.warnings, *notes),
        sections=[
            section(
                one.name,
                one.title or (plot.title if plot else one.name),
                content,
                one.template,
                plot=plot,
                note=note,
                closed=one.closed,
                wide=one.wide,
            )
            for one, plot, note, content in sections
        ],
        created=results.summary.created,
        images=images,
        pictures=None if images is None else images.pictures,
    )


def _not_written(folder: Path, error: OSError) -> ProbeError:
    return ProbeError(f"The report cannot be written: {refusal(error, folder)}.")


def _repr_html(results: Results) -> str:
    """The sentence and the figure of the first screen, as a notebook shows results."""
    from markupsafe import Markup

    plot = known_and_said(results) or layer_curve(results)
    words = plot_words(plot)
    return Markup("<p><strong>{}</strong></p><img src='{}' alt='{}' width='420'><p>{}</p>").format(
        first_screen.headline(results), words["picture"], plot.alt, plot.caption
    )


# Results lie a floor below and know no figures, so their look is given to them here.
Results._repr_html_ = _repr_html  # type: ignore[attr-defined]
