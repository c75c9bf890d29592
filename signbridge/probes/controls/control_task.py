"""The control task: what a probe scores by recognising what it was trained on.

Every group gets a label at random, which all its images share, drawn from the labels' own
distribution. Nothing but the group decides such a label, so a probe that scores above chance has
recognised groups. That is only possible where images of a group stand in the training part and in
the test part, as in the random split. Selectivity is the accuracy on the true labels minus that on
the random ones, under the same split.

Source: Hewitt & Liang 2019, "Designing and Interpreting Probes with Control Tasks"
(arXiv 1909.03368). Their types are words, ours are groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from signbridge.probes.dataset.splits import IntArray, Split
from signbridge.probes.engines import Record, not_converged
from signbridge.runtime.words import counted

if TYPE_CHECKING:
    from signbridge.probes.dataset.features import FeatureSource
    from signbridge.probes.engines import Engine

_STREAM = 2  # keeps these draws apart from others of the same seed
_ATTEMPTS = 100


@dataclass(frozen=True, eq=False)
class ControlTask:
    """Random labels of one split's samples.

    Attributes:
        split: the split that scores.
        labels: a class index for every sample, shape (n_samples,); alike within a group.
        shared: whether a sample is scored by a probe that was trained on its group, shape
            (n_samples,).
        n_groups: number of groups.
    """

    split: Split
    labels: IntArray
    shared: npt.NDArray[np.bool_]
    n_groups: int


@dataclass(frozen=True, eq=False)
class ControlAnswers:
    """Held-out predictions of random labels.

    Attributes:
        probability: shape (n_layers, n_samples, n_classes), float32; NaN where never scored.
        not_converged: a record for each fit that missed its tolerance.
    """

    probability: npt.NDArray[np.float32]
    not_converged: list[Record] = field(default_factory=list)


def make_control_task(
    labels: npt.ArrayLike, groups: npt.ArrayLike, split: Split, *, seed: int = 42
) -> tuple[ControlTask | None, str | None]:
    """Draw a label for each group.

    Args:
        labels: true class indices, shape (n_samples,); their shares are what is drawn from.
        groups: group of each sample, shape (n_samples,).
        split: a split that parts groups.
        seed: seed of the draw.

    Returns:
        The task, or None and a sentence for the user where it would say nothing.
    """
    y = np.asarray(labels, dtype=np.int64)
    g = np.unique(np.asarray(groups), return_inverse=True)[1]
    n_groups = int(g.max()) + 1
    shared = np.zeros(len(y), dtype=bool)
    for train, test in split:
        shared[test] = np.isin(g[test], g[train])
    if not shared.any():
        return None, (
            "memorisation was not measured: no image is tested by a probe that was trained on its "
            + ("group, since every image is a group of its own" if n_groups == len(y) else "group")
            + "; where images are not independent, extract with groups."
        )
    sequence = np.random.SeedSequence(seed, spawn_key=(_STREAM,))
    generator = np.random.default_rng(sequence)
    share = np.bincount(y) / len(y)
    for _ in range(_ATTEMPTS):
        drawn = generator.choice(len(share), size=n_groups, p=share)[g]
        if all(len(np.unique(drawn[train])) > 1 for train, _ in split):
            return ControlTask(split, drawn.astype(np.int64), shared, n_groups), None
    return None, (
        f"memorisation was not measured: random labels of {counted(n_groups, 'group')} leave a "
        "training part with a single class; add groups."
    )


def evaluate_control(
    engine: Engine,
    source: FeatureSource,
    task: ControlTask,
    n_classes: int,
    C: npt.NDArray[np.float64],
) -> ControlAnswers:
    """Predict every test part's random labels by probes of its training part's.

    The penalty is the one that the true labels took in the same fold: the probe whose accuracy is
    compared is the same, and only the labels differ.

    Args:
        engine: what fits.
        source: the features.
        task: the random labels.
        n_classes: number of classes.
        C: value for each layer and fold, shape (n_layers, n_folds).
    """
    values = np.unique(C)
    pick = np.searchsorted(values, C)
    probability = np.full((len(source), len(task.labels), n_classes), np.nan, dtype=np.float32)
    missed: list[Record] = []
    layers = np.arange(len(source))
    folds: Sequence[tuple[IntArray, IntArray]] = task.split.folds
    for held in engine.held_out(source, task.labels, n_classes, folds, values.tolist()):
        taken = pick[:, held.fold]
        probability[:, folds[held.fold][1]] = held.probability[layers, taken]
        for layer in np.flatnonzero(~held.converged[layers, taken]):
            missed.append(
                not_converged(
                    source.features[layer],
                    split=task.split.name,
                    fold=held.fold,
                    part="control task",
                    C=C[layer, held.fold],
                    relative_tolerance=held.relative_tolerance[layer, taken[layer]],
                )
            )
    return ControlAnswers(probability, missed)
