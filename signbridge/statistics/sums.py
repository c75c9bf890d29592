"""The metrics from sums over the samples of each group."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from signbridge.statistics.metric_names import CALIBRATION_BINS, METRICS, PROBABILITY_FLOOR

FloatArray = npt.NDArray[np.float64]


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
    answer = p.argmax(-1)
    top = np.argsort(-p, axis=-1, kind="stable")[:, : min(3, n_classes)]
    confidence = p.max(-1).astype(np.float64)
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
    gap = correct.astype(np.float64) - confidence
    return GroupSums(
        simple=simple,
        support=table(y, ones, n_classes),
        predicted=table(answer, ones, n_classes),
        hits=table(y, correct.astype(np.float64), n_classes),
        gaps=table(equal_mass_bins(confidence), gap, CALIBRATION_BINS),
    )


def equal_mass_bins(
    confidence: FloatArray, n_bins: int = CALIBRATION_BINS
) -> npt.NDArray[np.int64]:
    """Bin of each sample when samples are sorted and cut into bins of equal mass.

    Args:
        confidence: shape (n_samples,).
        n_bins: number of bins.

    Returns:
        Bin numbers 0..n_bins - 1, shape (n_samples,). Equal confidences share the bin of their
        mean rank; where all differ, the bins' sizes differ by at most one.
    """
    _, value, count = np.unique(confidence, return_inverse=True, return_counts=True)
    twice_mean_rank = 2 * np.cumsum(count) - count - 1
    bins = twice_mean_rank * n_bins // max(2 * len(confidence), 1)
    return np.asarray(bins[value], dtype=np.int64)


def metrics_of_sums(
    sums: FloatArray, n_classes: int, labelled: npt.NDArray[np.bool_] | None = None
) -> dict[str, FloatArray]:
    """The metrics of :data:`signbridge.statistics.scores.METRICS` from sums over samples.

    Args:
        sums: rows of :attr:`GroupSums.matrix` added up, shape (..., 5 + 3 n_classes + n_bins).
        n_classes: number of classes.
        labelled: classes that have labels in the sample that draws were taken from, shape
            (n_classes,). A draw that misses one by chance leaves it out of its macro F1.

    Returns:
        Each metric, shape (...).
    """
    edges = np.cumsum([5, n_classes, n_classes, n_classes])
    simple, support, predicted, hits, gaps = np.split(sums, edges, axis=-1)
    n, correct, top, loss, prior = (simple[..., k] for k in range(5))
    with np.errstate(divide="ignore", invalid="ignore"):
        recall = np.where(support > 0, hits / support, 0.0).sum(-1) / (support > 0).sum(-1)
        either = support + predicted
        counts = either > 0
        if labelled is not None:
            counts &= (support > 0) | ~labelled
        f1 = np.where(counts, 2 * hits / either, 0.0).sum(-1) / counts.sum(-1)
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
