"""Each layer minus each baseline, on the same images, with corrected p-values."""

from __future__ import annotations

import math
from collections.abc import Sequence

from signbridge.report.figures import style
from signbridge.report.figures.axes import draw_differences, layer_axis, points
from signbridge.report.figures.plot import Canvas, Plot, build
from signbridge.report.groups import groups_of
from signbridge.results.comparisons import COMPARISON_COLUMNS, Comparison, p_text
from signbridge.results.results import Results

__all__ = ["differences_figure", "family_label"]

_AGAINST = "layers_vs_"
_ORDER = ("pixels", "vision", "projector", "random_weights", "majority")
_HEAD = 0.56
_COLOURS = {
    "above": style.COLOURS["blue"],
    "below": style.COLOURS["vermillion"],
}


def family_label(family: str) -> str:
    """What a family of comparisons compares, in words."""
    if family == "layers_vs_peak":
        return "minus the best layer"
    if family == "adjacent_layers":
        return "minus the layer before"
    if family.startswith(_AGAINST):
        name = family[len(_AGAINST) :]
        other = "random weights" if name == "random_weights" else (
            style.feature_label(name)
        )  # fmt: skip
        return f"minus {other}"
    return family.replace("_", " ")


def differences_figure(results: Results) -> Plot | None:
    """Draw a panel for every baseline: each layer's accuracy minus the baseline's.

    Args:
        results: A results folder.

    Returns:
        The figure, or None where no comparisons were written. Columns of its data: those of
        ``comparisons.csv``.
    """
    against = [n[len(_AGAINST) :] for n in dict.fromkeys(c.family for c in results.comparisons)
               if n.startswith(_AGAINST) and n != "layers_vs_peak"]  # fmt: skip
    order = {name: i for i, name in enumerate(_ORDER)}
    families = [f"{_AGAINST}{n}" for n in sorted(against, key=lambda n: order.get(n, 99))]
    families += ["adjacent_layers"]
    panels = [(f, rows) for f in families if (rows := _with_layers(results, f))]
    if not panels:
        return None

    counts = []
    for family, rows in panels:
        above = sum(c.relation == "above" for c in rows)
        below = sum(c.relation == "below" for c in rows)
        counts.append(f"{family_label(family)}: {above} above, {below} below of {len(rows)}")
    n = len(panels)
    return build(
        "differences",
        lambda canvas: _draw(canvas, results, panels),
        title="Layer by layer against the baselines",
        caption=_caption(results),
        alt="; ".join(counts) + ".",
        height=(
            _HEAD + math.ceil(n / min(3, n)) * 2.15 + 0.28,
            _HEAD + math.ceil(n / min(2, n)) * 1.75 + 0.28,
        ),
        columns=COMPARISON_COLUMNS,
        rows=(c for _, rows in panels for c in rows),
    )


def _caption(results: Results) -> str:
    groups = groups_of(results)
    if groups.too_few:
        return f"Paired differences; {groups.permit_nothing} no interval and no test of them."
    by = "" if groups.flips else f" by Student's t over {groups.words},"
    return (
        f"Paired differences with 95 % intervals. Filled: p below 0.05{by} "
        "after correction for all layers of the panel (blue above, orange below); open: not "
        "shown to differ."
    )


def _with_layers(results: Results, family: str) -> list[Comparison]:
    return [
        c for c in results.family(family) if c.layer is not None and math.isfinite(c.difference)
    ]


def _draw(
    canvas: Canvas, results: Results, panels: Sequence[tuple[str, Sequence[Comparison]]]
) -> None:
    canvas.heading(
        "Each layer minus each baseline",
        "difference of held-out accuracy in points · filled: differs after correction",
    )
    columns = min(2 if canvas.narrow else 3, len(panels))
    rows = math.ceil(len(panels) / columns)
    each = (canvas.height - _HEAD - 0.28) / rows
    across = (canvas.width - 0.1) / columns
    for number, (family, listed) in enumerate(panels):
        column, row = number % columns, number // columns
        ax = canvas.axes(
            column * across + 0.55, _HEAD + row * each + 0.32, across - 0.65, each - 0.60
        )
        name = style.fit(canvas.figure, family_label(family), across - 0.5, 8.8, "bold")
        style.text(
            ax, 0.0, 1.04, name, transform=ax.transAxes, size=8.8, weight="bold", va="bottom"
        )  # fmt: skip
        draw_differences(ax, listed, _COLOURS, size=3.0 if len(listed) > 16 else 4.6, bins=5)
        last = row == rows - 1 or number + columns >= len(panels)
        below = f"{results.stack} layer" if last else ""
        layer_axis(ax, results.layers, 5 if canvas.narrow else 7, below)
        tips = {c.layer: _tip(family, c) for c in listed if c.layer is not None}
        canvas.layer_spots(ax, results.layers, tips.get)


def _tip(family: str, c: Comparison) -> str:
    text = f"layer {c.layer}: {points(c.difference)} points"
    if math.isfinite(c.ci_low) and math.isfinite(c.ci_high):
        text += f" [{points(c.ci_low)} to {points(c.ci_high)}]"
    corrected = p_text(c.p_corrected, "corrected p")
    raw = p_text(c.p)
    return "\n".join(part for part in (family_label(family), text, raw, corrected) if part)
