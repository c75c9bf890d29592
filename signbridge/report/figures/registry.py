"""The figures of the report, in the order of its page.

A figure is a file that makes a :class:`~signbridge.report.figures.plot.Plot`, and an entry here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from signbridge.report.figures.accuracy_by_group import accuracy_by_group
from signbridge.report.figures.cka import cka_figure
from signbridge.report.figures.class_grid import class_grid
from signbridge.report.figures.confusion import confusion
from signbridge.report.figures.differences import differences_figure
from signbridge.report.figures.layer_curve import known_and_said, layer_curve, other_metric
from signbridge.report.figures.leakage import leakage_figure
from signbridge.report.figures.memorisation import memorisation_figure, selectivity_figure
from signbridge.report.figures.peak import peak_figure
from signbridge.report.figures.reliability import reliability_figure
from signbridge.report.figures.umap import layer_map, layer_maps

if TYPE_CHECKING:
    from signbridge.report.figures.plot import Plot
    from signbridge.report.inputs import Inputs

__all__ = ["FIGURES", "Entry", "draw_figures"]


@dataclass(frozen=True)
class Entry:
    """A figure of the report.

    Attributes:
        draw: Makes it; None where the results do not hold what it shows.
        needs_store: Whether it is drawn only where the activation store was found.
    """

    draw: Callable[[Inputs], Plot | None]
    needs_store: bool = False


FIGURES = (
    Entry(lambda inputs: layer_curve(inputs.results)),
    Entry(lambda inputs: known_and_said(inputs.results)),
    Entry(lambda inputs: leakage_figure(inputs.results)),
    Entry(lambda inputs: memorisation_figure(inputs.results)),
    Entry(lambda inputs: selectivity_figure(inputs.results)),
    Entry(lambda inputs: differences_figure(inputs.results)),
    Entry(lambda inputs: peak_figure(inputs.results)),
    Entry(lambda inputs: other_metric(inputs.results, "usable_information")),
    Entry(lambda inputs: other_metric(inputs.results, "description_length")),
    Entry(lambda inputs: class_grid(inputs.results, inputs.pixels, inputs.store)),
    Entry(lambda inputs: confusion(inputs.results)),
    Entry(lambda inputs: accuracy_by_group(inputs.results)),
    Entry(lambda inputs: reliability_figure(inputs.results)),
    Entry(layer_map, needs_store=True),
    Entry(layer_maps, needs_store=True),
    Entry(cka_figure, needs_store=True),
)


def draw_figures(inputs: Inputs) -> Iterator[Plot]:
    """Draw the figures that the inputs hold the data for, the most important one first."""
    for entry in FIGURES:
        if inputs.store is not None or not entry.needs_store:
            plot = entry.draw(inputs)
            if plot is not None:
                yield plot
