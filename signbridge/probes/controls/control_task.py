"""The control task: what a probe scores by recognising what it was trained on.

Every group gets a label at random, which all its images share, drawn from the labels' own
distribution. Nothing but the group decides such a label, so a probe that scores above chance has
recognised groups. That is only possible where images of a group stand in the training part and in
the test part, as in the random split. Selectivity is the accuracy on the true labels minus that on
the random ones, under the same split.

Where groups are fewer than :data:`GROUPS_PER_CLASS` times the classes, a random label for each is
the group's own name, and a probe that tells five signers apart scores as if it had memorised their
images. Then it is not measured.

Source: Hewitt & Liang 2019, "Designing and Interpreting Probes with Control Tasks"
(arXiv 1909.03368). Their types are words, ours are groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from signbridge.probes.controls.measurement import FITS, Measurement, Part, Sweep
from signbridge.probes.dataset.splits import IntArray, Split
from signbridge.probes.engines import Record, not_converged, records_of, work_of
from signbridge.probes.selection import lower_median
from signbridge.results.format import CONTROL_TASK
from signbridge.results.summary import Memorisation
from signbridge.runtime.words import counted
from signbridge.statistics.few_groups import FEW_GROUPS

if TYPE_CHECKING:
    from typing_extensions import Self

    from signbridge.probes.dataset.features import FeatureSource
    from signbridge.probes.engines import Engine
    from signbridge.probes.feature_result import FeatureResult
    from signbridge.probes.scoring import Row, ScoredSweep, SplitScores
    from signbridge.statistics.bootstrap import Interval

_STREAM = 2  # keeps these draws apart from others of the same seed
_ATTEMPTS = 100
GROUPS_PER_CLASS = 2
"""Fewer groups than so many for each class make random labels names of groups."""


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
    n_classes = len(np.unique(y))
    least = max(GROUPS_PER_CLASS * n_classes, FEW_GROUPS)
    if n_groups < least:
        return None, (
            "memorisation and selectivity were not measured: with "
            f"{counted(n_groups, 'group')} for {n_classes} classes a random label for each is "
            f"little else than its name; {least} groups or more are needed."
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


class GroupControl(Measurement):
    """The control task under the random split: the comparison's, or the main one of a random run.

    Args:
        sweep: the sweep that it belongs to.
        task: the random labels.
    """

    name = "control_task"

    def __init__(self, sweep: Sweep, task: ControlTask) -> None:
        super().__init__(sweep)
        self.task = task

    @classmethod
    def planned(cls, sweep: Sweep) -> tuple[Self | None, list[str]]:
        """See :class:`Measurement`."""
        plan = sweep.plan
        split = plan.main if plan.main.name == "random" else plan.random
        if not sweep.config.control_task or split is None:
            return None, []
        task, note = make_control_task(plan.labels, plan.groups, split, seed=sweep.config.seed)
        return None if task is None else cls(sweep, task), [note] if note else []

    def work(self, width: int) -> tuple[str, float]:
        """See :class:`Measurement`; the penalties that the true labels take are one, mostly."""
        parts = [train for train, _ in self.task.split]
        return FITS, work_of(parts, width, len(self.sweep.store.class_names), 1)

    def compute(self, source: FeatureSource, results: Sequence[FeatureResult]) -> Iterable[Part]:
        """See :class:`Measurement`."""
        n_classes = len(self.sweep.store.class_names)
        C = np.stack([_penalties(result) for result in results])
        found = evaluate_control(self.sweep.engine, source, self.task, n_classes, C)
        for feature, probability in zip(source.features, found.probability, strict=True):
            yield {"probability": probability}, records_of(feature, found.not_converged)

    def rows(self, scored: ScoredSweep) -> Iterator[Row]:
        """Scores of the random labels, and what they leave of the true labels' accuracy."""
        split = self._scores(scored)
        for result in scored.results:
            C = lower_median(_penalties(result))
            control, selectivity = self._scored(scored, result)
            n_classes = len(np.unique(self.task.labels))
            yield from split.rows(
                result.feature, control, C, task=CONTROL_TASK, n_classes=n_classes
            )
            yield split.row(
                result.feature,
                "selectivity",
                selectivity,
                C,
                n_classes=len(np.unique(self.sweep.plan.labels)),
            )

    def _scores(self, scored: ScoredSweep) -> SplitScores:
        return scored.main if scored.random is None else scored.random

    def _scored(
        self, scored: ScoredSweep, result: FeatureResult
    ) -> tuple[Mapping[str, Interval], Interval]:
        """Scores of the random labels, and the selectivity."""
        split, labels = self._scores(scored), self.task.labels
        drawn = self.parts[result.feature]["probability"][split.scored]
        true = result.probability if result.random is None else result.random
        return split.bootstrap.intervals(drawn, labels[split.scored]), split.bootstrap.difference(
            true[split.scored],
            drawn,
            split.labels,
            "accuracy",
            other_labels=labels[split.scored],
        )

    def summary(self, scored: ScoredSweep) -> Mapping[str, Any]:
        """The best layer's memorisation."""
        control, selectivity = self._scored(scored, scored.best)
        accuracy, of_split = control["accuracy"], self._scores(scored).scored
        share = float(self.task.shared[of_split].mean())
        return {
            "memorisation": Memorisation(
                layer=int(scored.best.feature.layer or 0),
                control_accuracy=accuracy.value,
                ci=(accuracy.low, accuracy.high),
                selectivity=selectivity.value,
                selectivity_ci=(selectivity.low, selectivity.high),
                n_groups=self.task.n_groups,
                shared=share,
                majority=float(np.bincount(self.task.labels[of_split]).max() / len(of_split)),
                note=f"{100 * share:.3g} % of the images are tested by a probe that was trained on "
                "their group; the others' random labels can only be guessed",
            )
        }


def _penalties(result: FeatureResult) -> npt.NDArray[np.float64]:
    """What C the true labels took in each fold of the random split, shape (n_folds,)."""
    return result.C if result.C_random is None else result.C_random
