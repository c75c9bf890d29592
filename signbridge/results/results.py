"""Read and validate a results folder.

A results folder is what ``train_probes`` writes: ``scores.csv``, ``summary.json`` and
``predictions.h5`` (see ``docs/method.md`` for the metrics). Everything that the report shows comes
through :func:`load_results`, so that a damaged or foreign folder is named before anything is drawn.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from signbridge.errors import ProbeError
from signbridge.results.comparisons import Comparison
from signbridge.results.features import (
    RANDOM_WEIGHTS,
    RESID_POST,
    SAID,
    UNTRAINED,
    ZERO_SHOT,
)
from signbridge.results.format import (
    AGAIN,
    ANSWERS_FILE,
    COMPARISONS_FILE,
    PREDICTIONS_FILE,
    SCORES_FILE,
    SUMMARY_FILE,
    TASK,
    require_file,
)
from signbridge.results.predictions import Predictions, read_predictions
from signbridge.results.summary import Protocol, StoreRecord, Summary, read_summary
from signbridge.results.tables import read_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AnswerCount", "Results", "Score", "load_results"]


@dataclass(frozen=True)
class Score:
    """One row of ``scores.csv``.

    Attributes:
        feature: ``resid_post``, a baseline's name, ``chance`` or ``majority``, or what was said:
            ``text``, ``forced_choice``, ``zero_shot``.
        layer: 0-based decoder layer, or None for a baseline.
        solver: The solver's name; empty for chance and majority.
        split: The protocol that scored it, such as ``grouped`` or ``random``.
        task: ``label``, or ``group_control`` where labels were drawn at random for each group.
        metric: The metric's name, such as ``accuracy``.
        value: The score; NaN where it could not be had.
        ci_low: Lower end of the 95 % interval, NaN where there is none.
        ci_high: Upper end of the 95 % interval, NaN where there is none.
        n_train: Mean number of training samples of a fold, None where nothing was trained.
        n_test: Samples scored, None where nothing was.
        n_classes: Number of classes.
        C: The penalty as written: a number, a list, or empty.
    """

    feature: str
    layer: int | None
    solver: str
    split: str
    task: str
    metric: str
    value: float
    ci_low: float = math.nan
    ci_high: float = math.nan
    n_train: int | None = None
    n_test: int | None = None
    n_classes: int | None = None
    C: str = ""


@dataclass(frozen=True)
class AnswerCount:
    """How often one answer was given to the images of one class: a row of ``answers.csv``.

    Attributes:
        class_name: The class.
        answer: The answer, normalised.
        count: Images of the class with this answer.
        share: Share of the class's images.
        names_class: Whether it names the class.
    """

    class_name: str
    answer: str
    count: int
    share: float
    names_class: bool


@dataclass(frozen=True)
class Results:
    """A validated results folder.

    Attributes:
        path: The folder.
        scores: The rows of ``scores.csv``, in its order.
        summary: The content of ``summary.json``.
        predictions: Held-out predictions of the main split.
        comparisons: Corrected comparisons of features; empty in older folders.
        answers: What was answered to the images of each class, the commonest first; empty where
            nothing was said.
    """

    path: Path
    scores: tuple[Score, ...]
    summary: Summary
    predictions: Predictions
    comparisons: tuple[Comparison, ...] = ()
    answers: tuple[AnswerCount, ...] = ()

    @property
    def store(self) -> StoreRecord:
        """What ``summary.json`` says about the activation store."""
        return self.summary.store

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The store's guarded provenance: model, prompt, images and so on."""
        return self.store.provenance

    @property
    def protocol(self) -> Protocol:
        """Solver, split, folds, penalty, seed and the description in words."""
        return self.summary.protocol

    @property
    def split(self) -> str:
        """Name of the main split."""
        return self.protocol.split

    @property
    def splits(self) -> tuple[str, ...]:
        """All splits in ``scores.csv``, the main one first."""
        others = dict.fromkeys(s.split for s in self.scores if s.split != self.split)
        return (self.split, *(name for name in others if name))

    @property
    def stack(self) -> str:
        """Whose layers ``resid_post`` holds: ``decoder``, or ``encoder`` of an encoder-decoder."""
        return str(self.provenance.get("stack") or "decoder")

    @property
    def n_layers(self) -> int:
        """Decoder layers of the model, as far as the store tells: its highest number and one."""
        return max((*self.store.layers, *self.layers)) + 1

    @property
    def metrics(self) -> tuple[str, ...]:
        """All metrics in ``scores.csv``, in its order."""
        return tuple(dict.fromkeys(s.metric for s in self.scores))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""
        return self.predictions.class_names

    @property
    def layers(self) -> tuple[int, ...]:
        """Decoder layers that were probed, ascending."""
        return tuple(
            sorted(
                {s.layer for s in self.scores if s.feature == RESID_POST and s.layer is not None}
            )
        )

    @property
    def best_layer(self) -> int:
        """The layer with the highest held-out accuracy."""
        return self.summary.best_layer.layer

    @property
    def best_feature(self) -> str:
        """The best layer's name among the predictions, such as ``resid_post/5``."""
        return f"{RESID_POST}/{self.best_layer}"

    @cached_property
    def _by_name(self) -> Mapping[tuple[str, int | None, str, str, str], Score]:
        return {(s.feature, s.layer, s.metric, s.split, s.task): s for s in self.scores}

    def score(
        self,
        feature: str,
        layer: int | None,
        metric: str,
        split: str | None = None,
        task: str = TASK,
    ) -> Score | None:
        """One score, or None where it was not measured.

        Args:
            feature: The feature's name.
            layer: The decoder layer, None for a baseline.
            metric: The metric's name.
            split: The split's name, the main one if None.
            task: ``label`` or ``group_control``.

        Returns:
            The row of ``scores.csv``.
        """
        split = self.split if split is None else split
        return self._by_name.get((feature, layer, metric, split, task))

    def curve(self, feature: str, metric: str, split: str, task: str = TASK) -> list[Score]:
        """The scores of one feature over its layers, ascending; empty where there are none."""
        rows = [
            s
            for s in self.scores
            if s.layer is not None
            and (s.feature, s.metric, s.split, s.task) == (feature, metric, split, task)
            and math.isfinite(s.value)
        ]
        return sorted(rows, key=lambda s: s.layer or 0)

    def family(self, name: str) -> list[Comparison]:
        """The comparisons of one family, in the order of the layers."""
        rows = [c for c in self.comparisons if c.family == name and c.metric == "accuracy"]
        return sorted(rows, key=lambda c: -1 if c.layer is None else c.layer)

    def baselines(self, metric: str, split: str, task: str = TASK) -> list[Score]:
        """The scores that belong to no layer: pixels, vision, projector, chance and others."""
        return [
            s
            for s in self.scores
            if s.layer is None
            and (s.metric, s.split, s.task) == (metric, split, task)
            and math.isfinite(s.value)
        ]

    def trained_baselines(self) -> list[Score]:
        """Accuracies of the best layer's rivals, under the main split.

        Those are the probes of what enters the decoder (pixels, vision, projector) and that of the
        same layer with random weights.
        """
        rivals = [
            s
            for s in self.baselines("accuracy", self.split)
            if s.feature not in (*UNTRAINED, *SAID, ZERO_SHOT)
        ]
        twin = self.score(RANDOM_WEIGHTS, self.best_layer, "accuracy")
        if twin is not None and math.isfinite(twin.value):
            rivals.append(twin)
        return rivals


