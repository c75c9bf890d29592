"""The random split beside the grouped one: what scores gain where groups are parted (leakage)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from signbridge.probes.controls.measurement import Measurement
from signbridge.probes.selection import lower_median
from signbridge.results.summary import Leakage
from signbridge.statistics.bootstrap import ClusterBootstrap

if TYPE_CHECKING:
    from signbridge.probes.scoring import Row, ScoredSweep


class RandomSplit(Measurement):
    """Scores under the random split, whose predictions are made beside those of the main split."""

    def rows(self, scored: ScoredSweep) -> Iterator[Row]:
        """See :class:`Measurement`."""
        for result in scored.results:
            if scored.random and result.random is not None and result.C_random is not None:
                intervals = scored.random.intervals(result.random)
                yield from scored.random.rows(
                    result.feature, intervals, lower_median(result.C_random)
                )

    def summary(self, scored: ScoredSweep) -> Mapping[str, Any]:
        """Random minus grouped accuracy of the best layer, on the samples that both score."""
        main, other, best = scored.main, scored.random, scored.best
        if other is None or best.random is None:
            return {}
        both = np.intersect1d(main.scored, other.scored)
        place = np.searchsorted(main.scored, both)
        difference = ClusterBootstrap(
            main.groups[place],
            repetitions=main.bootstrap.repetitions,
            seed=main.bootstrap.seed,
        ).difference(best.random[both], best.probability[both], main.labels[place])
        return {
            "leakage": Leakage(
                layer=int(best.feature.layer or 0),
                random=other.intervals(best.random)["accuracy"].value,
                grouped=scored.scores[best.feature.name].intervals["accuracy"].value,
                difference=difference.value,
                ci=(difference.low, difference.high),
            )
        }
