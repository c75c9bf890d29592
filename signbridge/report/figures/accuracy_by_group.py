"""Accuracy of every group of images: where the probe fails, and whether that is one signer."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from signbridge.report.figures import style
from signbridge.report.figures.axes import per_cent_axis
from signbridge.report.figures.plot import Canvas, Plot, build
from signbridge.report.groups import group_name
from signbridge.results.results import Results
from signbridge.statistics.intervals import share_intervals
from signbridge.store.provenance import grouping

__all__ = ["accuracy_by_group"]

_ROWS = 30  # up to so many groups have a row each
_LEAST = 5  # images of which an interval is worth drawing
_NAMED = 5  # groups named where there are more than rows
_BLUE, _GREEN = style.COLOURS["blue"], style.COLOURS["green"]
_BEHIND = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}


class _Group(NamedTuple):
    """A row of the figure's data."""

    group: int
    name: str
    images: int
    classes: str
    accuracy: float
    ci_low: float
    ci_high: float
    pixels_accuracy: float
    pixels_ci_low: float
    pixels_ci_high: float

    def __str__(self) -> str:
        """Name or number, classes, and how many images are read right."""
        name = style.printable(self.name) if self.name else f"group {self.group}"
        right = round(self.images * self.accuracy)
        return f"{name} ({style.short(self.classes, 24)}) {right:,} of {self.images:,}"

    @property
    def wrong(self) -> int:
        """Images that the best layer's probe reads wrong."""
        return round(self.images * (1 - self.accuracy))


def accuracy_by_group(results: Results) -> Plot | None:
    """Draw the held-out accuracy of every group, sorted: best layer and raw pixels.

    Intervals are Wilson's (1927), of groups of five images or more that are no near-duplicates.

    Args:
        results: A results folder.

    Returns:
        The figure, or None where every image is a group of its own or all are one. Columns of its
        data: group, name, images, classes, accuracy, ci_low, ci_high, pixels_accuracy,
        pixels_ci_low, pixels_ci_high.
    """
    groups = _groups(results)
    if len(groups) < 2 or len(groups) == sum(g.images for g in groups):
        return None
    few = len(groups) <= _ROWS
    median = style.format_value("accuracy", float(np.median([g.accuracy for g in groups])))
    one = grouping(results.provenance).one.partition(" ")[2]
    none, every = (sum(g.accuracy == v for g in groups) for v in (0, 1))
    return build(
        "accuracy_by_group",
        lambda canvas: (_draw_rows if few else _draw_steps)(canvas, groups, results),
        title="Group by group",
        caption=(
            f"Each {one}, lowest first"
            + (
                "; 95 % intervals from five images on."
                if few
                else "; steps are as wide as groups have images."
            )
        ),
        alt=f"Lowest: {groups[0]}; median of {len(groups):,} groups: {median}; highest: "
        f"{groups[-1]}. Of {len(groups):,} groups {none:,} have no image right and {every:,} have "
        "all.",
        height=1.4 + 0.25 * len(groups) if few else 4.2,
        columns=_Group._fields,
        rows=groups,
    )


def _groups(results: Results) -> list[_Group]:
    """The groups that hold scored images, the lowest accuracy of the best layer first."""
    p = results.predictions
    answer = p.predicted(results.best_feature)
    scored = np.flatnonzero(answer >= 0)
    number, part = np.unique(p.group[scored], return_inverse=True)
    size = np.bincount(part)
    rates = [_rates(answer[scored] == p.label[scored], part, results)]
    if "pixels" in p.feature_names:
        rates.append(_rates(p.predicted("pixels")[scored] == p.label[scored], part, results))
    else:
        rates.append(np.full((len(number), 3), math.nan))
    found = []
    for i, group in enumerate(number.tolist()):
        rows = scored[part == i]
        classes = "; ".join(p.class_names[k] for k in np.unique(p.label[rows]))
        values = np.concatenate([rate[i] for rate in rates]).tolist()
        found.append(
            _Group(group, group_name(results, group, rows), int(size[i]), classes, *values)
        )
    return sorted(found, key=lambda g: (g.accuracy, -g.images, g.group))


