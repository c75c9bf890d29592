"""Held-out predictions under one split, with every choice made inside the training parts.

C is chosen by the cross-entropy of inner folds, the layer by their accuracy. The inner folds divide
the training part of an outer fold alone, so nothing that scores has chosen (Cawley & Talbot 2010,
"On Over-fitting in Model Selection and Subsequent Selection Bias in Performance Evaluation").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from signbridge.probes.dataset.features import FeatureSource
from signbridge.probes.dataset.plan import too_small
from signbridge.probes.dataset.splits import IntArray, Split
from signbridge.probes.engines import Engine, Fold, Record, not_converged
from signbridge.statistics.metrics import PROBABILITY_FLOOR


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What one split says of several features.

    Attributes:
        probability: held-out probabilities, shape (n_layers, n_samples, n_classes), float32; NaN
            where a sample is in no test part.
        C: value used in each fold, shape (n_layers, n_folds).
        inner_accuracy: accuracy on the inner folds of each training part at that C, shape
            (n_layers, n_folds); NaN where there were none.
        inner_cross_entropy: cross-entropy in nats there, same shape.
        not_converged: a record for each fit that missed its tolerance.
    """

    probability: npt.NDArray[np.float32]
    C: npt.NDArray[np.float64]
    inner_accuracy: npt.NDArray[np.float64]
    inner_cross_entropy: npt.NDArray[np.float64]
    not_converged: list[Record] = field(default_factory=list)


def evaluate(
    engine: Engine,
    source: FeatureSource,
    labels: IntArray,
    n_classes: int,
    splits: Sequence[tuple[Split, Sequence[Split | None]]],
    penalties: Sequence[float],
) -> list[Evaluation]:
    """Predict every test part of some splits by probes of its training part.

    Args:
        engine: what fits, all splits at once.
        source: the features.
        labels: class indices, shape (n_samples,).
        n_classes: number of classes.
        splits: the outer folds, and for each of them a split of its training part; None makes no
            choice there.
        penalties: values of C to choose from, ascending.

    Raises:
        ProbeError: several values of C and a training part that cannot be divided.
    """
    shape = len(source), len(penalties), n_classes
    folds: list[Fold] = []
    owner: list[tuple[_OneSplit, int, bool]] = []
    found = [_OneSplit(split, *shape) for split, _ in splits]
    for one, (split, inner) in zip(found, splits, strict=True):
        folds += split.folds
        owner += [(one, number, True) for number in range(len(split))]
        for number, part in enumerate(inner):
            if part is not None:
                folds += part.folds
                owner += [(one, number, False)] * len(part)
            elif len(penalties) > 1:
                raise too_small(number)
    for result in engine.held_out(source, labels, n_classes, folds, penalties):
        one, number, outer = owner[result.fold]
        one.records += [
            not_converged(
                source.features[layer],
                split=one.split.name,
                fold=number,
                part="outer" if outer else "inner",
                C=penalties[penalty],
                relative_tolerance=result.relative_tolerance[layer, penalty],
            )
            for layer, penalty in np.argwhere(~result.converged)
        ]
        if outer:
            one.outer[number] = result.probability
        else:
            one.add_inner(number, result.probability, labels[folds[result.fold][1]])
    return [one.evaluation(penalties) for one in found]


class _OneSplit:
    """Sums over the inner folds and predictions of the outer ones, as they come."""

    def __init__(self, split: Split, n_layers: int, n_penalties: int, n_classes: int) -> None:
        self.split = split
        self.n_classes = n_classes
        self.hits = np.zeros((n_layers, len(split), n_penalties))
        self.loss = np.zeros_like(self.hits)
        self.count = np.zeros(len(split))
        self.outer: dict[int, npt.NDArray[np.float32]] = {}
        self.records: list[Record] = []

    def add_inner(self, fold: int, probability: npt.NDArray[np.float32], y: IntArray) -> None:
        own = np.take_along_axis(probability, y[None, None, :, None], axis=3)[..., 0]
        self.hits[:, fold] += (probability.argmax(-1) == y).sum(-1)
        self.loss[:, fold] -= np.log(np.maximum(own.astype(np.float64), PROBABILITY_FLOOR)).sum(-1)
        self.count[fold] += len(y)

    def evaluation(self, penalties: Sequence[float]) -> Evaluation:
        with np.errstate(invalid="ignore", divide="ignore"):
            accuracy, entropy = (
                total / self.count[None, :, None] for total in (self.hits, self.loss)
            )
        pick = np.where(np.isnan(entropy), np.inf, entropy).argmin(-1)
        n_layers = len(pick)
        probability = np.full(
            (n_layers, self.split.n_samples, self.n_classes), np.nan, dtype=np.float32
        )
        for number, (_, test) in enumerate(self.split.folds):
            for layer in range(n_layers):
                probability[layer, test] = self.outer[number][layer, pick[layer, number]]

        def picked(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            return np.asarray(np.take_along_axis(values, pick[..., None], axis=-1)[..., 0])

        return Evaluation(
            probability,
            np.asarray(penalties, dtype=np.float64)[pick],
            picked(accuracy),
            picked(entropy),
            self.records,
        )


def choose_layers(
    accuracy: npt.NDArray[np.float64], cross_entropy: npt.NDArray[np.float64]
) -> IntArray | None:
    """The layer each outer fold would choose from its training part alone.

    Args:
        accuracy: inner accuracy, shape (n_layers, n_folds).
        cross_entropy: inner cross-entropy, same shape, which decides between equal accuracies; the
            earlier layer wins where both are equal.

    Returns:
        Positions along the first axis, shape (n_folds,); None where a fold had no inner folds.
    """
    if np.isnan(accuracy).any():
        return None
    order = [
        np.lexsort((cross_entropy[:, k], -accuracy[:, k]))[0] for k in range(accuracy.shape[1])
    ]
    return np.asarray(order, dtype=np.int64)


def lower_median(values: npt.ArrayLike) -> float:
    """The median, or the smaller of the two middle values, so that it is one of those given."""
    ordered = np.sort(np.asarray(values, dtype=np.float64).ravel())
    return float(ordered[(len(ordered) - 1) // 2])
