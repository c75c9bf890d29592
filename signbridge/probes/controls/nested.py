"""Nested selection: the accuracy of the layer that each fold's training part would have chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from signbridge.probes.controls.measurement import Measurement
from signbridge.probes.selection import choose_layers
from signbridge.results.summary import Nested

if TYPE_CHECKING:
    from signbridge.probes.scoring import ScoredSweep


class NestedSelection(Measurement):
    """Layer and C chosen by inner folds of the training part, scored on the outer test part.

    Source: Cawley & Talbot 2010; see :mod:`signbridge.probes.selection`.
    """

    def summary(self, scored: ScoredSweep) -> Mapping[str, Any]:
        """See :class:`Measurement`."""
        layers = scored.layers
        chosen = choose_layers(
            np.stack([result.inner_accuracy for result in layers]),
            np.stack([result.inner_cross_entropy for result in layers]),
        )
        if chosen is None:
            scored.warnings.append(
                "the best layer was not chosen by nested selection, because a training part is too "
                "small to be divided; lower folds or add groups."
            )
            return {}
        probability = np.full_like(layers[0].probability, np.nan)
        for number, (_, test) in enumerate(scored.main.split):
            probability[test] = layers[chosen[number]].probability[test]
        interval = scored.main.intervals(probability)["accuracy"]
        and_C = " and C" if len(self.sweep.config.penalties) > 1 else ""
        return {
            "nested": Nested(
                accuracy=interval.value,
                ci=(interval.low, interval.high),
                layers_chosen=tuple(int(layers[k].feature.layer or 0) for k in chosen),
                note=f"each fold's layer{and_C} chosen by inner folds of its training part",
            )
        }