def _rates(
    right: npt.NDArray[np.bool_], part: npt.NDArray[np.int64], results: Results
) -> npt.NDArray[np.float64]:
    """(groups, 3) share of right answers and ends of its interval."""
    size = np.bincount(part)
    low, high = share_intervals(right, part, np.arange(len(part)), len(size))
    copies = grouping(results.provenance).kind == "near_duplicates"
    unknown = (size < _LEAST) | copies
    low[unknown] = high[unknown] = math.nan
    return np.stack([np.bincount(part, weights=right) / size, low, high], axis=1)


def _draw_rows(canvas: Canvas, groups: list[_Group], results: Results) -> None:
    canvas.heading(
        "Where the probe fails, group by group",
        f"accuracy · filled: layer {results.best_layer} · open: raw pixels · right: images",
    )
    names = [style.fit(canvas.figure, g.name or f"group {g.group}", 1.7, 9) for g in groups]
    left = 0.25 + max(style.text_width(canvas.figure, name, 9) for name in names)
    ax = canvas.axes_between(left, 0.62, 0.42)
    ax.set_xlim(-0.01, 1.01)
    ax.set_ylim(len(groups) - 0.5, -0.5)
    ax.set_yticks(range(len(groups)), names, size=9, parse_math=False)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    per_cent_axis(ax.xaxis, bins=3 if canvas.narrow else 5)
    ax.grid(axis="x")
    for i, g in enumerate(groups):
        for y, colour, face, size, (value, low, high) in (
            (i + 0.25, _GREEN, "white", 4, g[-3:]),
            (i, _BLUE, _BLUE, 6, g[4:7]),
        ):
            ax.plot([low, high], [y, y], color=colour, linewidth=1.2)
            ax.plot([value], [y], "o", color=colour, ms=size, markerfacecolor=face, clip_on=False)
        style.text(
            ax, 1.03, i, f"{g.images:,}", transform=ax.get_yaxis_transform(), size=8.5, va="center"
        )
        canvas.spot(ax, None, (i - 0.5, i + 0.5), f"{g}")


def _draw_steps(canvas: Canvas, groups: list[_Group], results: Results) -> None:
    by_wrong = sorted(groups, key=lambda g: (-g.wrong, g.images, g.group))
    alike = sum(g.wrong == by_wrong[_NAMED].wrong for g in by_wrong[_NAMED:])
    canvas.heading(
        "Where the probe fails, group by group",
        f"held-out accuracy, sorted · solid: layer {results.best_layer} · broken: raw pixels · "
        f"most wrong: {', '.join(map(str, by_wrong[:_NAMED]))} and {alike:,} more with "
        f"{by_wrong[_NAMED].wrong:,} wrong",
    )
    ax = canvas.axes_between(0.72, 0.3, 0.58)
    for k, colour, dashes in ((7, _GREEN, (0, (5, 2))), (4, _BLUE, "-")):
        curve = sorted(groups, key=lambda g: g[k])
        edges = np.cumsum([0, *(g.images for g in curve)]) / sum(g.images for g in curve)
        values = [g[k] for g in curve]
        ax.stairs(values, edges, baseline=None, color=colour, linewidth=2, linestyle=dashes)
    ax.set_xlim(0, 1)
    ax.set_ylim(-0.03, 1.03)
    per_cent_axis(ax.xaxis, bins=3 if canvas.narrow else 5)
    per_cent_axis(ax.yaxis, bins=5)
    ax.grid(axis="y")
    ax.set_xlabel("share of the images", loc="left")
    none, every = ([g.images for g in groups if g.accuracy == v] for v in (0, 1))
    at = 0.01 + sum(none) / sum(g.images for g in groups)
    style.text(ax, at, 0.04, f"{len(none):,} groups: none right", size=9, color=_BLUE, bbox=_BEHIND)
    style.text(ax, 0.99, 0.92, f"{len(every):,} groups: all right", size=9, color=_BLUE, ha="right")
    for g, ends in zip(groups, itertools.pairwise(edges.tolist()), strict=True):
        canvas.spot(ax, ends, (-0.03, 1.03), f"{g}")
