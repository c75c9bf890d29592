"""Where the curve has its peak, and how much the data say about that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from signbridge.report.figures import style
from signbridge.report.figures.axes import draw_differences, layer_axis, per_cent_axis, points
from signbridge.report.figures.plot import Canvas, Plot, build
from signbridge.results.comparisons import Comparison, p_text
from signbridge.results.results import Results
from signbridge.results.summary import Peak

__all__ = ["peak_figure"]


def peak_figure(results: Results) -> Plot | None:
    """Draw which layer is the highest how often, and each layer's distance to the best.

    Args:
        results: A results folder.

    Returns:
        The figure, or None where the peak's place was not measured. Columns of its data: layer,
        share_of_draws, candidate, p_of_being_highest, folds_that_chose_it, difference_to_peak,
        ci_low, ci_high, p, p_corrected.
    """
    found = results.summary.peak
    if found is None or not found.share:
        return None
    behind = {c.layer: c for c in results.family("layers_vs_peak") if c.layer is not None}
    nested = results.summary.nested
    chosen = Counter(() if nested is None else nested.layers_chosen)
    place = (
        f"layer {found.low}" if found.low == found.high else f"layers {found.low} to {found.high}"
    )
    many = f"{len(found.candidates)} of {len(results.layers)} layers"
    return build(
        "peak",
        lambda canvas: _draw(canvas, results, found, behind, chosen),
        title="Where the peak is",
        caption=(
            "Line: 95 % interval of the peak’s place; blue: not excluded from it; circles: "
            "folds that chose the layer inside training."
            + (" Below, filled: differs after correction." if behind else "")
        ),
        alt=f"The best layer is {found.layer}; 95 % interval of its place: {place}; "
        f"{many} not excluded.",
        height=4.7 if behind else 2.6,
        columns=(
            *("layer", "share_of_draws", "candidate", "p_of_being_highest"),
            "folds_that_chose_it",
            *("difference_to_peak", "ci_low", "ci_high", "p", "p_corrected"),
        ),
        rows=(
            (
                k,
                found.share.get(k, 0.0),
                int(k in found.candidates),
                found.p.get(k),
                chosen.get(k, 0),
                *_behind(behind.get(k)),
            )
            for k in results.layers
        ),
    )


def _behind(c: Comparison | None) -> tuple[float | None, ...]:
    if c is None:
        return (None,) * 5
    return c.difference, c.ci_low, c.ci_high, c.p, c.p_corrected


def _draw(
    canvas: Canvas,
    results: Results,
    found: Peak,
    behind: dict[int, Comparison],
    chosen: Mapping[int, int],
) -> None:
    canvas.heading(
        "Which layer is the highest?",
        "share of bootstrap draws in which a layer is the highest",
    )
    left, gap, low = 0.72, 0.62, 0.52
    top = canvas.top + 0.05
    layers, axis = results.layers, f"{results.stack} layer (0 = first)"
    room = canvas.height - top - low
    first = (room - gap) * 0.5 if behind else room
    most = 9 if canvas.narrow else 17
    across = canvas.width - left - 0.15

    def tip(k: int) -> str:
        return _tip(k, found, behind.get(k), chosen.get(k, 0))

    ax = canvas.axes(left, top, across, first)
    high = max(found.share.values())
    for k in layers:
        colour = style.COLOURS["blue"] if k in found.candidates else "#b9bec4"
        ax.bar(k, found.share.get(k, 0.0), width=0.72, color=colour, linewidth=0)
    top_fold = high * (1.06 + 0.055 * max(chosen.values(), default=0))
    ceiling = top_fold + 0.22 * high
    ax.set_ylim(0, ceiling)
    y = top_fold + 0.1 * high
    ax.plot([found.low, found.high], [y, y], color=style.INK, linewidth=1.3)
    for end in (found.low, found.high):
        ax.plot(
            [end, end], [y - 0.03 * ceiling, y + 0.03 * ceiling], color=style.INK, linewidth=1.3
        )
    for k, count in chosen.items():
        for i in range(count):
            ax.plot(
                [k], [high * (1.06 + 0.055 * i)], "o", markersize=3.2,
                markerfacecolor="none", markeredgecolor=style.INK, markeredgewidth=0.9,
            )  # fmt: skip
    per_cent_axis(ax.yaxis, bins=4)
    layer_axis(ax, layers, most, "" if behind else axis)
    canvas.layer_spots(ax, layers, tip)
    if not behind:
        return
    below = canvas.axes(left, top + first + gap, across, room - gap - first)
    draw_differences(below, list(behind.values()), style.COLOURS["blue"])
    below.plot([found.layer], [0], "D", markersize=6, color=style.INK)
    layer_axis(below, layers, most, axis)
    style.text(
        below, 0.0, 1.03, "accuracy minus that of the best layer, in points",
        transform=below.transAxes, size=8.8, color=style.MUTED, va="bottom",
    )  # fmt: skip
    canvas.layer_spots(below, layers, tip)


def _tip(k: int, found: Peak, c: Comparison | None, folds: int) -> str:
    lines = [f"layer {k}" + (" (the best)" if k == found.layer else "")]
    share = style.format_value("accuracy", found.share.get(k, 0.0))
    lines.append(f"highest in {share} of the draws")
    if k in found.p:
        lines.append(f"not excluded from being it: {'yes' if k in found.candidates else 'no'}, "
                     f"{p_text(found.p[k])}")  # fmt: skip
    if folds:
        lines.append(f"chosen by {folds} fold{'s' if folds > 1 else ''}")
    if c is not None:
        interval = f" [{points(c.ci_low)} to {points(c.ci_high)}]"
        lines.append(f"{points(c.difference)} points to the best layer{interval}")
        if p := p_text(c.p_corrected, "corrected p"):
            lines.append(p)
    return "\n".join(lines)
