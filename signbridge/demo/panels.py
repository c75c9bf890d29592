"""The panels of the demo, drawn from one reading: pictures in SVG that take the page's colours."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from signbridge.demo.reading import Reading
from signbridge.report.figures.style import COLOURS, INK, MUTED, printable, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LIKELIEST = 5
IN_HEATMAP = 8
_TICKS = ([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])


def known_and_said(reading: Reading) -> str:
    """How sure each layer is of the class that the best layer reads, beside what is said of it."""
    top = int(reading.probability[reading.best].argmax())
    name = short(reading.class_names[top], 20)
    known = reading.probability[:, top]
    chance = 1 / len(reading.class_names)
    choice = None if reading.forced_choice is None else float(reading.forced_choice[top])

    def draw(figure: Figure, axes: Axes) -> None:
        blue = COLOURS["blue"]
        axes.plot(reading.layers, known, color=blue, marker="o", label=f"knows: probe on “{name}”")
        if choice is not None:
            axes.axhline(
                choice, color=COLOURS["vermillion"], linestyle="--", linewidth=2,
                label=f"would say: “{name}” among the class names",
            )  # fmt: skip
        axes.axhline(chance, color=MUTED, linestyle=":", linewidth=1.5, label="chance")
        axes.set_ylim(-0.03, 1.05)
        axes.set_yticks(*_TICKS)
        _layers_below(axes, reading)
        figure.legend(loc="outside lower left", frameon=False, labelcolor=INK, fontsize=10)

    steps = ", ".join(
        f"layer {layer} {100 * value:.0f} %"
        for layer, value in zip(reading.layers, known, strict=True)
    )
    said = "" if choice is None else f" The forced choice gives it {100 * choice:.0f} %."
    panel = _panel(f"Known, would say, said: “{name}”", draw, f"{steps}.{said}", 3.6)
    return f"{panel}<p>{escape(_in_words(reading, top))}</p>"


def _in_words(reading: Reading, top: int) -> str:
    """Since which layer a class is the likeliest, and what is said of it."""
    name = printable(reading.class_names[top])
    others = np.flatnonzero(reading.probability.argmax(axis=1) != top)
    since = reading.layers[min(others[-1] + 1, len(reading.layers) - 1) if len(others) else 0]
    text = f"From layer {since} on every probe finds {name} likeliest. "
    if len(others) and others[-1] == len(reading.layers) - 1:
        text = f"The last layer's probe finds {name} likeliest no more. "
    if reading.forced_choice is not None:
        share = 100 * reading.forced_choice[top]
        text += f"Forced to choose, the model would say it at {share:.0f} %. "
    return f"{text}It says “{printable(reading.answer) if reading.answer else '(nothing)'}”."


def likeliest_classes(reading: Reading, slot: int) -> str:
    """The likeliest classes at one layer.

    Args:
        reading: of a picture.
        slot: index into its layers.
    """
    probability = reading.probability[slot]
    order = np.argsort(-probability, kind="stable")[:LIKELIEST]
    names = [short(reading.class_names[k], 20) for k in order]

    def draw(_: Figure, axes: Axes) -> None:
        places = range(len(order))[::-1]
        bars = axes.barh(places, probability[order], color=COLOURS["blue"])
        axes.set_yticks(places, names, fontsize=12)
        axes.bar_label(bars, [f"{100 * probability[k]:.0f} %" for k in order], padding=4, color=INK)
        axes.set_xlim(0, 1.14)
        axes.set_xticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])

    values = (f"{name} {100 * probability[k]:.0f} %" for name, k in zip(names, order, strict=True))
    title = f"Layer {reading.layers[slot]}: its likeliest classes"
    return _panel(title, draw, ", ".join(values) + ".", 2.4)


def layers_by_classes(reading: Reading) -> str:
    """A heatmap of the classes that are likeliest anywhere, by layer, always from 0 to 100 %."""
    order = np.argsort(-reading.probability.max(0), kind="stable")[:IN_HEATMAP]
    values = reading.probability[:, order].T
    names = [short(reading.class_names[k], 14) for k in order]

    def draw(figure: Figure, axes: Axes) -> None:
        shown = axes.pcolormesh(values, cmap="viridis", vmin=0, vmax=1, edgecolor="face")
        axes.invert_yaxis()
        axes.set_yticks(np.arange(len(order)) + 0.5, names)
        every = max(1, len(reading.layers) // 8)
        places = range(0, len(reading.layers), every)
        axes.set_xticks([k + 0.5 for k in places], [str(reading.layers[k]) for k in places])
        axes.set_xlabel("decoder layer")
        axes.spines[:].set_visible(False)
        if len(reading.layers) <= 12:
            for (row, column), value in np.ndenumerate(values):
                axes.text(
                    column + 0.5, row + 0.5, f"{100 * value:.0f}", ha="center", va="center",
                    color="#000000" if value > 0.6 else "#ffffff", fontsize=9,
                )  # fmt: skip
        bar = figure.colorbar(shown, ax=axes, ticks=_TICKS[0])
        bar.ax.set_yticklabels(_TICKS[1])
        bar.outline.set_visible(False)

    best = values.argmax(axis=1)
    peaks = (
        f"{name} at layer {reading.layers[k]} with {100 * row[k]:.0f} %"
        for name, k, row in zip(names, best, values, strict=True)
    )
    title = "Where in the network does each class stand out?"
    return _panel(title, draw, f"Highest: {', '.join(peaks)}.", 3.4)


def nearest_images(reading: Reading) -> str:
    """The training images nearest in the best layer, with their classes."""
    if reading.near is None:
        return ""
    cards = "".join(
        f'<li><img src="{escape(uri)}" alt=""><span>{escape(printable(name))}</span></li>'
        for uri, name in reading.near.images
    )
    layer = reading.layers[reading.best]
    return (
        f"<h2>The training images nearest to it in layer {layer}</h2>"
        f'<ul class="nearest">{cards}</ul>'
    )


def _panel(title: str, draw: Callable[[Figure, Axes], None], values: str, height: float) -> str:
    """A heading and a picture that takes text colours and font from the page.

    Args:
        title: The heading.
        draw: Draws it.
        values: What the picture shows, in words, for those who do not see it.
        height: In inches.
    """
    import matplotlib.style
    from matplotlib.figure import Figure

    rc = {"svg.fonttype": "none", "text.parse_math": False, "font.size": 10.5}
    with matplotlib.style.context(["default", rc]):
        figure = Figure(figsize=(4.6, height), layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        for kind in ("x", "y"):
            axes.tick_params(axis=kind, colors=INK)
        axes.spines[:].set_color(MUTED)
        axes.xaxis.label.set_color(INK)
        draw(figure, axes)
        for other in figure.axes:
            other.tick_params(colors=INK)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = text.replace(MUTED, "var(--body-text-color-subdued, currentColor)")
    label = escape(f"{title}. {values}")
    head = f'<svg role="img" aria-label="{label}" '
    text = re.sub(r'<svg ([^>]*?)width="[^"]*" ([^>]*?)height="[^"]*"', r"<svg \1\2", text, count=1)
    return f"<h2>{escape(title)}</h2>{text.replace('<svg ', head, 1)}"


def _layers_below(axes: Axes, reading: Reading) -> None:
    every = max(1, len(reading.layers) // 8)
    axes.set_xticks(reading.layers[::every])
    axes.set_xlabel("decoder layer")
