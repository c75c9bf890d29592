"""The few numbers that tell what was found, for those who look rather than read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from signbridge.report.figures import style
from signbridge.report.figures.axes import points
from signbridge.report.groups import few_accuracies, groups_of
from signbridge.results.comparisons import p_text
from signbridge.results.features import RESID_POST

if TYPE_CHECKING:
    from signbridge.results.results import Results

__all__ = ["KeyFigure", "interval_text", "key_figures", "points_interval"]


@dataclass(frozen=True)
class KeyFigure:
    """One number of the summary.

    Attributes:
        label: What it is.
        value: The number as text.
        detail: Its interval, or what it belongs to; may be empty.
    """

    label: str
    value: str
    detail: str = ""


def interval_text(low: float, high: float, metric: str = "accuracy") -> str:
    """An interval as text, empty where there is none."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    first = style.format_value(metric, low).removesuffix(style.PER_CENT)
    return f"{first} to {style.format_value(metric, high)}"


def points_interval(low: float, high: float) -> str:
    """An interval of a difference in points as text, empty where there is none."""
    known = math.isfinite(low) and math.isfinite(high)
    return f"{points(low)} to {points(high)}" if known else ""


def key_figures(results: Results) -> list[KeyFigure]:
    """The numbers that belong to the headline.

    Args:
        results: A results folder.

    Returns:
        As many as were measured, the most important one first.
    """
    found = [
        _best(results),
        _peak(results),
        _nested(results),
        _baseline(results),
        _leakage(results),
        *_memorised(results),
        _permuted(results),
    ]
    return [figure for figure in found if figure is not None]


def _best(results: Results) -> KeyFigure | None:
    s = results.score(RESID_POST, results.best_layer, "accuracy")
    if s is None:
        return None
    values = few_accuracies(results, results.best_feature).values()
    parts = [interval_text(s.ci_low, s.ci_high)]
    if values:
        parts.append(f"{groups_of(results).words}: {interval_text(min(values), max(values))}")
    return KeyFigure(
        f"accuracy, layer {results.best_layer} (the best)",
        style.format_value("accuracy", s.value),
        "; ".join(filter(None, parts)),
    )


def _peak(results: Results) -> KeyFigure | None:
    found = results.summary.peak
    if found is None:
        return None
    place = (
        f"layer {found.low}" if found.low == found.high else f"layers {found.low} to {found.high}"
    )
    few = f"{len(found.candidates)} of {len(results.layers)} layers not excluded"
    return KeyFigure("where the peak is (95 %)", place, few if found.candidates else "")


def _nested(results: Results) -> KeyFigure | None:
    nested = results.summary.nested
    if nested is None:
        return None
    return KeyFigure(
        "accuracy, layer chosen inside training",
        style.format_value("accuracy", nested.accuracy),
        interval_text(*nested.ci),
    )


def _baseline(results: Results) -> KeyFigure | None:
    """The strongest of the trained baselines, the random weights' same layer among them."""
    others = results.trained_baselines()
    if not others:
        return None
    s = max(others, key=lambda s: s.value)
    name = style.feature_label(s.feature) + (f", layer {s.layer}" if s.layer is not None else "")
    return KeyFigure(
        f"strongest baseline: {name}",
        style.format_value("accuracy", s.value),
        interval_text(s.ci_low, s.ci_high),
    )


def _leakage(results: Results) -> KeyFigure | None:
    leakage = results.summary.leakage
    if leakage is None:
        return None
    value = leakage.difference
    if not math.isfinite(value):
        value = leakage.random - leakage.grouped
    # Below 0 it is none; the page says why.
    if not math.isfinite(value) or (value < 0 and not leakage.ci[1] >= 0):
        return None
    return KeyFigure(
        "leakage: random minus main split",
        f"{points(value)} points",
        points_interval(*leakage.ci),
    )


def _memorised(results: Results) -> list[KeyFigure]:
    found = results.summary.memorisation
    if found is None:
        return []
    figures = [
        KeyFigure(
            f"memorised: control task, layer {found.layer}",
            style.format_value("accuracy", found.control_accuracy),
            interval_text(*found.ci),
        )
    ]
    if math.isfinite(found.selectivity):
        figures.append(
            KeyFigure(
                f"selectivity, layer {found.layer}",
                f"{points(found.selectivity)} points",
                points_interval(*found.selectivity_ci),
            )
        )
    return figures


def _permuted(results: Results) -> KeyFigure | None:
    found = results.summary.permutation_test
    if found is None:
        return None
    return KeyFigure(
        f"permutation test ({found.m:,} permutations)",
        p_text(found.p),
        "" if not math.isfinite(found.null_quantile_95) else (
            f"95 % of them below {style.format_value('accuracy', found.null_quantile_95)}, "
            f"mean {style.format_value('accuracy', found.null_mean)}"
        ),
    )  # fmt: skip
