"""The metrics: one entry each, from which everything else that names metrics is made.

A metric is computed from sums over samples (:class:`Quantity`), and these from what
:func:`outcomes` keeps of each held-out prediction. So one definition serves a set of predictions, a
batch on a device (:class:`signbridge.statistics.layer_scores.LayerScores`) and the resamples of a
bootstrap (:mod:`signbridge.statistics.bootstrap`). To add a metric, add an entry to
:data:`METRICS` and its paragraph to ``docs/method.md``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Sums = Mapping[str, FloatArray]
"""Sums over samples by the name of the quantity, shape (...,) or (..., columns)."""
Unit = Literal["share", "bits", "nats", ""]
UNITS: tuple[Unit, ...] = ("share", "bits", "nats", "")
"""Units of scores, in the order in which they are shown."""
IntervalMethod = Literal["logit", "bias_corrected_logit", "studentised", "bracketing"]

PROBABILITY_FLOOR = float(np.finfo(np.float32).eps)
"""Least probability that enters a logarithm, that of scikit-learn's ``log_loss`` for float32.

A class missing from a training part has probability 0; without a floor one such sample would make
the cross-entropy infinite.
"""

CALIBRATION_BINS = 15


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What the metrics need of each prediction; arrays of shape (n_samples,) or (n_samples, ...).

    Attributes:
        label: class of the sample.
        answer: most probable class, of equally probable ones the first.
        rank: place of the label among the classes by falling probability, from 1; of equally
            probable classes the first is placed first, so the rank is 1 where the answer is right.
        own: probability of the label.
        confidence: probability of the answer.
        n_classes: number of classes.
    """

    label: npt.NDArray[Any]
    answer: npt.NDArray[Any]
    rank: npt.NDArray[Any]
    own: npt.NDArray[Any]
    confidence: npt.NDArray[Any]
    n_classes: int


def outcomes(probabilities: Any, labels: Any, xp: Any = np) -> Outcomes:
    """Reduce class probabilities to what the metrics need of them.

    Args:
        probabilities: shape (..., n_classes); an array of ``xp``.
        labels: class indices, shape (...) or one that broadcasts to it, on the same device.
        xp: the library of the arrays, ``numpy`` or ``torch``.

    Returns:
        Arrays of ``xp``, shape (...).
    """
    n_classes = probabilities.shape[-1]
    classes = xp.arange(n_classes, device=probabilities.device)
    at_label = classes == labels[..., None]
    own = xp.where(at_label, probabilities, 0.0).sum(-1)
    equal = probabilities == own[..., None]
    # What is not known to be behind the label is before it, so a NaN never looks good.
    behind = (probabilities < own[..., None]) | (equal & (classes > labels[..., None]))
    return Outcomes(
        label=labels,
        answer=probabilities.argmax(-1),
        rank=n_classes - behind.sum(-1),
        own=own,
        confidence=xp.amax(probabilities, -1),
        n_classes=n_classes,
    )


@dataclass(frozen=True)
class Quantity:
    """A number that each sample adds to a sum.

    Attributes:
        name: of its sums in :data:`Sums`.
        of: each sample's number, shape (n_samples,).
        column: where the sums are many, which of them each sample adds to, shape (n_samples,).
        width: number of these sums by number of classes.
        most: largest value that a sample can have.
    """

    name: str
    of: Callable[[Outcomes], npt.NDArray[Any]]
    column: Callable[[Outcomes], npt.NDArray[Any]] | None = None
    width: Callable[[int], int] = lambda n_classes: n_classes
    most: float = math.inf


def _one(o: Outcomes) -> FloatArray:
    return np.ones(len(o.label))


def _correct(o: Outcomes) -> FloatArray:
    return np.asarray(o.rank == 1, dtype=np.float64)


