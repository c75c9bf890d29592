"""Intervals from a bootstrap over groups.

Images of one photograph are not independent, so whole groups are drawn, not samples (Cameron,
Gelbach & Miller 2008; Miller 2024, arXiv 2411.00640). Every metric is a function of sums over
samples (:mod:`signbridge.statistics.sums`), so a resample costs one row of a matrix product over
groups, whatever the sample count.

What the intervals cover: which photographs were drawn, with the trained probes held fixed. They do
not cover that other photographs would have trained other probes.

The draws say how much a score varies and how it is skewed; :mod:`signbridge.statistics.intervals`
has the formulas that make ends of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from signbridge.errors import ProbeError
from signbridge.statistics.intervals import (
    bracketing_interval,
    difference_interval,
    logit_interval,
    studentised_interval,
    t_quantile,
)
from signbridge.statistics.metric_names import METRICS
from signbridge.statistics.sums import group_sums, metrics_of_sums

FloatArray = npt.NDArray[np.float64]

Method = Literal["logit", "bias_corrected_logit", "studentised", "bracketing"]

METHODS: Mapping[str, Method] = {
    "accuracy": "logit",
    "balanced_accuracy": "logit",
    "macro_f1": "bias_corrected_logit",
    "top3_accuracy": "logit",
    "cross_entropy": "studentised",
    "calibration_error": "bracketing",
    "usable_information": "studentised",
}
"""How each metric's interval is made, see :meth:`ClusterBootstrap.scored`."""

_BLOCK = 64 * 2**20  # bytes of one block of draws


