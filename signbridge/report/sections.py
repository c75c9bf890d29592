"""The sections of the report below its first screen, in the order of the page.

A section is one entry here: a figure of ``figures/registry.py``, something else, or both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from signbridge.report.text.page import (
    against_table,
    answers_table,
    command_lines,
    confusion_words,
    fit_rows,
    protocol_rows,
    provenance_rows,
    scores_table,
)

if TYPE_CHECKING:
    from signbridge.report.figures.plot import Plot
    from signbridge.report.inputs import Inputs
    from signbridge.results.results import Results

__all__ = ["SECTIONS", "Section", "shown_sections"]


@dataclass(frozen=True)
class Section:
    """A section that opens.

    Attributes:
        name: Its anchor; the figure of that name is shown in it.
        title: Its heading; that of its figure if empty.
        content: What else it shows, made from the inputs; nothing where that is None or empty.
        template: How that is shown, where its type does not say it: ``command``, ``browser``, or a
            file of ``templates`` that takes ``section.content``.
        script: A file of ``templates`` that the page runs where the section is shown.
        closed: Whether it is closed at first and left out in print: what only the specialist wants.
        wide: Whether it takes the whole width of the page.
    """

    name: str
    title: str = ""
    content: Callable[[Inputs], Any] | None = None
    template: str = ""
    script: str = ""
    closed: bool = False
    wide: bool = False


def _of(make: Callable[[Results], Any]) -> Callable[[Inputs], Any]:
    return lambda inputs: make(inputs.results)


SECTIONS = (
    Section("images", "Image by image", template="browser", script="images.js", wide=True),
    Section("umap", script="map.js", wide=True),
    Section("umap_layers", script="map.js", wide=True),
    Section("layer_curve"),
    Section("usable_information"),
    Section("class_grid"),
    Section("confusion", content=_of(confusion_words)),
    Section("differences"),
    Section("peak"),
    Section("leakage"),
    Section("memorisation"),
    Section("selectivity"),
    Section("description_length"),
    Section("accuracy_by_group"),
    Section("calibration"),
    Section("cka"),
    Section("answers", "What it answers, class by class", _of(answers_table), closed=True),
    Section("against", "The best layer against the rest", _of(against_table), closed=True),
    Section("scores", "All scores", _of(scores_table), closed=True, wide=True),
    Section("permutation", "Permuted labels", closed=True),
    Section("protocol", "Protocol", _of(protocol_rows), closed=True),
    Section("fits", "The fits", _of(fit_rows), closed=True),
    Section("provenance", "Where it comes from", _of(provenance_rows), closed=True),
    Section("again", "Make it again", _of(command_lines), "command", closed=True),
)


def shown_sections(
    inputs: Inputs, plots: Sequence[Plot], notes: Mapping[str, str], given: Mapping[str, Any]
) -> list[tuple[Section, Plot | None, str, Any]]:
    """The sections that have anything to show.

    Args:
        inputs: A results folder with its activation store.
        plots: The figures that were drawn.
        notes: Sentences by the name of their section.
        given: Content by the name of its section, where the page made it already.

    Returns:
        Each with its figure, its sentence and its further content.
    """
    by_name = {plot.name: plot for plot in plots}
    named = {section.name for section in SECTIONS}
    listed = [*(Section(name) for name in by_name if name not in named), *SECTIONS]
    found = []
    for section in listed:
        content = section.content(inputs) if section.content else given.get(section.name)
        part = section, by_name.get(section.name), notes.get(section.name, ""), content
        if any(part[1:]):
            found.append(part)
    return found