def load_results(path: str | Path) -> Results:
    """Read a results folder and check that its parts belong together.

    Args:
        path: The folder that ``train_probes`` wrote.

    Returns:
        The validated results. Probabilities are read later, one feature at a time.

    Raises:
        ProbeError: The folder or one of its files is missing, damaged, of another kind or version,
            or contradicts the others; the message names the file.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ProbeError(
            f"{folder} is not a folder: give a results folder that train_probes wrote, "
            "such as results/tiny-sample."
        )
    summary = read_summary(folder / SUMMARY_FILE)
    # Version 1.0 had no column "task", all its rows are scores of the labels, and no comparisons.
    require_file(folder / SCORES_FILE)
    scores = read_rows(folder / SCORES_FILE, Score, {"task": TASK})
    if not scores:
        raise ProbeError(f"{folder / SCORES_FILE} holds no scores: {AGAIN}.")
    predictions = read_predictions(folder / PREDICTIONS_FILE)
    compared = folder / COMPARISONS_FILE
    comparisons = read_rows(compared, Comparison) if compared.exists() else ()
    answers: tuple[AnswerCount, ...] = ()
    with suppress(ProbeError):  # nothing was said, or the list is damaged: it is not needed
        answers = read_rows(folder / ANSWERS_FILE, AnswerCount)
    results = Results(folder, scores, summary, predictions, comparisons, answers)
    _check_agreement(results)
    return results


def _check_agreement(results: Results) -> None:
    path = results.path / SUMMARY_FILE
    names = results.store.class_names
    if names and names != results.class_names:
        raise ProbeError(
            f"{path} and {results.predictions.path.name} name different classes: {AGAIN}."
        )
    if results.best_layer not in results.layers:
        raise ProbeError(
            f"{path} names layer {results.best_layer} as the best, which scores.csv does not "
            f"hold: {AGAIN}."
        )
    if results.best_feature not in results.predictions.feature_names:
        raise ProbeError(
            f"{results.predictions.path} has no predictions for the best layer "
            f"({results.best_feature}): {AGAIN}."
        )