SAMPLES = Quantity("samples", _one)
CORRECT = Quantity("correct", _correct, most=1.0)
LOG_PROBABILITY = Quantity(
    "log_probability",
    lambda o: np.log(np.maximum(o.own.astype(np.float64), PROBABILITY_FLOOR)),
    most=0.0,
)
SUPPORT = Quantity("support", _one, column=lambda o: o.label)
PREDICTED = Quantity("predicted", _one, column=lambda o: o.answer)
HITS = Quantity("hits", _correct, column=lambda o: o.label)
GAPS = Quantity(
    "gaps",
    lambda o: _correct(o) - o.confidence,
    # The bins are those of the whole sample, and stay fixed in resamples of it.
    column=lambda o: equal_mass_bins(o.confidence),
    width=lambda n_classes: CALIBRATION_BINS,
)


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A kind of score in ``scores.csv``.

    Attributes:
        name: in the column ``metric``.
        label: in words, without a per cent sign.
        unit: ``share`` (shown in per cent), ``bits``, ``nats``, or none.
        higher_is_better: which way is better.
    """

    name: str
    label: str
    unit: Unit = "share"
    higher_is_better: bool = True

    @property
    def is_share(self) -> bool:
        """Whether it is shown in per cent."""
        return self.unit == "share"

    @property
    def unit_of_differences(self) -> str:
        """The unit of its differences, in words."""
        return "points" if self.is_share else self.unit


@dataclass(frozen=True, kw_only=True)
class Metric(Measure):
    """A score of class probabilities.

    Attributes:
        bounds: least and largest value.
        mean_of: the quantity whose mean over samples the metric is, or is a linear function of
            where the labels are given. Differences between such metrics can be tested by sign
            flips.
        sums: other quantities that it needs.
        value: the metric from sums, and from those of the whole sample where the first are a
            resample's; by default the mean of ``mean_of``.
        chance: its value where all classes are equally probable, from their number and the labels
            of each class, shape (n_classes,) or fewer; None where there is no single value.
        interval: how its interval is made, see
            :meth:`signbridge.statistics.bootstrap.ClusterBootstrap.scored`.
        compared: whether ``comparisons.csv`` and ``signbridge compare`` have its differences.
        head: head of its column in the terminal; empty where it is not shown there.
        priority: of the terminal's columns; where there is no room for all, the lowest stay.
        shown: whether the page shows it, by the number of classes.
    """

    bounds: tuple[float, float] = (0.0, 1.0)
    mean_of: Quantity | None = None
    sums: tuple[Quantity, ...] = ()
    value: Callable[[Sums, Sums], FloatArray] | None = None
    chance: Callable[[int, IntArray], float] | None = None
    interval: IntervalMethod = "logit"
    compared: bool = False
    head: str = ""
    priority: int = 0
    shown: Callable[[int], bool] = lambda n_classes: True

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """All that it needs besides the number of samples."""
        return ((self.mean_of,) if self.mean_of else ()) + self.sums

    def compute(self, sums: Sums, whole: Sums) -> FloatArray:
        """Its value.

        Args:
            sums: sums over samples.
            whole: those over all samples of which the first are a resample; else the same.

        Returns:
            Shape (...).
        """
        if self.value is not None:
            return self.value(sums, whole)
        assert self.mean_of is not None
        return np.asarray(sums[self.mean_of.name] / sums["samples"])


def _balanced_accuracy(sums: Sums, whole: Sums) -> FloatArray:
    """Mean recall of the classes that occur, as scikit-learn's ``balanced_accuracy_score``."""
    support = sums["support"]
    recall = np.where(support > 0, sums["hits"] / support, 0.0)
    return np.asarray(recall.sum(-1) / (support > 0).sum(-1))


def _macro_f1(sums: Sums, whole: Sums) -> FloatArray:
    """Mean F1 of the classes with a label or an answer, as scikit-learn's.

    A class that a resample misses by chance is left out of it.
    """
    either = sums["support"] + sums["predicted"]
    counts = (either > 0) & ((sums["support"] > 0) | (whole["support"] == 0))
    return np.asarray(np.where(counts, 2 * sums["hits"] / either, 0.0).sum(-1) / counts.sum(-1))


