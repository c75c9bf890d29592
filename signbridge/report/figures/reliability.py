"""Whether a probe's confidence can be believed: reliability diagrams with bins of equal mass."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from signbridge.report.figures import style
from signbridge.report.figures.axes import per_cent_axis
from signbridge.report.figures.plot import Canvas, Plot, build
from signbridge.results.results import Results
from signbridge.statistics.intervals import share_intervals
from signbridge.statistics.metrics import CALIBRATION_BINS as BINS
from signbridge.statistics.metrics import equal_mass_bins

__all__ = ["Reliability", "reliability", "reliability_figure"]


@dataclass(frozen=True)
class Reliability:
    """Confidence and accuracy in bins of equal mass.

    Attributes:
        name: The feature in words.
        count: Images in each bin that holds any, shape (bins,).
        confidence: Mean probability of the top answer in each.
        accuracy: Share of right answers in each.
        low: Lower end of the 95 % interval of ``accuracy``.
        high: Upper end.
    """

    name: str
    count: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of the two, weighted by count."""
        gap = np.abs(self.accuracy - self.confidence)
        return float((gap * self.count).sum() / self.count.sum())


def reliability(results: Results, feature: str, name: str) -> Reliability | None:
    """Compute the diagram of one feature's held-out predictions.

    Args:
        results: A results folder.
        feature: A feature of the predictions.
        name: The feature in words.

    Returns:
        The bins, or None where nothing was scored.

    Raises:
        ProbeError: The predictions lack the feature or cannot be read.
    """
    p = results.predictions.probability(feature)
    scored = np.isfinite(p).all(axis=1)
    if not scored.any():
        return None
    p, label = p[scored], results.predictions.label[scored]
    confidence = p.max(axis=1).astype(np.float64)
    right = p.argmax(axis=1) == label
    bins = equal_mass_bins(confidence)
    low, high = share_intervals(right, bins, results.predictions.group[scored], BINS)
    count = np.bincount(bins, minlength=BINS)
    held = count > 0
    with np.errstate(invalid="ignore"):
        mean = np.bincount(bins, weights=confidence, minlength=BINS) / count
        share = np.bincount(bins, weights=right, minlength=BINS) / count
    return Reliability(name, count[held], mean[held], share[held], low[held], high[held])


def reliability_figure(results: Results) -> Plot | None:
    """Draw the reliability diagrams of the best layer and of the raw pixels.

    Args:
        results: A results folder.

    Returns:
        The figure, or None where nothing was scored. Columns of its data: feature, bin, images,
        confidence, accuracy, ci_low, ci_high.
    """
    wanted = [(results.best_feature, f"layer {results.best_layer}")]
    if "pixels" in results.predictions.feature_names:
        wanted.append(("pixels", "raw pixels"))
    found = [(f, r) for f, name in wanted if (r := reliability(results, f, name))]
    if not found:
        return None

    errors = ", ".join(f"{r.name} {r.error:.3f}" for _, r in found)
    return build(
        "calibration",
        lambda canvas: _draw(canvas, [r for _, r in found]),
        title="Can its confidence be believed?",
        caption=(
            f"{BINS} bins of equal size; 95 % intervals count the images of a group as "
            "copies. Below the diagonal the probe is overconfident; the calibration error is the "
            "mean distance to it."
        ),
        alt=f"Calibration error: {errors}.",
        height=(4.35 if len(found) > 1 else 4.9, 2.75),
        columns=("feature", "bin", "images", "confidence", "accuracy", "ci_low", "ci_high"),
        rows=(
            (
                f,
                i,
                int(r.count[i]),
                *(float(v[i]) for v in (r.confidence, r.accuracy, r.low, r.high)),
            )
            for f, r in found
            for i in range(len(r.count))
        ),
    )


def _draw(canvas: Canvas, found: list[Reliability]) -> None:
    narrow = canvas.narrow
    canvas.heading(
        "How often it is right, by how sure it is",
        "right answers (up) against confidence (across)"
        if narrow
        else "share of right answers (up) against confidence (across) · bins of equal size",
    )
    left, gap, bottom, top = 0.62, 0.62 if narrow else 0.85, 0.55, canvas.top + 0.3
    room = canvas.width - left - 0.15 - gap * (len(found) - 1)
    side = min(room / len(found), canvas.height - top - bottom)
    for number, r in enumerate(found):
        ax = canvas.axes(left + number * (side + gap), top, side, side)
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1)
        ax.plot([0, 1], [0, 1], color=style.MUTED, linewidth=1.0, linestyle=(0, (4, 2)), zorder=1)
        colour = style.COLOURS["blue"] if r.name.startswith("layer") else style.COLOURS["green"]
        for x, y, low, high in zip(r.confidence, r.accuracy, r.low, r.high, strict=True):
            ax.plot([x, x], [x, y], color=colour, linewidth=3, alpha=0.22, zorder=2)
            ax.plot([x, x], [low, high], color=colour, linewidth=1.1, zorder=3)
        ax.plot(
            r.confidence, r.accuracy, "o", color=colour, markersize=4.2 if narrow else 5.5, zorder=4
        )
        per_cent_axis(ax.xaxis, bins=3 if narrow else 5)
        per_cent_axis(ax.yaxis, bins=3 if narrow else 5)
        ax.tick_params(labelsize=8 if narrow else 9.5)
        ax.set_xlabel("confidence", loc="left", size=9 if narrow else 10)
        style.text(
            ax, 0, 1.03, f"{r.name}: error {r.error:.3f}", transform=ax.transAxes,
            size=8.8 if narrow else 10, weight="bold", va="bottom",
        )  # fmt: skip
        between = (r.confidence[1:] + r.confidence[:-1]) / 2
        for i, ends in enumerate(itertools.pairwise([0.0, *between.tolist(), 1.0])):
            confidence, accuracy, low, high = (
                style.format_value("accuracy", float(v[i]))
                for v in (r.confidence, r.accuracy, r.low, r.high)
            )
            canvas.spot(
                ax,
                ends,
                (0.0, 1.0),
                f"{r.name}, {r.count[i]} images\nsays {confidence}\n"
                f"is right {accuracy} [{low} to {high}]",
            )
