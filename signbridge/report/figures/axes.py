"""Axes that several figures share: layers along the bottom, shares and differences in per cent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from signbridge.report.figures import style
from signbridge.statistics.metrics import measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from signbridge.results.comparisons import Comparison

__all__ = ["draw_differences", "layer_axis", "per_cent_axis", "points", "value_axis"]


def points(difference: float, digits: int = 1) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{round(100 * difference, digits) + 0.0:+.{digits}f}".replace("-", "−")


def layer_axis(ax: Axes, layers: Sequence[int], most: int, label: str = "") -> None:
    """Ticks at the layers, the labels thinned to at most ``most``."""
    span = max(1, layers[-1] - layers[0])
    ax.set_xlim(layers[0] - max(0.5, 0.03 * span), layers[-1] + max(0.5, 0.03 * span))
    ticks = style.labels_at(layers, most)
    ax.set_xticks(ticks, [str(t) for t in ticks])
    ax.set_xticks(list(layers), minor=True)
    ax.tick_params(which="minor", length=2)
    if label:
        ax.set_xlabel(label, loc="left")


def per_cent_axis(axis: Any, *, signed: bool = False, bins: int = 5) -> None:
    """Tick labels of shares in per cent, or of differences in points."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(bins, steps=[1, 2, 2.5, 5, 10]))
    if signed:
        axis.set_major_formatter(
            FuncFormatter(
                lambda v, _: f"{100 * v:+.0f}".replace("-", "−") if abs(v) > 1e-9 else "0"
            )
        )
    else:
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.0f}{style.PER_CENT}"))


def value_axis(axis: Any, metric: str, bins: int) -> None:
    """Tick labels of a metric: shares in per cent, others as they are."""
    from matplotlib.ticker import MaxNLocator

    if measure(metric).is_share:
        per_cent_axis(axis, bins=bins)
    else:
        axis.set_major_locator(MaxNLocator(bins, steps=[1, 2, 2.5, 5, 10]))


def draw_differences(
    ax: Any,
    rows: Sequence[Comparison],
    colours: Mapping[str, str] | str,
    *,
    marker: str = "o",
    size: float = 4.8,
    bins: int = 4,
    per_cent: bool = True,
    places: Sequence[float] | None = None,
) -> None:
    """Draw differences with their intervals, filled where they differ after correction.

    Args:
        ax: Axes whose x is the layer, or what ``places`` are.
        rows: Comparisons of layers.
        colours: Colour of each relation (``above``, ``below``, ``open``), or of all.
        marker: Marker of all.
        size: Size of the markers.
        bins: Most ticks of the vertical axis.
        per_cent: Whether differences are shares, shown in points.
        places: Where each stands, instead of at its layer.
    """
    ax.axhline(0, color=style.INK, linewidth=1.0, zorder=1)
    for c, x in zip(rows, places or [c.layer or 0 for c in rows], strict=True):
        colour = colours if isinstance(colours, str) else colours.get(c.relation, style.MUTED)
        face = colour if c.relation in {"above", "below"} else "white"
        ax.plot([x, x], [c.ci_low, c.ci_high], color=colour, linewidth=size / 3.2)
        ax.plot(
            [x], [c.difference], marker, color=colour, markersize=size, markerfacecolor=face,
            markeredgewidth=1.2,
        )  # fmt: skip
    if per_cent:
        per_cent_axis(ax.yaxis, signed=True, bins=bins)
    ax.grid(axis="y")
