"""The three panels of the demo, drawn from one reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from signbridge.demo.reading import Reading
from signbridge.report.figures.style import COLOURS, INK, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LIKELIEST = 5
IN_HEATMAP = 8


def confidence_by_layer(reading: Reading) -> Figure:
    """Probability of each layer's likeliest class, which is written at its point, with chance."""
    figure, axes = _empty("How sure is each layer, and of what?")
    top = reading.probability.argmax(1)
    height = reading.probability.max(1)
    chance = 1 / len(reading.class_names)
    axes.axhline(chance, color=MUTED, linestyle=":", linewidth=1.5)
    axes.annotate(
        f"chance, 1 in {len(reading.class_names)}",
        (1, chance),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="bottom",
        color=MUTED,
        fontsize=9,
    )
    axes.plot(reading.layers, height, color=COLOURS["blue"], marker="o")
    for layer, value, index in zip(reading.layers, height, top, strict=True):
        axes.annotate(
            reading.class_names[index],
            (layer, value),
            textcoords="offset points",
            xytext=(0, 7),
            ha="center",
            color=INK,
            fontsize=11 if len(reading.layers) < 20 else 8,
            fontweight="bold",
        )
    axes.set_ylim(0, 1.12)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    _layers_below(axes, reading)
    axes.set_ylabel("probability of the likeliest class")
    return figure


def likeliest_classes(reading: Reading, slot: int) -> Figure:
    """The likeliest classes at one layer.

    Args:
        reading: of a picture.
        slot: index into its layers.
    """
    figure, axes = _empty(f"Layer {reading.layers[slot]}: its likeliest classes")
    probability = reading.probability[slot]
    order = np.argsort(-probability, kind="stable")[:LIKELIEST][::-1]
    bars = axes.barh(
        [reading.class_names[k] for k in order], probability[order], color=COLOURS["blue"]
    )
    axes.bar_label(bars, [f"{100 * probability[k]:.0f} %" for k in order], padding=4, color=INK)
    axes.set_xlim(0, 1.12)
    axes.set_xticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    axes.tick_params(axis="y", labelsize=12)
    axes.set_xlabel("probability")
    return figure


def layers_by_classes(reading: Reading) -> Figure:
    """A heatmap of the classes that are likeliest anywhere, by layer."""
    figure, axes = _empty("Where in the network does each class stand out?")
    order = np.argsort(-reading.probability.max(0), kind="stable")[:IN_HEATMAP]
    values = reading.probability[:, order].T
    highest = max(0.25, float(values.max()))  # faint readings stay visible, none looks sure
    shown = axes.imshow(values, aspect="auto", cmap="viridis", vmin=0, vmax=highest)
    axes.set_yticks(range(len(order)), [reading.class_names[k] for k in order])
    every = max(1, len(reading.layers) // 8)
    places = range(0, len(reading.layers), every)
    axes.set_xticks(places, [str(reading.layers[k]) for k in places])
    axes.set_xlabel("decoder layer")
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(shown, ax=axes, format=lambda value, _: f"{100 * value:.0f} %")
    bar.outline.set_visible(False)
    return figure


def _empty(title: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", color=INK, fontsize=12, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _layers_below(axes: Axes, reading: Reading) -> None:
    every = max(1, len(reading.layers) // 8)
    axes.set_xticks(reading.layers[::every])
    axes.set_xlabel("decoder layer")
