"""Intervals from a bootstrap over groups.

Images of one photograph are not independent, so whole groups are drawn, not samples (Cameron,
Gelbach & Miller 2008; Miller 2024, arXiv 2411.00640). Every metric is a function of sums over
samples, so a resample costs one row of a matrix product over groups, whatever the sample count.

What the intervals cover: which photographs were drawn, with the trained probes held fixed. They do
not cover that other photographs would have trained other probes.

Their ends are percentiles, bias-corrected (Efron 1987) where a metric is no mean over samples, and
reflected for the calibration error; :func:`interval_ends` says why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import ndtr, ndtri

from signbridge.errors import ProbeError
from signbridge.probes.scores import (
    CALIBRATION_BINS,
    METRICS,
    PROBABILITY_FLOOR,
    equal_mass_bins,
)

FloatArray = npt.NDArray[np.float64]

Method = Literal["percentile", "bias_corrected", "reflected"]

METHODS: Mapping[str, Method] = {
    "accuracy": "percentile",
    "balanced_accuracy": "bias_corrected",
    "macro_f1": "bias_corrected",
    "top3_accuracy": "percentile",
    "cross_entropy": "percentile",
    "calibration_error": "reflected",
    "usable_information": "percentile",
}
"""How each metric's interval is made, see :func:`interval_ends`."""

_BOUNDS = {"cross_entropy": (0.0, math.inf), "usable_information": (-math.inf, math.inf)}

_BLOCK = 64 * 2**20  # bytes of one block of draws