def _cross_entropy(sums: Sums, whole: Sums) -> FloatArray:
    return np.asarray(0.0 - sums["log_probability"] / sums["samples"])


def _usable_information(sums: Sums, whole: Sums) -> FloatArray:
    """Entropy of the labels minus the cross-entropy, in bits.

    The class shares are those of the whole sample: the entropy of a resample's own shares is biased
    downwards.
    """
    share = whole["support"] / whole["support"].sum(-1, keepdims=True)
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(-1)
    return np.asarray((entropy - _cross_entropy(sums, whole)) / math.log(2))


def _chance_information(n_classes: int, count: IntArray) -> float:
    # H - log2 K in one sum, so that balanced classes give 0 and not its rounding error.
    count = count[count > 0]
    surplus = np.sum(count * np.log2(count * n_classes / count.sum()))
    return 0.0 - float(surplus) / int(count.sum())


def _top(k: int) -> dict[str, Any]:
    """Share of samples whose label is among the ``k`` most probable classes."""
    return {
        "name": f"top{k}_accuracy",
        "label": f"top-{k} accuracy",
        "mean_of": Quantity(f"top{k}", lambda o: o.rank <= k, most=1.0),
        "chance": lambda n_classes, count: min(k, n_classes) / n_classes,
    }


def _many_classes(n_classes: int) -> bool:
    """Whether the three most probable classes are too few to tell probes apart."""
    return n_classes > 50


_ENTRIES = (
    Metric(
        name="accuracy",
        label="accuracy",
        mean_of=CORRECT,
        chance=lambda n_classes, count: 1 / n_classes,
        compared=True,
        head="acc. %",
        priority=1,
    ),
    Metric(
        name="balanced_accuracy",
        label="balanced accuracy",
        sums=(SUPPORT, HITS),
        value=_balanced_accuracy,
        chance=lambda n_classes, count: 1 / n_classes,
    ),
    Metric(
        name="macro_f1",
        label="macro F1",
        sums=(SUPPORT, PREDICTED, HITS),
        value=_macro_f1,
        interval="bias_corrected_logit",
        head="F1 %",
        priority=4,
    ),
    Metric(**_top(3), head="top-3 %", priority=3),
    Metric(**_top(5), shown=_many_classes),
    Metric(
        name="mean_reciprocal_rank",
        label="mean reciprocal rank",
        unit="",
        mean_of=Quantity("reciprocal_rank", lambda o: 1 / o.rank, most=1.0),
        chance=lambda n_classes, count: float(np.mean(1 / np.arange(1, n_classes + 1))),
        shown=_many_classes,
    ),
    Metric(
        name="cross_entropy",
        label="cross-entropy (nats)",
        unit="nats",
        higher_is_better=False,
        bounds=(0.0, -math.log(PROBABILITY_FLOOR)),
        mean_of=LOG_PROBABILITY,
        value=_cross_entropy,
        chance=lambda n_classes, count: math.log(n_classes),
        interval="studentised",
    ),
    Metric(
        name="calibration_error",
        label="calibration error",
        unit="",
        higher_is_better=False,
        sums=(GAPS,),
        value=lambda sums, whole: np.abs(sums["gaps"]).sum(-1) / sums["samples"],
        interval="bracketing",
    ),
    Metric(
        name="usable_information",
        label="usable information (bits)",
        unit="bits",
        bounds=(-math.inf, math.inf),
        mean_of=LOG_PROBABILITY,
        sums=(SUPPORT,),
        value=_usable_information,
        chance=_chance_information,
        interval="studentised",
        compared=True,
        head="bits",
        priority=2,
    ),
)
METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ENTRIES}
"""The metrics by name, in the order of the score table."""

COMPARED = tuple(name for name, metric in METRICS.items() if metric.compared)
"""Metrics whose differences are tested: means over samples."""

