"""What a sweep measures besides held-out scores: the form of every such measurement.

A :class:`Measurement` says what it needs (:meth:`~Measurement.planned`), what it computes for a
batch of features and keeps among the folder's parts (:meth:`~Measurement.compute`), which rows it
writes into ``scores.csv`` (:meth:`~Measurement.rows`) and which part of ``summary.json`` it fills
(:meth:`~Measurement.summary`). The sweep goes through them in the order of
:data:`signbridge.probes.controls.registry.MEASUREMENTS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from signbridge.probes.dataset.features import FeatureSource
from signbridge.results.features import Feature
from signbridge.runtime.progress import StageProgress, SweepProgress, TimeLeft
from signbridge.runtime.threads import side_by_side

if TYPE_CHECKING:
    from typing_extensions import Self

    from signbridge.probes.config import SweepConfig
    from signbridge.probes.dataset.plan import Plan
    from signbridge.probes.engines import Engine, Record
    from signbridge.probes.feature_result import FeatureResult
    from signbridge.probes.scoring import Row, ScoredSweep
    from signbridge.results.folder import ResultsFolder
    from signbridge.store import Store

Arrays: TypeAlias = "dict[str, npt.NDArray[Any]]"
Part: TypeAlias = "tuple[Arrays, list[Record]]"
"""What is kept of one feature: arrays by name, and its fits that missed their tolerance."""
Batch: TypeAlias = "tuple[Store, list[Feature]]"
"""Features that are worked on together, with the store that holds them."""


FITS, PERMUTATIONS, SCORES = "fits", "permutations", "scores"
_PACE = {FITS: 4e-8, PERMUTATIONS: 5e-11, SCORES: 3e-4}
"""Seconds a unit on a core of 2025: a sample, feature, class and C of a fit; a multiplication; a
feature and group that is scored."""


class Stages:
    """Tells a progress callback what is under way, one thread at a time.

    Args:
        progress: the callback, or None; a :class:`SweepProgress` is told the time left too.
        total: number of features.
        workers: threads that work at once.

    Attributes:
        done: number of features that are done.
    """

    def __init__(self, progress: StageProgress | None, total: int, workers: int = 1) -> None:
        self._progress, self._total, self._lock = progress, total, Lock()
        self._time = TimeLeft(_PACE, workers)
        self._what = ""
        self.done = 0

    def expect(self, kind: str, amount: float) -> None:
        """Add to the work that there is, in the units of its kind."""
        self._time.expect(kind, amount)

    def did(self, kind: str, amount: float) -> None:
        """Say that this thread has done so much of it since it last said something."""
        with self._lock:
            self._time.did(kind, amount)
            if isinstance(self._progress, SweepProgress):
                self._say()

    def __call__(self, what: str, batch: Sequence[Feature] = ()) -> None:
        """Say what begins, and for which features."""
        names = [feature.name for feature in (*batch[:1], *batch[1:][-1:])]
        with self._lock:
            self._time.begin()
            self._what = ", ".join([what, " to ".join(names)] if names else [what])
            self._say()

    def _say(self) -> None:
        if isinstance(self._progress, SweepProgress):
            self._progress.seconds_left = self._time.seconds()
        if self._progress is not None:
            self._progress(self._what, self.done, self._total)


@dataclass(frozen=True, eq=False)
class Sweep:
    """A sweep under way.

    Attributes:
        config: its arguments.
        store: the open store.
        plan: its splits.
        control: the open store of the model with random weights, or None.
        features: what is probed: layers, baselines, layers of the control.
        engine: what fits.
        folder: where finished parts are kept.
        workers: batches of features that are worked on at once.
        memory_bytes: what each of them may take.
        stages: to be told what begins.
    """

    config: SweepConfig
    store: Store
    plan: Plan
    control: Store | None
    features: Sequence[Feature]
    engine: Engine
    folder: ResultsFolder
    workers: int
    memory_bytes: int
    stages: Stages

    def source(self, store: Store, batch: Sequence[Feature]) -> FeatureSource:
        """A batch of features, read within its share of the memory."""
        return FeatureSource(store, batch, self.memory_bytes // 4)


class Measurement:
    """A control or another measurement of a sweep; every method but the constructor is optional.

    Args:
        sweep: the sweep that it belongs to.

    Attributes:
        name: of its parts in an unfinished folder, which a later version has to find again; empty
            for what is computed from the held-out predictions alone.
        parts: what was kept of each feature.
    """

    name: ClassVar[str] = ""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.parts: dict[Feature, Arrays] = {}

    @classmethod
    def planned(cls, sweep: Sweep) -> tuple[Self | None, list[str]]:
        """The measurement, or None where it is not asked for or would say nothing.

        Returns:
            It and sentences for the user, why it is missing or what to know about it.
        """
        return cls(sweep), []

    def takes(self, feature: Feature) -> bool:
        """Whether it measures this feature."""
        return True

    def work(self, width: int) -> tuple[str, float]:
        """Kind and amount of the work for a feature of so many numbers; see :class:`Stages`."""
        return FITS, 0.0

    def compute(self, source: FeatureSource, results: Sequence[FeatureResult]) -> Iterable[Part]:
        """Measure a batch.

        Args:
            source: its features.
            results: what was probed of each.

        Returns:
            What to keep of each, in their order.
        """
        raise NotImplementedError

    def predictions(self) -> Mapping[str, npt.NDArray[np.floating[Any]]]:
        """Probabilities (n_samples, n_classes) that no probe made, to be scored and compared."""
        return {}

    def rows(self, scored: ScoredSweep) -> Iterable[Row]:
        """Rows of ``scores.csv``."""
        return ()

    def summary(self, scored: ScoredSweep) -> Mapping[str, Any]:
        """Its parts of ``summary.json``: fields of :class:`signbridge.results.summary.Summary`."""
        return {}


def measure(
    sweep: Sweep,
    measurements: Sequence[Measurement],
    work: Sequence[Batch],
    results: Sequence[FeatureResult],
) -> list[Record]:
    """Compute what the folder does not hold yet, and give each measurement its parts.

    Args:
        sweep: the sweep.
        measurements: those of the sweep.
        work: the batches.
        results: what was probed of each feature.

    Returns:
        The fits that missed their tolerance.
    """
    of = {result.feature: result for result in results}
    found: dict[Feature, list[Record]] = {feature: [] for _, batch in work for feature in batch}

    def one(store: Store, batch: list[Feature]) -> None:
        for measurement in measurements:
            if not (measurement.name and measurement.takes(batch[0])):
                continue
            names = [f"{measurement.name}/{feature.name}" for feature in batch]
            held = [sweep.folder.load_part(name) for name in names]
            parts = [part for part in held if part is not None]
            # A batch is done again as a whole, so that stopping changes not even the last digit.
            if len(parts) < len(names):
                sweep.stages(measurement.name.replace("_", " "), batch)
                source = sweep.source(store, batch)
                parts = list(measurement.compute(source, [of[feature] for feature in batch]))
                for name, (arrays, missed) in zip(names, parts, strict=True):
                    sweep.folder.save_part(name, arrays, missed)
            for feature, (arrays, missed) in zip(batch, parts, strict=True):
                measurement.parts[feature] = arrays
                found[feature] += missed

    side_by_side([partial(one, store, batch) for store, batch in work], sweep.workers)
    for measurement in measurements:  # in the order of the features, whoever came first
        measurement.parts = {f: measurement.parts[f] for f in found if f in measurement.parts}
    return [record for records in found.values() for record in records]
