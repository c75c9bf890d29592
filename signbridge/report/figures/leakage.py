"""What the split alone is worth: each feature under the main split and under the random one."""

from __future__ import annotations

import math

from signbridge.report.figures import style
from signbridge.report.figures.axes import per_cent_axis
from signbridge.report.figures.plot import Canvas, Plot, build
from signbridge.results.features import RESID_POST, UNTRAINED
from signbridge.results.results import Results, Score
from signbridge.store.provenance import grouping

__all__ = ["leakage_figure", "leakage_pairs"]


def leakage_pairs(results: Results, metric: str = "accuracy") -> list[tuple[Score, Score]]:
    """Scores of the best layer and of every baseline under the main and the random split.

    Args:
        results: A results folder.
        metric: A metric of ``scores.csv``.

    Returns:
        Pairs (main split, random split); empty where there is no second split named ``random``.
    """
    if results.split == "random" or "random" not in results.splits:
        return []
    pairs = []
    best = results.score(RESID_POST, results.best_layer, metric)
    for main in ([best] if best else []) + results.baselines(metric, results.split):
        other = results.score(main.feature, main.layer, metric, "random")
        if main.feature not in UNTRAINED and other and math.isfinite(other.value):
            pairs.append((main, other))
    return pairs


def leakage_figure(results: Results) -> Plot | None:
    """Draw the leakage as one bar from the main split's accuracy to the random split's.

    Args:
        results: A results folder.

    Returns:
        The figure, or None where nothing was scored under a random split beside the main one.
        Columns of its data: feature, layer, split, value, ci_low, ci_high.
    """
    pairs = leakage_pairs(results)
    if not pairs:
        return None

    return build(
        "leakage",
        lambda canvas: _draw(canvas, results, pairs),
        title="Leakage",
        caption=(
            f"A random split may part {_group(results)}; the distance also holds what else differs "
            "between the splits."
        ),
        alt="; ".join(
            f"{_name(main, results.stack)} {style.format_value('accuracy', main.value)} with "
            f"{style.split_label(results.split)} and "
            f"{style.format_value('accuracy', other.value)} with a random split"
            for main, other in pairs
        )
        + ".",
        height=(1.25 + 0.46 * len(pairs), 1.65 + 0.46 * len(pairs)),
        columns=("feature", "layer", "split", "value", "ci_low", "ci_high"),
        rows=(s for pair in pairs for s in pair),
    )


def _group(results: Results) -> str:
    words = grouping(results.provenance)
    return "near-duplicates" if words.kind == "none" else words.one


def _name(s: Score, stack: str) -> str:
    return style.feature_label(s.feature) if s.layer is None else f"{stack} layer {s.layer}"


def _draw(canvas: Canvas, results: Results, pairs: list[tuple[Score, Score]]) -> None:
    canvas.heading(
        "What a random split would have claimed",
        f"held-out accuracy · filled: {style.split_label(results.split)} · open: random split · "
        "right: difference in points",
    )
    names = [_name(main, results.stack) for main, _ in pairs]
    left = 0.25 + max(style.text_width(canvas.figure, name, 10) for name in names)
    ax = canvas.axes_between(left, 0.75, 0.38)
    ax.set_xlim(0, min(1.0, 1.12 * max(max(a.value, b.value) for a, b in pairs)))
    ax.set_ylim(len(pairs) - 0.5, -0.5)
    ax.set_yticks(range(len(pairs)), names)
    for tick in ax.get_yticklabels():
        tick.set_parse_math(False)
    ax.tick_params(axis="y", length=0, labelsize=10)
    ax.spines["left"].set_visible(False)
    per_cent_axis(ax.xaxis, bins=3 if canvas.narrow else 5)
    ax.grid(axis="x")
    for i, (main, other) in enumerate(pairs):
        ax.plot([main.value, other.value], [i, i], color=style.FAINT, linewidth=5, zorder=1)
        for s, colour, face in (
            (main, style.COLOURS["blue"], style.COLOURS["blue"]),
            (other, style.COLOURS["vermillion"], "white"),
        ):
            if math.isfinite(s.ci_low) and math.isfinite(s.ci_high):
                ax.plot([s.ci_low, s.ci_high], [i, i], color=colour, linewidth=1.3, zorder=2)
            ax.plot(
                [s.value], [i], "o", markersize=8, color=colour, markerfacecolor=face,
                markeredgewidth=1.8, zorder=3, clip_on=False,
            )  # fmt: skip
        difference = 100 * (other.value - main.value)
        style.text(
            ax, 1.02, i, f"{difference:+.1f}".replace("-", "−"), transform=ax.get_yaxis_transform(),
            va="center", size=10, weight="bold",
        )  # fmt: skip
        canvas.spot(
            ax,
            None,
            (i - 0.5, i + 0.5),
            f"{_name(main, results.stack)}\n{style.split_label(results.split)}: "
            f"{style.format_value('accuracy', main.value)}\n"
            f"random split: {style.format_value('accuracy', other.value)}",
        )
