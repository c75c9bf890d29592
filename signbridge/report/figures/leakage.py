"""What the split alone is worth: each feature under the main split and under the random one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from signbridge.report.figures import style
from signbridge.report.figures.plot import Plot, Spot
from signbridge.results.results import SITE, UNTRAINED, Results, Score
from signbridge.store.grouping import grouping

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    best = results.score(SITE, results.best_layer, metric)
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

    def draw(figure: Figure) -> list[Spot]:
        return _draw(figure, results, pairs)

    height = 1.25 + 0.46 * len(pairs)
    gaps = "; ".join(
        f"{_name(main)} {style.format_value('accuracy', main.value)} with "
        f"{style.split_label(results.split)} and "
        f"{style.format_value('accuracy', other.value)} with a random split"
        for main, other in pairs
    )
    return Plot(
        name="leakage",
        title="Leakage",
        caption=(
            f"Filled: accuracy with {style.split_label(results.split)}; open: accuracy with a "
            f"random split, which may put images of {_group(results)} on both sides. The distance "
            "is what that is worth, together with what else differs between the two splits."
        ),
        alt=f"{gaps}.",
        wide=style.render(draw, 8.0, height),
        narrow=style.render(draw, 4.2, height + 0.4),
        columns=("feature", "layer", "split", "value", "ci_low", "ci_high"),
        rows=tuple(
            (
                s.feature,
                "" if s.layer is None else s.layer,
                s.split,
                s.value,
                *("" if math.isnan(v) else v for v in (s.ci_low, s.ci_high)),
            )
            for pair in pairs
            for s in pair
        ),
    )


def _group(results: Results) -> str:
    words = grouping(results.provenance)
    return "one photograph" if words.kind == "none" else words.one


def _name(s: Score) -> str:
    return style.feature_label(s.feature) if s.layer is None else f"decoder layer {s.layer}"


def _draw(figure: Figure, results: Results, pairs: list[tuple[Score, Score]]) -> list[Spot]:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    width, height = figure.get_size_inches()
    top = style.heading(
        figure,
        "What a random split would have claimed",
        f"held-out accuracy · filled: {style.split_label(results.split)} · open: random split · "
        "right: difference in points",
    )
    left = 0.25 + max(style.text_width(figure, _name(main), 10) for main, _ in pairs)
    ax: Any = figure.add_axes(
        (left / width, 0.38 / height, 1 - (left + 0.75) / width, 1 - (0.38 + top) / height)
    )
    ax.set_xlim(0, min(1.0, 1.12 * max(max(a.value, b.value) for a, b in pairs)))
    ax.set_ylim(len(pairs) - 0.5, -0.5)
    ax.set_yticks(range(len(pairs)), [_name(main) for main, _ in pairs])
    for tick in ax.get_yticklabels():
        tick.set_parse_math(False)
    ax.tick_params(axis="y", length=0, labelsize=10)
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(5 if width > 6 else 3, steps=[1, 2, 2.5, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.0f}{style.PER_CENT}"))
    ax.grid(axis="x")
    spots = []
    box = ax.get_position()
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
        spots.append(
            Spot(
                0,
                1 - box.y1 + box.height * i / len(pairs),
                1,
                box.height / len(pairs),
                f"{_name(main)}\n{style.split_label(results.split)}: "
                f"{style.format_value('accuracy', main.value)}\n"
                f"random split: {style.format_value('accuracy', other.value)}",
            )
        )
    return spots
