"""What the summary says of a batch-trained sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from signbridge.results.summary import Sgd
from signbridge.runtime.words import counted

if TYPE_CHECKING:
    from signbridge.probes.config import SweepConfig
    from signbridge.probes.feature_result import FeatureResult

FAR_OBJECTIVE = 0.01
"""Relative distance of the objective from its optimum from which a fit is called far."""
FAR_AGREEMENT = 0.99
"""Share of held-out images with the optimum's answer below which a fit is called far."""

_NOTE = (
    "fits of the first fold's training part: the learning rate taken, when and why the search and "
    "the whole training stopped, and the relative distance of the objective from that of the exact "
    "solver (gap) with the share of held-out images that get the same answer (agreement), null "
    "where the exact solver would take too long"
)


def sgd_summary(
    config: SweepConfig, results: Sequence[FeatureResult], missed: Sequence[Any]
) -> tuple[Sgd | None, list[str]]:
    """``sgd`` of ``summary.json``, and warnings about fits that did not come close.

    Args:
        config: the sweep's arguments.
        results: one for each feature.
        missed: records of fits that missed their tolerance.
    """
    if config.solver != "sgd":
        return None, []
    records = [record for result in results for record in result.sgd]
    known = [record for record in records if record["gap"] is not None]
    summary = Sgd(
        note=_NOTE,
        learning_rates=tuple(config.learning_rates),
        batch_size=config.batch_size,
        n_compared=len(known),
        largest_gap=max((record["gap"] for record in known), default=math.nan),
        least_agreement=min((_agreement(record) for record in known), default=math.nan),
        fits=tuple(records),
    )
    return summary, [*_missed(len(missed)), *_far(known)]


def _missed(number: int) -> list[str]:
    if not number:
        return []
    return [
        f"{counted(number, 'sgd fit')} ended before coming close to the optimum (not_converged in "
        f"summary.json lists {'it' if number == 1 else 'them'}); raise max_steps."
    ]


def _far(known: Sequence[dict[str, Any]]) -> list[str]:
    far = [
        record
        for record in known
        if record["gap"] > FAR_OBJECTIVE or _agreement(record) < FAR_AGREEMENT
    ]
    if not far:
        return []
    worst = max(far, key=lambda record: float(record["gap"]))
    return [
        f"{len(far)} of {counted(len(known), 'sgd fit')} compared with the exact solver "
        f"{'is' if len(far) == 1 else 'are'} far from the optimum (the worst, {worst['feature']} "
        f"with C = {worst['C']:g}, has an objective {100 * worst['gap']:.2g} % above it and gives "
        f"{100 * _agreement(worst):.1f} % of the held-out images the same answer); raise max_steps "
        "or use solver=exact."
    ]


def _agreement(record: dict[str, Any]) -> float:
    return 1.0 if record["agreement"] is None else float(record["agreement"])