MEASURES: Mapping[str, Measure] = {
    **METRICS,
    "selectivity": Measure(name="selectivity", label="selectivity"),
    "description_length": Measure(
        name="description_length",
        label="description length (bits an image)",
        unit="bits",
        higher_is_better=False,
    ),
    "compression": Measure(name="compression", label="compression", unit=""),
}
"""All that ``scores.csv`` may hold: the metrics, and what the controls measure."""


def measure(name: str) -> Measure:
    """What is known of a kind of score; one of another version is a number without a unit."""
    return MEASURES.get(name) or Measure(name=name, label=name.replace("_", " "), unit="")


@dataclass(frozen=True, eq=False)
class GroupSums:
    """What the metrics need of a set of predictions, summed within each group.

    Attributes:
        columns: all sums side by side, shape (n_groups, n_columns).
        places: which columns belong to each quantity.
    """

    columns: FloatArray
    places: Mapping[str, slice | int]

    def named(self, columns: FloatArray) -> Sums:
        """Sums of such columns, shape (..., n_columns), by the name of the quantity."""
        return {name: columns[..., place] for name, place in self.places.items()}

    @property
    def groups(self) -> Sums:
        """The sums of each group, shape (n_groups,) or (n_groups, columns)."""
        return self.named(self.columns)

    @property
    def whole(self) -> Sums:
        """The sums over all samples, shape () or (columns,)."""
        return self.named(self.columns.sum(0))


def group_sums(predictions: Outcomes, groups: npt.ArrayLike) -> GroupSums:
    """Sum over each group what the metrics need.

    Args:
        predictions: of :func:`outcomes`, arrays of shape (n_samples,).
        groups: group numbers, shape (n_samples,); any integers.

    Returns:
        The sums; groups are in ascending order of their number.
    """
    g = np.unique(np.asarray(groups), return_inverse=True)[1]
    n_groups = int(g.max()) + 1
    needed = [SAMPLES, *(quantity for metric in METRICS.values() for quantity in metric.quantities)]
    columns, places, at = [], dict[str, slice | int](), 0
    for quantity in dict.fromkeys(needed):
        weights = np.asarray(quantity.of(predictions), dtype=np.float64)
        if quantity.column is None:
            width, cell = 1, g
            places[quantity.name] = at
        else:
            width = quantity.width(predictions.n_classes)
            cell = g * width + quantity.column(predictions)
            places[quantity.name] = slice(at, at + width)
        total = np.bincount(cell, weights=weights, minlength=n_groups * width)
        columns.append(total.reshape(n_groups, width))
        at += width
    return GroupSums(np.hstack(columns), places)


def metrics_of_sums(sums: Sums, whole: Sums | None = None) -> dict[str, FloatArray]:
    """All metrics from sums over samples.

    Args:
        sums: sums over samples.
        whole: those over all samples of which the first are a resample; else the same.

    Returns:
        Each metric, shape (...).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            name: metric.compute(sums, sums if whole is None else whole)
            for name, metric in METRICS.items()
        }


def score(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> Mapping[str, float]:
    """All metrics of one set of predictions.

    Args:
        probabilities: shape (n_samples, n_classes); rows sum to 1.
        labels: class indices, shape (n_samples,).

    Returns:
        Value by name, in the order of :data:`METRICS`.
    """
    p, y = np.asarray(probabilities), np.asarray(labels, dtype=np.int64)
    return score_outcomes(outcomes(p, y))


def score_outcomes(predictions: Outcomes) -> dict[str, float]:
    """All metrics of what :func:`outcomes` kept of one set of predictions.

    Args:
        predictions: arrays of shape (n_samples,).

    Returns:
        Value by name, in the order of :data:`METRICS`.
    """
    sums = group_sums(predictions, np.zeros(len(predictions.label), dtype=np.int64))
    return {name: float(value) for name, value in metrics_of_sums(sums.whole).items()}


def equal_mass_bins(
    confidence: npt.NDArray[Any], n_bins: int = CALIBRATION_BINS
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
