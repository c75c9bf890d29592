"""Scores of a finished sweep: what its measurements make their rows and summaries of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from signbridge.probes.selection import lower_median
from signbridge.results.features import RESID_POST, Feature
from signbridge.statistics.bootstrap import ClusterBootstrap, Interval, Scored
from signbridge.statistics.metrics import METRICS

if TYPE_CHECKING:
    from signbridge.probes.config import SweepConfig
    from signbridge.probes.dataset.plan import Plan
    from signbridge.probes.dataset.splits import Split
    from signbridge.probes.feature_result import FeatureResult

Row: TypeAlias = "dict[str, Any]"
"""A row of ``scores.csv``: cells by column, those left out are empty."""


class SplitScores:
    """Scores predictions of one split over the samples that are in a test part.

    Args:
        config: the sweep's arguments.
        plan: its splits.
        split: the one that scores.

    Attributes:
        scored: indices of the samples, shape (n_scored,).
        labels: their labels, same shape.
        groups: their groups, same shape.
        n_present: number of classes that the split uses.
        bootstrap: the draws behind the intervals.
        common: cells that all rows of the split share.
    """

    def __init__(self, config: SweepConfig, plan: Plan, split: Split) -> None:
        self.split = split
        self.scored = np.flatnonzero(split.fold_of_sample >= 0)
        self.labels = plan.labels[self.scored]
        self.groups = plan.groups[self.scored]
        self.n_present = len(np.unique(plan.labels[split.used]))
        self.bootstrap = ClusterBootstrap(
            self.groups, repetitions=config.bootstrap, seed=config.seed
        )
        self.common: Row = {
            "solver": config.solver,
            "split": split.name,
            "n_train": round(float(np.mean([len(train) for train, _ in split]))),
            "n_test": len(self.scored),
            "n_classes": self.n_present,
        }

    def score(self, probability: npt.NDArray[np.floating[Any]]) -> Scored:
        """Scores of predictions (n_samples, n_classes), with what comparisons need."""
        return self.bootstrap.scored(probability[self.scored], self.labels)

    def intervals(self, probability: npt.NDArray[np.floating[Any]]) -> Mapping[str, Interval]:
        """Scores of predictions (n_samples, n_classes) by metric."""
        return self.bootstrap.intervals(probability[self.scored], self.labels)

    def rows(
        self,
        feature: Feature | str,
        intervals: Mapping[str, Interval],
        C: float | None = None,
        **cells: Any,
    ) -> Iterator[Row]:
        """Rows of ``scores.csv``, one a metric.

        Args:
            feature: what was probed, or the name of what no probe has made.
            intervals: its scores by metric.
            C: the probe's.
            cells: further cells of each row.
        """
        for metric in METRICS:
            yield self.row(feature, metric, intervals[metric], C, **cells)

    def row(
        self,
        feature: Feature | str,
        metric: str,
        interval: Interval,
        C: float | None = None,
        **cells: Any,
    ) -> Row:
        """A row of one metric; see :meth:`rows`."""
        whose = feature if isinstance(feature, Feature) else Feature(feature)
        return {
            **self.common,
            "feature": whose.kind,
            "layer": whose.layer,
            "metric": metric,
            "value": interval.value,
            "ci_low": interval.low,
            "ci_high": interval.high,
            "C": C,
            **cells,
        }


@dataclass(frozen=True, eq=False)
class ScoredSweep:
    """All that was predicted, scored.

    Attributes:
        results: what was probed of each feature, layers in ascending order before baselines.
        main: scores under the main split.
        random: scores under the random split, or None.
        scores: under the main split by name: features, then predictions that no probe has made.
        best: the layer of the highest accuracy, the earlier of equal ones.
        warnings: sentences for the user; a measurement may add to them.
    """

    results: Sequence[FeatureResult]
    main: SplitScores
    random: SplitScores | None
    scores: Mapping[str, Scored]
    best: FeatureResult
    warnings: list[str]

    @property
    def layers(self) -> list[FeatureResult]:
        """The decoder layers."""
        return [result for result in self.results if result.feature.kind == RESID_POST]

    @property
    def splits(self) -> list[SplitScores]:
        """The main split and, where there is one, the random one."""
        return [self.main] if self.random is None else [self.main, self.random]

    def rows(self) -> Iterator[Row]:
        """Rows of the features under the main split."""
        for result in self.results:
            intervals = self.scores[result.feature.name].intervals
            yield from self.main.rows(result.feature, intervals, lower_median(result.C))


def score(
    config: SweepConfig,
    plan: Plan,
    results: Sequence[FeatureResult],
    predictions: Mapping[str, npt.NDArray[np.floating[Any]]],
    warnings: Sequence[str],
) -> ScoredSweep:
    """Score what was predicted.

    Args:
        config: the sweep's arguments.
        plan: its splits.
        results: what was probed of each feature, layers in ascending order before baselines.
        predictions: probabilities (n_samples, n_classes) that no probe has made, by name.
        warnings: what there is to say already.
    """
    main = SplitScores(config, plan, plan.main)
    probability = {result.feature.name: result.probability for result in results}
    scores = {name: main.score(made) for name, made in {**probability, **predictions}.items()}
    layers = [result for result in results if result.feature.kind == RESID_POST]
    accuracy = [scores[result.feature.name].intervals["accuracy"].value for result in layers]
    return ScoredSweep(
        results,
        main,
        None if plan.random is None else SplitScores(config, plan, plan.random),
        scores,
        layers[int(np.argmax(accuracy))],
        list(warnings),
    )
