"""Scores of held-out predictions, as torchmetrics.

Each metric takes class probabilities of shape (n_samples, n_classes) and labels of shape
(n_samples,). :class:`LayerScores` keeps one collection per layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
from torchmetrics.utilities.data import dim_zero_cat

from signbridge.statistics.metric_names import CALIBRATION_BINS as CALIBRATION_BINS
from signbridge.statistics.metric_names import METRICS as METRICS
from signbridge.statistics.metric_names import PROBABILITY_FLOOR as PROBABILITY_FLOOR
from signbridge.statistics.sums import equal_mass_bins


class BalancedAccuracy(Metric):
    r"""Mean recall over the classes that occur among the labels.

    .. math:: \frac{1}{|K|} \sum_{k \in K} \frac{1}{n_k} \sum_{i: y_i = k} [\hat y_i = k]

    with :math:`K` the classes of at least one label and :math:`n_k` their counts. Unlike
    ``MulticlassAccuracy(average="macro")`` a class that is predicted but never occurs does not
    count as recall 0; this is scikit-learn's ``balanced_accuracy_score``.

    Source: Brodersen et al. 2010, "The balanced accuracy and its posterior distribution".

    Args:
        n_classes: number of classes.

    Example:
        >>> metric = BalancedAccuracy(3)
        >>> p = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
        >>> metric(p, torch.tensor([0, 1, 1])).item()
        0.75
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    correct: Tensor
    support: Tensor

    def __init__(self, n_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        zeros = torch.zeros(n_classes, dtype=torch.float64)
        self.add_state("correct", zeros, dist_reduce_fx="sum")
        self.add_state("support", zeros.clone(), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Count the correct answers and the labels of each class."""
        n_classes = len(self.support)
        hit = preds.argmax(-1) == target
        self.correct += torch.bincount(target[hit], minlength=n_classes)
        self.support += torch.bincount(target, minlength=n_classes)

    def compute(self) -> Tensor:
        """Mean recall, a scalar in 0..1; NaN before the first sample."""
        seen = self.support > 0
        return (self.correct[seen] / self.support[seen]).mean()


class CrossEntropy(Metric):
    r"""Mean negative log-probability of the label, in nats.

    .. math:: -\frac{1}{N} \sum_i \ln \max(p_i(y_i), \varepsilon)

    with :math:`\varepsilon` = :data:`PROBABILITY_FLOOR`, in float64. scikit-learn's ``log_loss`` of
    float32 probabilities has the same lower bound; it also lowers probabilities above
    :math:`1 - \varepsilon` to that, which this does not, so the two differ by at most
    :math:`1.2 \cdot 10^{-7}` nats and float32 rounding.

    Args:
        n_classes: number of classes (unused, for a signature common to all metrics).

    Example:
        >>> metric = CrossEntropy(2)
        >>> round(metric(torch.tensor([[0.5, 0.5], [0.25, 0.75]]), torch.tensor([0, 1])).item(), 4)
        0.4904
    """

    higher_is_better = False
    is_differentiable = True
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, n_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add the samples' negative log-probabilities."""
        own = preds.gather(1, target[:, None])[:, 0].double()
        self.total -= own.clamp_min(PROBABILITY_FLOOR).log().sum()
        self.count += len(target)

    def compute(self) -> Tensor:
        """Cross-entropy in nats, a scalar."""
        return self.total / self.count


class UsableInformation(CrossEntropy):
    r"""Bits about the label that a linear probe gets out of the feature.

    .. math:: H(Y) - \frac{\mathrm{CE}}{\ln 2}, \qquad H(Y) = -\sum_k \pi_k \log_2 \pi_k

    with :math:`\pi` the class shares among the scored labels, which is the best predictor that
    ignores the feature, and CE the held-out cross-entropy in nats (:class:`CrossEntropy`). It is
    negative where the probe predicts worse than the class shares do.

    Source: Xu et al. 2020, "A Theory of Usable Information Under Computational Constraints"
    (arXiv 2002.10689).

    Args:
        n_classes: number of classes.
    """

    higher_is_better = True
    support: Tensor

    def __init__(self, n_classes: int, **kwargs: Any) -> None:
        super().__init__(n_classes, **kwargs)
        zeros = torch.zeros(n_classes, dtype=torch.float64)
        self.add_state("support", zeros, dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add the samples' negative log-probabilities and count their labels."""
        super().update(preds, target)
        self.support += torch.bincount(target, minlength=len(self.support))

    def compute(self) -> Tensor:
        """Usable information in bits, a scalar."""
        share = self.support / self.count
        entropy = -torch.special.xlogy(share, share).sum()
        return cast(Tensor, (entropy - self.total / self.count) / math.log(2))


class CalibrationError(Metric):
    r"""Expected calibration error of the top answer, over bins of equally many samples.

    .. math:: \sum_b \frac{n_b}{N} \left| \mathrm{acc}_b - \mathrm{conf}_b \right|

    Samples are sorted by the confidence of their top answer and cut into bins of equal mass, so no
    bin is nearly empty, as those of equal width are where a probe is mostly certain. Equal
    confidences share a bin, so the order of the samples does not matter, and a constant predictor
    whose confidence is its accuracy has the error 0.

    Source: Nguyen & O'Connor 2015 (arXiv 1508.05154) for equal mass; Roelofs et al. 2022
    (arXiv 2012.08668) on its smaller bias. The estimate is biased upwards where a bin holds few
    samples.

    Args:
        n_classes: number of classes (unused, for a signature common to all metrics).
        n_bins: number of bins; fewer where there are fewer samples.
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False
    confidence: list[Tensor]
    correct: list[Tensor]

    def __init__(self, n_classes: int, n_bins: int = CALIBRATION_BINS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n_bins = n_bins
        self.add_state("confidence", [], dist_reduce_fx="cat")
        self.add_state("correct", [], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Keep each sample's top probability and whether it is right."""
        confidence, answer = preds.max(-1)
        self.confidence.append(confidence)
        self.correct.append(answer == target)

    def compute(self) -> Tensor:
        """Calibration error, a scalar in 0..1."""
        confidence = dim_zero_cat(self.confidence).double()
        gap = dim_zero_cat(self.correct).double() - confidence
        bins = torch.from_numpy(equal_mass_bins(confidence.numpy(force=True), self.n_bins))
        sums = torch.zeros(self.n_bins, dtype=torch.float64, device=gap.device)
        return sums.index_add_(0, bins.to(gap.device), gap).abs().sum() / len(gap)


def make_metrics(n_classes: int) -> MetricCollection:
    """All metrics of :data:`METRICS` for one layer.

    Accuracy and top-3 accuracy count samples (micro); macro F1 is the unweighted mean over classes
    that occur among labels or answers, as scikit-learn's. With fewer than three classes top-3
    accuracy is 1.

    Args:
        n_classes: number of classes, at least 2.
    """
    top = min(3, n_classes)
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(n_classes, average="micro", validate_args=False),
            "balanced_accuracy": BalancedAccuracy(n_classes),
            "macro_f1": MulticlassF1Score(n_classes, average="macro", validate_args=False),
            "top3_accuracy": MulticlassAccuracy(
                n_classes, top_k=top, average="micro", validate_args=False
            ),
            "cross_entropy": CrossEntropy(n_classes),
            "calibration_error": CalibrationError(n_classes),
            "usable_information": UsableInformation(n_classes),
        },
        compute_groups=False,  # the state of one metric must never be taken for another's
    )


class LayerScores(nn.Module):
    """One set of metrics for each layer.

    Args:
        n_layers: number of layers.
        n_classes: number of classes.
    """

    def __init__(self, n_layers: int, n_classes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(make_metrics(n_classes) for _ in range(n_layers))

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Add samples.

        Args:
            probabilities: shape (n_samples, n_layers, n_classes).
            labels: class indices, shape (n_samples,).
        """
        for number, metrics in enumerate(self.layers):
            cast(MetricCollection, metrics).update(probabilities[:, number], labels)

    def compute(self) -> dict[str, Tensor]:
        """Each metric's value for every layer, shape (n_layers,)."""
        rows = [cast(MetricCollection, metrics).compute() for metrics in self.layers]
        return {name: torch.stack([row[name].double() for row in rows]) for name in METRICS}

    def reset(self) -> None:
        """Forget all samples."""
        for metrics in self.layers:
            cast(MetricCollection, metrics).reset()


def score(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> Mapping[str, float]:
    """All metrics of one set of predictions.

    Args:
        probabilities: shape (n_samples, n_classes); rows sum to 1.
        labels: class indices, shape (n_samples,).

    Returns:
        Value by name, in the order of :data:`METRICS`.
    """
    p = torch.as_tensor(np.asarray(probabilities))
    y = torch.as_tensor(np.asarray(labels, dtype=np.int64))
    metrics = make_metrics(p.shape[1])
    metrics.update(p, y)
    values = metrics.compute()
    return {name: float(values[name]) for name in METRICS}