@dataclass(frozen=True)
class Interval:
    """A metric's value and its bootstrap interval, of which :func:`interval_ends` gives the ends.

    Attributes:
        value: the value on the samples themselves. The interval says where the value over all
            groups lies, so where the metric is biased this need not be inside.
        low: lower end of the interval.
        high: upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class GroupSums:
    """What the metrics need of a set of predictions, summed within each group.

    Attributes:
        simple: samples, correct answers, top-3 hits, negative log-probability of the label, and
            negative logarithm of its class share, both in nats, shape (n_groups, 5). The class
            shares are those of the whole sample and stay fixed in the resamples: the entropy of a
            resample's own shares is biased downwards.
        support: labels of each class, shape (n_groups, n_classes).
        predicted: answers of each class, shape (n_groups, n_classes).
        hits: correct answers of each class, shape (n_groups, n_classes).
        gaps: correctness minus confidence in each calibration bin, shape (n_groups, n_bins). The
            bins are those of the whole sample and stay fixed in the resamples.
    """

    simple: FloatArray
    support: FloatArray
    predicted: FloatArray
    hits: FloatArray
    gaps: FloatArray

    @property
    def matrix(self) -> FloatArray:
        """All sums side by side, shape (n_groups, 5 + 3 n_classes + n_bins)."""
        return np.hstack([self.simple, self.support, self.predicted, self.hits, self.gaps])


def group_sums(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, groups: npt.ArrayLike
) -> GroupSums:
    """Sum over each group what the metrics need.

    Args:
        probabilities: held-out class probabilities, shape (n_samples, n_classes).
        labels: class indices, shape (n_samples,).
        groups: group numbers, shape (n_samples,); any integers.

    Returns:
        The sums; groups are in ascending order of their number.
    """
    p = np.asarray(probabilities)
    y = np.asarray(labels, dtype=np.int64)
    g = np.unique(np.asarray(groups), return_inverse=True)[1]
    n_groups, n_classes = int(g.max()) + 1, p.shape[1]
    tensor = torch.tensor(p)  # a copy, since the array may be read-only
    answer = tensor.argmax(-1).numpy()
    top = tensor.topk(min(3, n_classes), dim=-1).indices.numpy()
    confidence = tensor.max(-1).values
    own = p[np.arange(len(y)), y].astype(np.float64)
    correct = answer == y
    share = np.bincount(y, minlength=n_classes) / len(y)

    def summed(values: npt.NDArray[np.generic]) -> FloatArray:
        total = np.bincount(g, weights=values.astype(np.float64), minlength=n_groups)
        return np.asarray(total, dtype=np.float64)

    def table(columns: npt.NDArray[np.int64], weights: FloatArray, width: int) -> FloatArray:
        cell = np.bincount(g * width + columns, weights=weights, minlength=n_groups * width)
        return np.asarray(cell, dtype=np.float64).reshape(n_groups, width)

    ones = np.ones(len(y))
    simple = np.stack(
        [
            summed(ones),
            summed(correct),
            summed((top == y[:, None]).any(1)),
            summed(-np.log(np.maximum(own, PROBABILITY_FLOOR))),
            summed(-np.log(share[y])),
        ],
        axis=1,
    )
    gap = correct.astype(np.float64) - confidence.double().numpy()
    return GroupSums(
        simple=simple,
        support=table(y, ones, n_classes),
        predicted=table(answer, ones, n_classes),
        hits=table(y, correct.astype(np.float64), n_classes),
        gaps=table(equal_mass_bins(confidence.double()).numpy(), gap, CALIBRATION_BINS),
    )


def metrics_of_sums(sums: FloatArray, n_classes: int) -> dict[str, FloatArray]:
    """The metrics of :data:`signbridge.probes.scores.METRICS` from sums over samples.

    Args:
        sums: rows of :attr:`GroupSums.matrix` added up, shape (..., 5 + 3 n_classes + n_bins).
        n_classes: number of classes.

    Returns:
        Each metric, shape (...).
    """
    edges = np.cumsum([5, n_classes, n_classes, n_classes])
    simple, support, predicted, hits, gaps = np.split(sums, edges, axis=-1)
    n, correct, top, loss, prior = (simple[..., k] for k in range(5))
    with np.errstate(divide="ignore", invalid="ignore"):
        recall = np.where(support > 0, hits / support, 0.0).sum(-1) / (support > 0).sum(-1)
        either = support + predicted
        f1 = np.where(either > 0, 2 * hits / either, 0.0).sum(-1) / (either > 0).sum(-1)
        values = {
            "accuracy": correct / n,
            "balanced_accuracy": recall,
            "macro_f1": f1,
            "top3_accuracy": top / n,
            "cross_entropy": loss / n,
            "calibration_error": np.abs(gaps).sum(-1) / n,
            "usable_information": (prior - loss) / n / math.log(2),
        }
    return {name: values[name] for name in METRICS}


class ClusterBootstrap:
    """Draws of whole groups, the same for every feature so that differences are paired.

    A draw takes as many groups as there are, with replacement; the interval's ends are
    :func:`interval_ends` of the metric over the draws. With fewer than some 20 groups it is too
    narrow.

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
        n_groups = len(sums)
        generator = np.random.default_rng(self.seed)
        step = max(1, _BLOCK // (8 * n_groups))
        drawn = []
        for start in range(0, self.repetitions, step):
            count = min(step, self.repetitions - start)
            picks = generator.integers(n_groups, size=(count, n_groups))
            rows = np.arange(count)[:, None] * n_groups
            often = np.bincount((picks + rows).ravel(), minlength=count * n_groups)
            drawn.append(often.reshape(count, n_groups).astype(np.float64) @ sums)
        return np.vstack(drawn)

    def intervals(
        self, probabilities: npt.ArrayLike, labels: npt.ArrayLike
    ) -> Mapping[str, Interval]:
        """Every metric with its interval.

        Args:
            probabilities: held-out class probabilities, shape (n_samples, n_classes).
            labels: class indices, shape (n_samples,).

        Returns:
            Interval by metric.
        """
        value, drawn = self._both(probabilities, labels)
        return {name: self._interval(name, value[name], drawn[name]) for name in METRICS}

    def difference(
        self,
        probabilities: npt.ArrayLike,
        other: npt.ArrayLike,
        labels: npt.ArrayLike,
        metric: str = "accuracy",
    ) -> Interval:
        """Paired difference of one metric between two sets of predictions of the same samples.

        Args:
            probabilities: predictions, shape (n_samples, n_classes).
            other: predictions that are subtracted, same shape.
            labels: class indices, shape (n_samples,).
            metric: one of :data:`signbridge.probes.scores.METRICS`.

        Returns:
            The difference and its interval.
        """
        value, drawn = self._both(probabilities, labels)
        less, drawn_less = self._both(other, labels)
        difference = drawn[metric] - drawn_less[metric]
        low, high = _BOUNDS.get(metric, (0.0, 1.0))
        bounds = (low - high, high - low)
        return self._interval(metric, value[metric] - less[metric], difference, bounds)

    def _both(
        self, probabilities: npt.ArrayLike, labels: npt.ArrayLike
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        n_classes = np.shape(probabilities)[1]
        sums = group_sums(probabilities, labels, self.groups).matrix
        return (
            metrics_of_sums(sums.sum(0), n_classes),
            metrics_of_sums(self.draws(sums), n_classes),
        )

    def _interval(
        self,
        metric: str,
        value: FloatArray,
        drawn: FloatArray,
        bounds: tuple[float, float] | None = None,
    ) -> Interval:
        low, high = interval_ends(
            float(value),
            drawn,
            self.level,
            METHODS[metric],
            bounds=bounds or _BOUNDS.get(metric, (0.0, 1.0)),
        )
        return Interval(float(value), low, high)


def interval_ends(
    value: float,
    drawn: FloatArray,
    level: float = 0.95,
    method: Method = "percentile",
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> tuple[float, float]:
    r"""Ends of a bootstrap interval.

    *Percentile* (Efron & Tibshirani 1993, chapter 13): quantiles of the draws. Right for means over
    samples, whose draws lie about the value.

    *Bias-corrected* (Efron 1987, "Better Bootstrap Confidence Intervals", without acceleration):
    with :math:`z_0 = \Phi^{-1}` of the share of draws below the value (equal ones count half), the
    quantiles at :math:`\Phi(2 z_0 \pm z)` for :math:`z = \Phi^{-1}((1 + level) / 2)`. For means
    over classes: a draw misses some groups altogether, which shifts ``macro_f1`` down, and this
    shifts the interval back. Where the value lies outside the percentile interval, shares of 0 and
    1 among them, the share says no more than that, and the percentiles are reflected.

    *Reflected* (the basic interval of Davison & Hinkley 1997, chapter 5): the percentiles :math:`q`
    become :math:`2 v - q`, which shifts them by twice the bias. For the calibration error, which
    noise only raises: a draw has the sample's noise and its own, so most draws lie above the value
    and none may reach down to the truth; quantiles of the draws, corrected or not, then miss it.

    Args:
        value: the metric on the samples themselves.
        drawn: the metric in each draw, shape (repetitions,); NaN are left out.
        level: confidence level.
        method: ``percentile``, ``bias_corrected`` or ``reflected``.
        bounds: least and greatest value that the metric can take, for reflected ends.

    Returns:
        Lower and upper end.
    """
    drawn = drawn[~np.isnan(drawn)]
    tail = (1 - level) / 2
    at = np.array([tail, 1 - tail])
    if method == "bias_corrected":
        share = float(np.mean(drawn < value) + np.mean(drawn == value) / 2)
        if tail <= share <= 1 - tail:
            at = ndtr(2 * ndtri(share) + ndtri(at))
        else:
            method = "reflected"
    low, high = np.quantile(drawn, at)
    if method == "reflected":
        low, high = np.clip([2 * value - high, 2 * value - low], *bounds)
    return float(low), float(high)
