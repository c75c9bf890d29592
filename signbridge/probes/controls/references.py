"""What scores need to be compared with: chance (all classes alike) and the majority class."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from signbridge.probes.controls.measurement import Measurement
from signbridge.statistics.bootstrap import Interval
from signbridge.statistics.metrics import METRICS

if TYPE_CHECKING:
    from signbridge.probes.scoring import Row, ScoredSweep

CHANCE, MAJORITY = "chance", "majority"


class References(Measurement):
    """Rows that need no probe, for each split."""

    def predictions(self) -> Mapping[str, npt.NDArray[np.floating[Any]]]:
        """The scored labels' own class shares, for every sample."""
        plan = self.sweep.plan
        scored = plan.labels[plan.main.fold_of_sample >= 0]
        return {MAJORITY: shares(scored, len(plan.labels), int(plan.labels.max()) + 1)}

    def rows(self, scored: ScoredSweep) -> Iterator[Row]:
        """See :class:`Measurement`."""
        n_classes = int(self.sweep.plan.labels.max()) + 1
        for split in scored.splits:
            count = np.bincount(split.labels)
            for name, metric in METRICS.items():
                if metric.chance is not None:
                    value = metric.chance(split.n_present, count)
                    yield split.row(CHANCE, name, Interval(value, math.nan, math.nan))
            constant = shares(split.labels, len(split.labels), n_classes)
            majority = split.bootstrap.intervals(constant, split.labels)
            for row in split.rows(MAJORITY, majority):
                # Its confidence is its accuracy: what is left of such differences is rounding.
                yield {**row, "value": 0.0} if abs(row["value"]) < 1e-12 else row

    def summary(self, scored: ScoredSweep) -> Mapping[str, Any]:
        """See :class:`Measurement`."""
        accuracy = scored.scores[MAJORITY].intervals["accuracy"].value
        return {"chance": 1 / scored.main.n_present, "majority": accuracy}


def shares(labels: npt.NDArray[np.int64], n: int, n_classes: int) -> npt.NDArray[np.float64]:
    """The labels' class shares as the same prediction for ``n`` samples, shape (n, n_classes)."""
    share = np.bincount(labels, minlength=n_classes) / len(labels)
    return np.broadcast_to(share, (n, n_classes))
