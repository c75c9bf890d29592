"""Scores of the control task, the permutation test and the description length, for the results."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from signbridge.probes.controls.extras import Extras, control_penalties, control_split
from signbridge.probes.controls.permutation import summarise
from signbridge.probes.selection import lower_median
from signbridge.results.format import CONTROL_TASK
from signbridge.results.summary import DescriptionLength, Memorisation, PermutationTest
from signbridge.statistics.bootstrap import ClusterBootstrap, Interval, mean_interval
from signbridge.statistics.metrics import METRICS

if TYPE_CHECKING:
    from signbridge.probes.config import SweepConfig
    from signbridge.probes.dataset.plan import Plan
    from signbridge.probes.feature_result import FeatureResult
    from signbridge.results.features import Feature

_STATISTIC = "largest accuracy of a layer with a one-step probe"
_ORDER = (
    "whole groups in random order; the first block is sent with a uniform code, each other with "
    "the probabilities of a probe of all blocks before it"
)


class ExtraScores:
    """Rows of ``scores.csv`` and blocks of ``summary.json``.

    Args:
        config: the sweep's arguments.
        plan: its splits.
        extras: what was measured.
        results: one for each feature.
    """

    def __init__(
        self,
        config: SweepConfig,
        plan: Plan,
        extras: Extras,
        results: Sequence[FeatureResult],
    ) -> None:
        self.config, self.plan, self.extras, self.results = config, plan, extras, results
        self._control: dict[Feature, Mapping[str, Interval]] = {}
        self._selectivity: dict[Feature, Interval] = {}
        task = extras.task
        if task is None:
            return
        scored = np.flatnonzero(task.split.fold_of_sample >= 0)
        bootstrap = ClusterBootstrap(
            plan.groups[scored], repetitions=config.bootstrap, seed=config.seed
        )
        for result in results:
            drawn = extras.control[result.feature][scored]
            true = result.probability if result.random is None else result.random
            self._control[result.feature] = bootstrap.intervals(drawn, task.labels[scored])
            self._selectivity[result.feature] = bootstrap.difference(
                true[scored],
                drawn,
                plan.labels[scored],
                "accuracy",
                other_labels=task.labels[scored],
            )

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows of ``scores.csv``."""
        split, task = control_split(self.plan), self.extras.task
        if task is not None and split is not None:
            common = {
                "solver": self.config.solver,
                "split": split.name,
                "n_train": round(float(np.mean([len(train) for train, _ in split]))),
                "n_test": int((split.fold_of_sample >= 0).sum()),
                "n_classes": len(np.unique(task.labels)),
            }
            for result in self.results:
                own = {
                    **common,
                    **_of(result.feature),
                    "C": lower_median(control_penalties(result)),
                }
                scores = self._control[result.feature]
                for metric in METRICS:
                    row = {"task": CONTROL_TASK, "metric": metric, **_ends(scores[metric])}
                    yield {**own, **row}
                selectivity = self._selectivity[result.feature]
                known = len(np.unique(self.plan.labels))
                yield {
                    **own,
                    "metric": "selectivity",
                    **_ends(selectivity),
                    "n_classes": known,
                }
        yield from self._code_rows()

    def _code_rows(self) -> Iterator[dict[str, Any]]:
        order = self.extras.order
        if order is None:
            return
        uniform = math.log2(order.n_classes)
        groups = self.plan.groups[order.rows]
        for feature, bits in self.extras.bits.items():
            length = mean_interval(
                bits, groups, repetitions=self.config.bootstrap, seed=self.config.seed
            )
            ends = (uniform / length.high, uniform / length.low)
            common = {
                **_of(feature),
                "solver": self.config.solver,
                "split": self.plan.main.name,
                "n_test": len(order.rows),
                "n_classes": order.n_classes,
                "C": self.extras.code_penalty[feature],
            }
            compression = Interval(uniform / length.value, *ends)
            yield {**common, "metric": "description_length", **_ends(length)}
            yield {**common, "metric": "compression", **_ends(compression)}

    def summary(self, best: Feature) -> dict[str, Any]:
        """Blocks of ``summary.json``.

        Args:
            best: the layer that memorisation is reported of.
        """
        return {
            "permutation_test": self._permutation_test(),
            "memorisation": self._memorisation(best),
            "description_length": self._description_length(),
        }

    def _permutation_test(self) -> PermutationTest | None:
        relabelling = self.extras.relabelling
        if relabelling is None:
            return None
        statistic = _STATISTIC
        if len(self.config.penalties) > 1:
            statistic = "largest accuracy of a layer and C with a one-step probe"
        hits = {int(feature.layer or 0): hits for feature, hits in self.extras.hits.items()}
        scored = int((self.plan.main.fold_of_sample >= 0).sum())
        return replace(
            summarise(hits, scored, relabelling, statistic),
            split=self.plan.main.name,
            n_groups=len(np.unique(self.plan.groups)),
        )

    def _memorisation(self, best: Feature) -> Memorisation | None:
        task = self.extras.task
        if task is None:
            return None
        accuracy, selectivity = self._control[best]["accuracy"], self._selectivity[best]
        scored = task.split.fold_of_sample >= 0
        share = float(task.shared[scored].mean())
        shares = np.bincount(task.labels[scored]) / scored.sum()
        return Memorisation(
            layer=int(best.layer or 0),
            control_accuracy=accuracy.value,
            ci=(accuracy.low, accuracy.high),
            selectivity=selectivity.value,
            selectivity_ci=(selectivity.low, selectivity.high),
            n_groups=task.n_groups,
            shared=share,
            majority=float(shares.max()),
            note=f"{100 * share:.3g} % of the images are tested by a probe that was trained on "
            "their group; the others' random labels can only be guessed",
        )

    def _description_length(self) -> DescriptionLength | None:
        order = self.extras.order
        if order is None:
            return None
        return DescriptionLength(
            blocks=tuple(len(block) for block in order.blocks),
            groups=tuple(order.n_groups),
            uniform=math.log2(order.n_classes),
            order=_ORDER,
        )


def _of(feature: Feature) -> dict[str, Any]:
    return {"feature": feature.kind, "layer": feature.layer}


def _ends(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "ci_low": interval.low, "ci_high": interval.high}