@dataclass(frozen=True)
class Interval:
    """A metric's value and its interval.

    Attributes:
        value: the value on the samples themselves.
        low: lower end of the interval; NaN where one group is all there is and no bound is known.
        high: upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Scored:
    """A set of predictions with its scores.

    Attributes:
        intervals: by metric.
        drawn: each metric in each draw, shape (repetitions,).
        totals: :attr:`signbridge.statistics.sums.GroupSums.simple`, shape (n_groups, 5).
    """

    intervals: Mapping[str, Interval]
    drawn: Mapping[str, FloatArray]
    totals: FloatArray


class ClusterBootstrap:
    """Draws of whole groups, the same for every feature so that differences are paired.

    A draw takes as many groups as there are, with replacement. With fewer than some 20 groups the
    intervals may be too narrow.

    Args:
        groups: group of each scored sample, shape (n_samples,).
        repetitions: number of draws, at least 1.
        seed: seed of the draws.
        level: confidence level.

    Raises:
        ProbeError: repetitions below 1 or a level outside 0..1.
    """

    def __init__(
        self,
        groups: npt.ArrayLike,
        *,
        repetitions: int = 1000,
        seed: int = 42,
        level: float = 0.95,
    ) -> None:
        if repetitions < 1:
            raise ProbeError(f"bootstrap must be 1 or more draws, not {repetitions}.")
        if not 0 < level < 1:
            raise ProbeError(f"the confidence level must lie between 0 and 1, not {level}.")
        self.groups = np.asarray(groups)
        self.repetitions = repetitions
        self.seed = seed
        self.level = level

    def draws(self, sums: FloatArray) -> FloatArray:
        """Sums over the samples of each draw.

        Args:
            sums: sums within each group, shape (n_groups, n_columns).

        Returns:
            Shape (repetitions, n_columns).
        """
        return np.vstack([often @ sums for often in self._counts(len(sums))])

    def _counts(self, n_groups: int) -> Iterator[FloatArray]:
        """How often each draw takes each group, shape (draws of a block, n_groups)."""
        generator = np.random.default_rng(self.seed)
        step = max(1, _BLOCK // (8 * n_groups))
        for start in range(0, self.repetitions, step):
            count = min(step, self.repetitions - start)
            picks = generator.integers(n_groups, size=(count, n_groups))
            rows = np.arange(count)[:, None] * n_groups
            often = np.bincount((picks + rows).ravel(), minlength=count * n_groups)
            yield often.reshape(count, n_groups).astype(np.float64)

    def scored(self, probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> Scored:
        r"""Every metric with its interval and its draws.

        With :math:`s` the deviation over the draws times :math:`\sqrt{G / (G - 1)}` and :math:`t`
        Student's quantile for :math:`G - 1` degrees of freedom,

        - *logit*: :func:`signbridge.statistics.intervals.logit_interval`.
        - *bias-corrected logit*: the same about :math:`2 v - \bar v^*`, since noise in the counts
          of a class lowers its F1, in the sample as in a draw.
        - *studentised*: :func:`signbridge.statistics.intervals.studentised_interval` of the
          cross-entropy. Usable information is the labels' entropy minus that, so its interval is
          the same one turned over: the class shares are those of the sample.
        - *bracketing*: noise only raises the calibration error, so the value is too large on
          average. An estimate that is too small takes the sign of each bin's gap from the groups
          that were drawn and its size from those that were not, averaged over the draws
          (:func:`signbridge.statistics.intervals.bracketing_interval`).

        Args:
            probabilities: held-out class probabilities, shape (n_samples, n_classes).
            labels: class indices, shape (n_samples,).

        Returns:
            Intervals and draws by metric.
        """
        sums = group_sums(probabilities, labels, self.groups)
        n_groups, n_classes = sums.support.shape
        # With the squares the standard error of the mean loss is known in every draw.
        size, loss = sums.simple[:, 0], sums.simple[:, 3]
        squares = np.stack([loss**2, loss * size, size**2], axis=1)
        columns = np.hstack([sums.matrix, squares])
        outside = np.hstack([sums.gaps, size[:, None]])
        drawn, left_out = (
            np.vstack(parts)
            for parts in zip(
                *((often @ columns, (often == 0) @ outside) for often in self._counts(n_groups)),
                strict=True,
            )
        )
        total, labelled = columns.sum(0), sums.support.sum(0) > 0
        value = {
            name: float(number) for name, number in metrics_of_sums(total[:-3], n_classes).items()
        }
        metric = metrics_of_sums(drawn[:, :-3], n_classes, labelled)
        entropy = value["usable_information"] + value["cross_entropy"] / math.log(2)
        metric["usable_information"] = entropy - metric["cross_entropy"] / math.log(2)
        widen = math.sqrt(n_groups / max(n_groups - 1, 1))
        quantile = t_quantile(n_groups, self.level)
        effective = float(size.sum() ** 2 / (size**2).sum())
        intervals = {}
        for name in METRICS:
            centre, deviation = value[name], float(metric[name].std()) * widen
            if METHODS[name] == "bias_corrected_logit":
                corrected = 2 * centre - float(metric[name].mean())
                centre = corrected if 0 < corrected < 1 else centre
            if METHODS[name] in ("logit", "bias_corrected_logit"):
                low, high = logit_interval(centre, deviation, quantile, effective)
                # The end nearest to the value must not leave it outside.
                ends = min(low, value[name]), max(high, value[name])
            elif name == "calibration_error":
                below = _crossed_calibration_error(drawn[:, -3 - sums.gaps.shape[1] : -3], left_out)
                error = _calibration_deviation(sums.gaps, size) * widen
                ends = bracketing_interval(below, centre, error, quantile)
            else:
                continue
            intervals[name] = Interval(value[name], *ends)
        if n_groups < 2:
            ends = (math.nan, math.nan)
        else:
            low, high = studentised_interval(
                value["cross_entropy"],
                float(_mean_error(total)) * widen,
                metric["cross_entropy"],
                _mean_error(drawn) * widen,
                self.level,
                n_groups=n_groups,
            )
            ends = max(0.0, low), high
        intervals["cross_entropy"] = Interval(value["cross_entropy"], *ends)
        intervals["usable_information"] = Interval(
            value["usable_information"],
            *(entropy - end / math.log(2) for end in reversed(ends)),
        )
        return Scored({name: intervals[name] for name in METRICS}, metric, sums.simple)

    def intervals(
        self, probabilities: npt.ArrayLike, labels: npt.ArrayLike
    ) -> Mapping[str, Interval]:
        """Every metric with its interval, see :meth:`scored`.

        Args:
            probabilities: held-out class probabilities, shape (n_samples, n_classes).
            labels: class indices, shape (n_samples,).

        Returns:
            Interval by metric.
        """
        return self.scored(probabilities, labels).intervals

    def difference(
        self,
        probabilities: npt.ArrayLike,
        other: npt.ArrayLike,
        labels: npt.ArrayLike,
        metric: str = "accuracy",
        *,
        other_labels: npt.ArrayLike | None = None,
    ) -> Interval:
        """Paired difference of one metric between two sets of predictions of the same samples.

        Args:
            probabilities: predictions, shape (n_samples, n_classes).
            other: predictions that are subtracted, same number of samples.
            labels: class indices, shape (n_samples,).
            metric: one of :data:`signbridge.statistics.scores.METRICS`.
            other_labels: labels of the other predictions, where they differ.

        Returns:
            The difference and its interval, see :func:`paired_difference`.
        """
        return paired_difference(
            self.scored(probabilities, labels),
            self.scored(other, labels if other_labels is None else other_labels),
            metric,
        )


def paired_difference(first: Scored, second: Scored, metric: str = "accuracy") -> Interval:
    """Difference of a metric between two sets of predictions that were scored on the same draws.

    Args:
        first: scores.
        second: those that are subtracted, of the same :class:`ClusterBootstrap`.
        metric: one of :data:`signbridge.statistics.scores.METRICS`.

    Returns:
        The difference with the interval of
        :func:`signbridge.statistics.intervals.difference_interval`.
    """
    one, two = first.intervals[metric], second.intervals[metric]
    drawn = first.drawn[metric], second.drawn[metric]
    independent = float(drawn[0].var() + drawn[1].var())
    # Draws that differ by rounding alone do not vary.
    ratio = float((drawn[0] - drawn[1]).var()) / independent if independent > 1e-24 else math.nan
    low, high = difference_interval(
        (one.value, one.low, one.high), (two.value, two.low, two.high), ratio
    )
    return Interval(one.value - two.value, low, high)


def _mean_error(sums: FloatArray) -> FloatArray:
    """Standard error of the mean loss between groups, from sums with their squares, shape (...)."""
    size, loss = sums[..., 0], sums[..., 3]
    mean = loss / size
    squares = sums[..., -3] - 2 * mean * sums[..., -2] + mean**2 * sums[..., -1]
    return np.asarray(np.sqrt(np.maximum(squares, 0.0)) / size)


def _crossed_calibration_error(gaps: FloatArray, left_out: FloatArray) -> float:
    """Mean over the draws of the left-out groups' gaps, with the signs of the drawn groups'."""
    size = left_out[:, -1]
    usable = size > 0
    if not usable.any():
        return 0.0
    signed = (np.sign(gaps[usable]) * left_out[usable, :-1]).sum(1) / size[usable]
    return float(signed.mean())


def _calibration_deviation(gaps: FloatArray, size: FloatArray) -> float:
    """Standard error of the calibration error between groups, its signs taken as known."""
    signed = gaps @ np.sign(gaps.sum(0))
    rest = signed - signed.sum() / size.sum() * size
    return float(np.sqrt((rest**2).sum()) / size.sum())
