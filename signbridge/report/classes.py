"""Per-class results of the best layer, computed from the held-out predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from signbridge.results.features import RESID_POST
from signbridge.statistics.intervals import share_intervals

if TYPE_CHECKING:
    from signbridge.results.results import Results

__all__ = ["ClassRecall", "class_recall", "confusion_counts", "slider_layers", "top_confusions"]


@dataclass(frozen=True)
class ClassRecall:
    """How well one class is read.

    Attributes:
        index: Label of the class.
        name: Its name.
        n_images: Images of the class.
        n_groups: Groups among them.
        n_scored: Images that a held-out probe scored.
        n_right: Of these, how many were read as this class.
        taken_for: Index of the class most often read instead, or None.
        low: Lower end of the recall's 95 % interval, NaN where nothing was scored.
        high: Upper end; both by :func:`signbridge.statistics.intervals.share_intervals`.
    """

    index: int
    name: str
    n_images: int
    n_groups: int
    n_scored: int
    n_right: int
    taken_for: int | None
    low: float = float("nan")
    high: float = float("nan")

    @property
    def recall(self) -> float:
        """Share of the scored images read as this class; NaN where none was scored."""
        return self.n_right / self.n_scored if self.n_scored else float("nan")


def confusion_counts(results: Results, feature: str | None = None) -> npt.NDArray[np.int64]:
    """Count (true, predicted) pairs over all scored samples.

    Args:
        results: A results folder.
        feature: A feature of the predictions, the best layer if None.

    Returns:
        (classes, classes) counts, rows are the true classes.

    Raises:
        ProbeError: The predictions lack the feature or cannot be read.
    """
    predicted = results.predictions.predicted(feature or results.best_feature)
    n = len(results.class_names)
    scored = predicted >= 0
    counts = np.zeros((n, n), dtype=np.int64)
    np.add.at(counts, (results.predictions.label[scored], predicted[scored]), 1)
    return counts


def class_recall(results: Results, feature: str | None = None) -> list[ClassRecall]:
    """Held-out recall of every class, in the order of the labels.

    Args:
        results: A results folder.
        feature: A feature of the predictions, the best layer if None.

    Returns:
        One entry a class.

    Raises:
        ProbeError: As :func:`confusion_counts`.
    """
    counts = confusion_counts(results, feature)
    label, group = results.predictions.label, results.predictions.group
    predicted = results.predictions.predicted(feature or results.best_feature)
    scored = predicted >= 0
    low, high = share_intervals(
        predicted[scored] == label[scored], label[scored], group[scored], len(results.class_names)
    )
    rows = []
    for k, name in enumerate(results.class_names):
        wrong = counts[k].copy()
        wrong[k] = 0
        rows.append(
            ClassRecall(
                index=k,
                name=name,
                n_images=int((label == k).sum()),
                n_groups=len(np.unique(group[label == k])),
                n_scored=int(counts[k].sum()),
                n_right=int(counts[k, k]),
                taken_for=int(wrong.argmax()) if wrong.any() else None,
                low=float(low[k]),
                high=float(high[k]),
            )
        )
    return rows


def slider_layers(results: Results, items: int, most: int = 20_000) -> tuple[int, ...]:
    """The layers that a slider shows, evenly chosen with the best one among them.

    Args:
        results: A results folder.
        items: What a layer takes of the page, in items.
        most: Items that the page should carry at most.
    """
    named = [k for k in results.layers if f"{RESID_POST}/{k}" in results.predictions.feature_names]
    step = max(1, -(-len(named) * items // most))
    start = results.layers.index(results.best_layer) % step
    return tuple(named[start::step]) or (results.best_layer,)


def top_confusions(results: Results, most: int = 8) -> list[tuple[int, int, int, int]]:
    """The most frequent mistakes of the best layer.

    Args:
        results: A results folder.
        most: How many at most.

    Returns:
        Tuples (true, predicted, count, scored images of the true class), most frequent first;
        mistakes that happened once are left out.
    """
    counts = confusion_counts(results)
    totals = counts.sum(axis=1)
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    pairs = [(int(t), int(p)) for t, p in np.argwhere(wrong > 1)]
    pairs.sort(key=lambda tp: (-wrong[tp], -wrong[tp] / totals[tp[0]], tp))
    return [(t, p, int(wrong[t, p]), int(totals[t])) for t, p in pairs[:most]]
