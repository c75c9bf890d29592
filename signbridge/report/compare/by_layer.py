"""Each run minus the first one, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from signbridge.report.compare.differences import PairedDifference
from signbridge.report.compare.run_style import run_style
from signbridge.report.compare.runs import DEPTH_LABEL, Run, depth_axis, layer_words
from signbridge.report.figures import style
from signbridge.report.figures.axes import draw_differences, layer_axis, points
from signbridge.report.figures.plot import Canvas, Plot, build
from signbridge.results.comparisons import p_text
from signbridge.statistics.metrics import measure

__all__ = ["differences_by_layer"]


def differences_by_layer(runs: Sequence[Run], found: Sequence[PairedDifference]) -> Plot | None:
    """Draw each run minus the first one, layer by layer.

    Args:
        runs: The runs.
        found: The paired differences.

    Returns:
        The figure, or None where no run has images of the first. Columns of its data: run, other,
        layer, metric, difference, ci_low, ci_high, p, p_corrected, other_layer, relative_depth,
        other_relative_depth.
    """
    first = runs[0].name
    panels = []
    for number, run in enumerate(runs[1:], start=1):
        rows = [d for d in found if (d.run, d.other, d.family) == (run.name, first, "layers")]
        if rows:
            panels.append((number, run, rows))
    if not panels:
        return None
    metric = panels[0][2][0].metric
    unit = measure(metric).unit_of_differences
    depth = depth_axis(runs)

    return build(
        "differences",
        lambda canvas: _draw(canvas, runs, panels, metric, unit),
        title="Run minus run, layer by layer",
        caption=(
            f"Paired differences to {style.printable(first)} on the same images, in {unit}, with "
            "95 % intervals. Filled: the p-value is below 0.05 after correction for all layers of "
            "the panel."
            + (
                " Of models of different depth, each layer of the one with fewer is paired with "
                "the layer of the other that is nearest by relative depth."
                if depth
                else ""
            )
        ),
        alt="; ".join(
            f"{run.name}: {sum(d.relation == 'above' for d in rows)} layers above, "
            f"{sum(d.relation == 'below' for d in rows)} below"
            for _, run, rows in panels
        )
        + ".",
        height=0.45 + 1.75 * len(panels),
        columns=(
            *("run", "other", "layer", "metric", "difference", "ci_low", "ci_high"),
            *("p", "p_corrected", "other_layer", "relative_depth", "other_relative_depth"),
        ),
        rows=(d for _, _, rows in panels for d in rows),
    )


def _draw(
    canvas: Canvas,
    runs: Sequence[Run],
    panels: Sequence[tuple[int, Run, Sequence[PairedDifference]]],
    metric: str,
    unit: str,
) -> None:
    figure, width = canvas.figure, canvas.width
    canvas.heading(f"Minus {style.fit(figure, runs[0].name, width - 1.6, 11)}, in {unit}")
    each = (canvas.height - canvas.top - 0.1) / len(panels)
    for row, (number, run, listed) in enumerate(panels):
        colour, marker, _ = run_style(number)
        ax = canvas.axes(0.72, canvas.top + row * each + 0.26, width - 0.87, each - 0.68)
        title = style.fit(figure, run.name, width - 1.0, 9, "bold")
        style.text(ax, 0, 1.04, title, transform=ax.transAxes, size=9, weight="bold", va="bottom")
        places = [d.relative_depth or 0.0 for d in listed] if depth_axis(runs) else None
        draw_differences(
            ax, listed, colour, marker=marker, per_cent=measure(metric).is_share, places=places
        )
        last = row == len(panels) - 1
        if places is not None:
            ax.set_xlim(-0.03, 1.03)
            ax.set_xlabel(DEPTH_LABEL if last else "", loc="left")
            for d, at in zip(listed, places, strict=True):
                what = f"{layer_words(run, d.layer, runs)} minus layer {d.other_layer}"
                canvas.spot(ax, at, d.difference, _difference_text(d, what))
            continue
        tips = {
            d.layer: _difference_text(d, f"layer {d.layer}") for d in listed if d.layer is not None
        }
        layers = sorted(tips)
        layer_axis(ax, layers, 9 if canvas.narrow else 17, "decoder layer" if last else "")
        canvas.layer_spots(ax, layers, tips.get)


def _difference_text(d: PairedDifference, what: str) -> str:
    if measure(d.metric).is_share:
        low, value, high = (points(v) for v in (d.ci_low, d.difference, d.ci_high))
    else:
        low, value, high = (
            f"{v:+.2f}".replace("-", "−") for v in (d.ci_low, d.difference, d.ci_high)
        )
    ends = f" [{low} to {high}]" if math.isfinite(d.ci_low) and math.isfinite(d.ci_high) else ""
    lines = [f"{d.run} minus {d.other}", f"{what}: {value}{ends}"]
    return "\n".join(filter(None, (*lines, p_text(d.p_corrected, "corrected p"))))
