"""Intervals from a bootstrap over groups.

Images of one photograph are not independent, so whole groups are drawn, not samples (Cameron,
Gelbach & Miller 2008; Miller 2024, arXiv 2411.00640). Every metric is a function of sums over
samples (:mod:`signbridge.statistics.metrics`), so a resample costs one row of a matrix product over
groups, whatever the sample count.

What the intervals cover: which photographs were drawn, with the trained probes held fixed. They do
not cover that other photographs would have trained other probes.

The draws say how much a score varies and how it is skewed; :mod:`signbridge.statistics.intervals`
has the formulas that make ends of it. Few groups permit less, or nothing
(:mod:`signbridge.statistics.few_groups`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from signbridge.errors import ProbeError
from signbridge.statistics.few_groups import FEW_GROUPS, LEAST_GROUPS, GroupMeans
from signbridge.statistics.intervals import (
    Ends,
    bracketing_interval,
    difference_interval,
    logit_interval,
    studentised_interval,
    t_quantile,
)
from signbridge.statistics.metrics import (
    METRICS,
    PROBABILITY_FLOOR,
    GroupSums,
    IntervalMethod,
    Metric,
    Sums,
    group_sums,
    metrics_of_sums,
    outcomes,
)

FloatArray = npt.NDArray[np.float64]

_BLOCK = 64 * 2**20  # bytes of one block of draws


@dataclass(frozen=True)
class Interval:
    """A metric's value and its interval.

    Attributes:
        value: the value on the samples themselves.
        low: lower end of the interval; NaN where there are fewer than three groups, and for a
            constant guess whose score is known.
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
        totals: by metric that is a mean over samples: sums over each group of
            :attr:`signbridge.statistics.metrics.Metric.mean_of`, shape (n_groups,).
        size: samples of each group, shape (n_groups,).
        known: whether these are a constant guess on classes whose shares no group decides, so that
            nothing varies.
    """

    intervals: Mapping[str, Interval]
    drawn: Mapping[str, FloatArray]
    totals: Mapping[str, FloatArray]
    size: FloatArray
    known: bool = False


class ClusterBootstrap:
    """Draws of whole groups, the same for every feature so that differences are paired.

    A draw takes as many groups as there are, with replacement.

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
        self._only_block: FloatArray | None = None  # the draws, where one block holds them all

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
        if self._only_block is not None and self._only_block.shape[1] == n_groups:
            yield self._only_block
            return
        generator = np.random.default_rng(self.seed)
        step = max(1, _BLOCK // (8 * n_groups))
        for start in range(0, self.repetitions, step):
            count = min(step, self.repetitions - start)
            picks = generator.integers(n_groups, size=(count, n_groups))
            rows = np.arange(count)[:, None] * n_groups
            often = np.bincount((picks + rows).ravel(), minlength=count * n_groups)
            block = often.reshape(count, n_groups).astype(np.float64)
            if count == self.repetitions:
                self._only_block = block
            yield block

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

        Fewer than three groups give no interval. A guess that is the same for all samples has
        none either where most groups hold several classes (signers, not photographs): then no
        choice of groups decides the shares of the classes, and its score is a known number.

        Args:
            probabilities: held-out class probabilities, shape (n_samples, n_classes).
            labels: class indices, shape (n_samples,).

        Returns:
            Intervals and draws by metric.
        """
        p, y = np.asarray(probabilities), np.asarray(labels, dtype=np.int64)
        sums = group_sums(outcomes(p, y), self.groups)
        draws = _Draws(sums, self)
        value = metrics_of_sums(sums.whole)
        size, names = draws.size, [n for n, m in METRICS.items() if m.mean_of is not None]
        if _is_known(p, y, self.groups):
            fixed = {name: float(one) for name, one in value.items()}
            return Scored(
                {name: Interval(one, math.nan, math.nan) for name, one in fixed.items()},
                {name: np.full(self.repetitions, one) for name, one in fixed.items()},
                {name: sums.whole[_mean_of(name)] * size / size.sum() for name in names},
                size,
                known=True,
            )
        drawn = metrics_of_sums(draws.sums, sums.whole)
        intervals = {
            name: Interval(
                float(value[name]),
                *(
                    _ENDS[metric.interval](metric, float(value[name]), drawn[name], draws)
                    if draws.n_groups >= LEAST_GROUPS
                    else (math.nan, math.nan)
                ),
            )
            for name, metric in METRICS.items()
        }
        totals = {name: sums.groups[_mean_of(name)].copy() for name in names}
        return Scored(intervals, drawn, totals, size)

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
            metric: one of :data:`signbridge.statistics.metrics.METRICS`.
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
        metric: one of :data:`signbridge.statistics.metrics.METRICS`.

    Returns:
        The difference with the interval of
        :func:`signbridge.statistics.intervals.difference_interval`.
    """
    one, two = (_ends_of(scored, metric) for scored in (first, second))
    drawn = first.drawn[metric], second.drawn[metric]
    independent = float(drawn[0].var() + drawn[1].var())
    # Draws that differ by rounding alone do not vary.
    ratio = float((drawn[0] - drawn[1]).var()) / independent if independent > 1e-24 else math.nan
    low, high = difference_interval(one, two, ratio)
    return Interval(one[0] - two[0], low, high)


def _ends_of(scored: Scored, metric: str) -> tuple[float, float, float]:
    """A value and its ends, which are the value itself where that is known."""
    one = scored.intervals[metric]
    return (one.value,) * 3 if scored.known else (one.value, one.low, one.high)


def _is_known(p: npt.NDArray[Any], y: npt.NDArray[np.int64], groups: npt.NDArray[Any]) -> bool:
    """Whether all samples get one guess, and most lie in groups of several classes."""
    if not ((p[-1] == p[0]).all() and (p == p[:1]).all()):
        return False
    g = np.unique(groups, return_inverse=True)[1]
    n_groups = int(g.max()) + 1
    low, high = np.full(n_groups, y.max()), np.zeros(n_groups, dtype=np.int64)
    np.minimum.at(low, g, y)
    np.maximum.at(high, g, y)
    return bool((low != high)[g].mean() > 0.5)


def _mean_of(metric: str) -> str:
    """The quantity whose mean a metric is."""
    quantity = METRICS[metric].mean_of
    assert quantity is not None
    return quantity.name


def mean_interval(
    values: npt.ArrayLike,
    groups: npt.ArrayLike,
    *,
    repetitions: int = 1000,
    seed: int = 42,
    level: float = 0.95,
) -> Interval:
    """Mean over samples with a bootstrap-t interval over groups, as for the cross-entropy.

    Args:
        values: a number for each sample, shape (n_samples,).
        groups: group of each sample, shape (n_samples,).
        repetitions: number of draws.
        seed: seed of the draws.
        level: confidence level.
    """
    x = np.asarray(values, dtype=np.float64)
    g = np.unique(np.asarray(groups), return_inverse=True)[1]
    size, total = (np.bincount(g, weights=w).astype(np.float64) for w in (np.ones(len(x)), x))
    if len(size) < LEAST_GROUPS:
        return Interval(float(x.mean()), math.nan, math.nan)
    bootstrap = ClusterBootstrap(groups, repetitions=repetitions, seed=seed, level=level)
    drawn = bootstrap.draws(_with_squares(size, total))
    return Interval(float(x.mean()), *_mean_ends(size, total, drawn, level))


class _Draws:
    """Sums over what the draws of a bootstrap hold, and what they leave out."""

    def __init__(self, sums: GroupSums, bootstrap: ClusterBootstrap) -> None:
        groups = sums.groups
        self.whole, self.groups, self.level = sums.whole, groups, bootstrap.level
        self.size = groups["samples"]
        n_groups, n_columns = sums.columns.shape
        self.n_groups = n_groups
        self.widen = math.sqrt(n_groups / max(n_groups - 1, 1))
        self.quantile = t_quantile(n_groups, bootstrap.level)
        self.effective = float(self.size.sum() ** 2 / (self.size**2).sum())
        # With squares the standard error of a mean is known in every draw.
        means = {
            metric.mean_of.name
            for metric in METRICS.values()
            if metric.interval == "studentised" and metric.mean_of is not None
        }
        squares = [_with_squares(self.size, groups[name]) for name in sorted(means)]
        columns = np.hstack([sums.columns, *squares])
        outside = np.hstack([self.size[:, None], groups["gaps"]])
        drawn, self.left_out = (
            np.vstack(parts)
            for parts in zip(
                *(
                    (often @ columns, (often == 0) @ outside)
                    for often in bootstrap._counts(n_groups)
                ),
                strict=True,
            )
        )
        self.sums: Sums = sums.named(drawn[:, :n_columns])
        self.squares = dict(
            zip(sorted(means), np.split(drawn[:, n_columns:], len(means), axis=1), strict=True)
        )


def _logit(
    metric: Metric, value: float, drawn: FloatArray, draws: _Draws, centre: float | None = None
) -> Ends:
    centre = value if centre is None else centre
    deviation = float(drawn.std()) * draws.widen
    # A group is one trial where it is right or wrong as a whole. A few groups that hold both and do
    # not differ are as many as their images.
    alike = 0 < value < 1 and draws.n_groups < FEW_GROUPS
    trials = float(draws.size.sum()) if alike else draws.effective
    low, high = logit_interval(centre, deviation, draws.quantile, trials)
    # The end nearest to the value must not leave it outside.
    return min(low, value), max(high, value)


def _bias_corrected_logit(metric: Metric, value: float, drawn: FloatArray, draws: _Draws) -> Ends:
    corrected = 2 * value - float(drawn.mean())
    return _logit(metric, value, drawn, draws, corrected if 0 < corrected < 1 else value)


def _studentised(metric: Metric, value: float, drawn: FloatArray, draws: _Draws) -> Ends:
    assert metric.mean_of is not None
    name, most = metric.mean_of.name, metric.mean_of.most
    means = _mean_ends(draws.size, draws.groups[name], draws.squares[name], draws.level)
    low, high = (
        float(metric.compute({**draws.whole, name: mean * draws.whole["samples"]}, draws.whole))
        for mean in (max(means[0], math.log(PROBABILITY_FLOOR)), min(means[1], most))
    )
    return min(low, high), max(low, high)


def _bracketing(metric: Metric, value: float, drawn: FloatArray, draws: _Draws) -> Ends:
    gaps = draws.groups["gaps"]
    below = _crossed_calibration_error(draws.sums["gaps"], draws.left_out)
    error = _calibration_deviation(gaps, draws.size) * draws.widen
    return bracketing_interval(below, value, error, draws.quantile)


_ENDS: Mapping[IntervalMethod, Callable[[Metric, float, FloatArray, _Draws], Ends]] = {
    "logit": _logit,
    "bias_corrected_logit": _bias_corrected_logit,
    "studentised": _studentised,
    "bracketing": _bracketing,
}


def _with_squares(size: FloatArray, total: FloatArray) -> FloatArray:
    """What the standard error of a mean is computed from, shape (n_groups, 5)."""
    return np.stack([size, total, total**2, total * size, size**2], axis=1)


def _mean_and_error(sums: FloatArray) -> tuple[FloatArray, FloatArray]:
    """A mean over samples and its standard error between groups, from sums with their squares."""
    size, total, squares, products, sizes = np.moveaxis(sums, -1, 0)
    mean = total / size
    spread = np.maximum(squares - 2 * mean * products + mean**2 * sizes, 0.0)
    return np.asarray(mean), np.asarray(np.sqrt(spread) / size)


def _mean_ends(size: FloatArray, total: FloatArray, drawn: FloatArray, level: float) -> Ends:
    """Ends of the bootstrap-t interval of a mean over samples.

    Of few groups they are Student's, of the mean's logarithm: such means are sums of losses, of
    one sign and skewed.
    """
    n_groups = len(size)
    if n_groups < FEW_GROUPS:
        few = GroupMeans.of(total, size)
        middle, reach = float(few.value), float(few.reach(level))
        if (np.sign(total) * np.sign(middle) <= 0).any():
            return middle - reach, middle + reach
        ratio = math.exp(min(reach / abs(middle), 100.0))
        return min(middle / ratio, middle * ratio), max(middle / ratio, middle * ratio)
    widen = math.sqrt(n_groups / (n_groups - 1))
    mean, error = _mean_and_error(_with_squares(size, total).sum(0))
    means, errors = _mean_and_error(drawn)
    return studentised_interval(float(mean), float(error) * widen, means, errors * widen, level)


def _crossed_calibration_error(gaps: FloatArray, left_out: FloatArray) -> float:
    """Mean over the draws of the left-out groups' gaps, with the signs of the drawn groups'."""
    size = left_out[:, 0]
    usable = size > 0
    if not usable.any():
        return 0.0
    signed = (np.sign(gaps[usable]) * left_out[usable, 1:]).sum(1) / size[usable]
    return float(signed.mean())


def _calibration_deviation(gaps: FloatArray, size: FloatArray) -> float:
    """Standard error of the calibration error between groups, its signs taken as known."""
    signed = gaps @ np.sign(gaps.sum(0))
    rest = signed - signed.sum() / size.sum() * size
    return float(np.sqrt((rest**2).sum()) / size.sum())
