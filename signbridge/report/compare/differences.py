"""Paired differences between two runs, with corrected p-values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from signbridge.report.compare.pairing import Pairing, pair_up
from signbridge.report.compare.runs import Run, depth_axis, layers_by_depth, relative_depth
from signbridge.results.comparisons import COMPARISON_COLUMNS, Comparison
from signbridge.results.features import DECODER_LAYERS, RANDOM_WEIGHTS, RESID_POST
from signbridge.runtime.tables import csv_text

if TYPE_CHECKING:
    from signbridge.statistics.bootstrap import Scored

__all__ = ["PairedDifference", "differences", "to_csv"]

_CSV_COLUMNS = (
    *("run", "other", *COMPARISON_COLUMNS, "n_images", "n_groups"),
    *("relative_depth", "other_relative_depth"),
)
_DRAWS = 1000
_SEED = 42


@dataclass(frozen=True)
class PairedDifference(Comparison):
    """One feature of one run minus one of another, on the same images.

    The families are ``layers``, ``best`` and ``baselines``, see :func:`differences`.

    Attributes:
        run: The run whose score is taken.
        other: The run whose score is subtracted.
        n_images: Images that both runs have scored.
        n_groups: Their groups.
        relative_depth: Of the layer of ``a`` in its model, 0 for the first and 1 for the last; None
            where it has none.
        other_relative_depth: Of the layer of ``b`` in the other's.
    """

    run: str
    other: str
    n_images: int
    n_groups: int
    relative_depth: float | None = None
    other_relative_depth: float | None = None

    @property
    def other_layer(self) -> int | None:
        """The layer of ``b``, or None where it has none."""
        return replace(self, a=self.b).layer


def differences(
    runs: Sequence[Run], metric: str = "accuracy"
) -> tuple[list[PairedDifference], list[str]]:
    """Compare every run with every one before it.

    The families are ``layers`` (the layers of a pair of runs, as
    :func:`~signbridge.report.compare.runs.layers_by_depth` pairs them),
    ``baselines`` (the same baseline of a pair) and ``best`` (each run's best layer, all pairs).

    Args:
        runs: The runs.
        metric: One of :data:`signbridge.statistics.metrics.COMPARED`.

    Returns:
        The differences, and sentences on pairs that could not be compared or only in part.
    """
    found: list[PairedDifference] = []
    notes = []
    for i, two in enumerate(runs):
        for one in runs[:i]:
            pairing = pair_up(one, two)
            if isinstance(pairing, str):
                notes.append(pairing)
                continue
            if pairing.note:
                notes.append(pairing.note)
            found += _compare(one, two, pairing, metric)
    return _best_corrected(found), notes


def _best_corrected(found: list[PairedDifference]) -> list[PairedDifference]:
    """Correct the family ``best`` for the number of pairs of runs (Holm 1979).

    The other families are corrected within a pair of runs, where the images are the same.
    """
    places = [i for i, d in enumerate(found) if d.family == "best" and math.isfinite(d.p)]
    places.sort(key=lambda i: found[i].p)
    least = 0.0
    for rank, i in enumerate(places):
        least = max(least, min(1.0, found[i].p * (len(places) - rank)))
        found[i] = replace(found[i], p_corrected=least, n_comparisons=len(places))
    return found


def _families(one: Run, two: Run) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Pairs (feature of ``two``, feature of ``one``) that are corrected together."""
    a, b = two.results, one.results
    known = set(a.predictions.feature_names), set(b.predictions.feature_names)
    layers = layers_by_depth(one, two)
    yield "layers", [(f"{RESID_POST}/{k}", f"{RESID_POST}/{j}") for j, k in layers]
    yield "best", [(a.best_feature, b.best_feature)]
    names = [n for n in a.predictions.feature_names if n in known[1]]
    plain = [n for n in names if "/" not in n]
    if not depth_axis([one, two]):
        plain += [n for n in names if n.startswith((f"{RANDOM_WEIGHTS}/", f"{DECODER_LAYERS}/"))]
    yield "baselines", [(n, n) for n in plain]


def _compare(one: Run, two: Run, pairing: Pairing, metric: str) -> Iterator[PairedDifference]:
    from signbridge.statistics.bootstrap import ClusterBootstrap, paired_difference
    from signbridge.statistics.few_groups import paired_tests

    bootstrap = ClusterBootstrap(pairing.group, repetitions=_DRAWS, seed=_SEED)
    families = []
    for family, pairs in _families(one, two):
        usable = [
            p for p in pairs if _whole(two, p[0], pairing, 1) and _whole(one, p[1], pairing, 0)
        ]
        if usable:
            families.append((family, usable))
    scored: dict[tuple[int, str], Scored] = {}
    for _, pairs in families:
        for a, b in pairs:
            for side, run, feature in ((1, two, a), (0, one, b)):
                if (side, feature) not in scored:
                    p = _probability(run, feature, pairing, side)
                    scored[side, feature] = bootstrap.scored(p, pairing.label)
    if not scored:
        return
    keys = list(scored)
    totals = np.stack([scored[key].totals[metric] for key in keys], axis=1)
    tests = paired_tests(totals, scored[keys[0]].size, seed=_SEED)
    n_groups = len(np.unique(pairing.group))
    for family, pairs in families:
        tested = tests.family(
            [keys.index((1, a)) for a, _ in pairs], [keys.index((0, b)) for _, b in pairs]
        )
        for (a, b), p, corrected in zip(pairs, tested.p, tested.corrected, strict=True):
            interval = paired_difference(scored[1, a], scored[0, b], metric)
            yield PairedDifference(
                run=two.name,
                other=one.name,
                family=family,
                a=a,
                b=b,
                metric=metric,
                difference=interval.value,
                ci_low=interval.low,
                ci_high=interval.high,
                p=float(p),
                p_corrected=float(corrected),
                n_comparisons=len(pairs),
                n_images=len(pairing.label),
                n_groups=n_groups,
                relative_depth=_depth(two, a),
                other_relative_depth=_depth(one, b),
            )


def _depth(run: Run, feature: str) -> float | None:
    name, _, layer = feature.partition("/")
    return relative_depth(run, int(layer)) if name == RESID_POST else None


def _probability(run: Run, feature: str, pairing: Pairing, side: int) -> np.ndarray:
    p = run.results.predictions.probability(feature)[pairing.rows[side]]
    return p[:, pairing.columns] if side == 1 else p


def _whole(run: Run, feature: str, pairing: Pairing, side: int) -> bool:
    """Whether the feature was scored for all shared images."""
    if feature not in run.results.predictions.feature_names:
        return False
    return bool(np.isfinite(_probability(run, feature, pairing, side)).all())


def to_csv(found: Sequence[PairedDifference]) -> str:
    """The differences as CSV text, one row each."""
    return csv_text(_CSV_COLUMNS, ([getattr(one, name) for name in _CSV_COLUMNS] for one in found))
