"""The optional parts of ``summary.json``, read with care.

Older folders lack them, and a folder may hold null where something was not measured; what is not
there, or not as expected, is None here and left out of the report.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from signbridge.results.results import Results

__all__ = [
    "Memorisation",
    "Peak",
    "Permutation",
    "memorisation",
    "number",
    "pair",
    "peak",
    "permutation",
]


@dataclass(frozen=True)
class Peak:
    """Where the curve is highest, and how sure that is.

    Attributes:
        layer: The layer of the highest held-out accuracy.
        low: First layer of the interval of the peak's place.
        high: Last layer of it.
        candidates: Layers that are not excluded from being the peak.
        share: Share of bootstrap draws in which a layer is the highest, by layer.
        p: P-value of the hypothesis that no other layer is higher, by layer; may be empty.
    """

    layer: int
    low: int
    high: int
    candidates: tuple[int, ...]
    share: Mapping[int, float]
    p: Mapping[int, float]


@dataclass(frozen=True)
class Permutation:
    """A permutation test: what probes reach on permuted labels.

    Attributes:
        m: Number of permutations.
        statistic: What was computed of each, in words.
        observed: Its value for the true labels.
        p: (b + 1) / (m + 1) with b permutations that reach it.
        null_mean: Mean over the permutations.
        null_high: Their 95 % quantile.
        structure: ``between groups`` or ``within groups``.
        by_layer: (p, corrected p) of each layer.
    """

    m: int
    statistic: str
    observed: float
    p: float
    null_mean: float
    null_high: float
    structure: str
    by_layer: Mapping[int, tuple[float, float]]


@dataclass(frozen=True)
class Memorisation:
    """What a probe scores by recognising groups: the control task at one layer.

    Attributes:
        layer: The layer.
        accuracy: Accuracy on labels drawn at random for each group, under the random split.
        ci: Its interval.
        selectivity: Accuracy of the true labels under the same split, minus ``accuracy``.
        selectivity_ci: Its interval.
        majority: Share of the most frequent random label, which a guess reaches; NaN if not known.
        note: What to know about it, may be empty.
    """

    layer: int
    accuracy: float
    ci: tuple[float, float]
    selectivity: float
    selectivity_ci: tuple[float, float]
    majority: float
    note: str


def number(value: object) -> float:
    """A number of the summary, NaN where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value)


def pair(value: object) -> tuple[float, float]:
    """Two numbers of the summary, NaN where they are none."""
    if isinstance(value, list) and len(value) == 2:
        return number(value[0]), number(value[1])
    return math.nan, math.nan


def peak(results: Results) -> Peak | None:
    """The peak and its interval, or None where it was not measured."""
    block = _block(results, "peak")
    layer = _layer(block.get("layer"))
    ends = block.get("layers")
    if layer is None or not (isinstance(ends, list) and len(ends) == 2):
        return None
    low, high = _layer(ends[0]), _layer(ends[1])
    if low is None or high is None:
        return None
    listed = block.get("candidates")
    candidates = [_layer(k) for k in listed] if isinstance(listed, list) else []
    share, p = (
        {k: number(v) for k, v in _by_layer(block.get(name)).items() if math.isfinite(number(v))}
        for name in ("share", "p")
    )
    return Peak(
        layer,
        low,
        high,
        tuple(sorted(k for k in candidates if k is not None)),
        share,
        p,
    )


def permutation(results: Results) -> Permutation | None:
    """The permutation test, or None where none was made."""
    block = _block(results, "permutation_test")
    p, m = number(block.get("p")), number(block.get("m"))
    if not (math.isfinite(p) and math.isfinite(m)):
        return None
    by_layer = {
        k: (number(v.get("p")), number(v.get("p_corrected")))
        for k, v in _by_layer(block.get("by_layer")).items()
        if isinstance(v, dict)
    }
    return Permutation(
        m=int(m),
        statistic=str(block.get("statistic") or "highest accuracy"),
        observed=number(block.get("observed")),
        p=p,
        null_mean=number(block.get("null_mean")),
        null_high=number(block.get("null_quantile_95")),
        structure=str(block.get("structure") or ""),
        by_layer=by_layer,
    )


def memorisation(results: Results) -> Memorisation | None:
    """The control task at one layer, or None where it was not run."""
    block = _block(results, "memorisation")
    layer, accuracy = _layer(block.get("layer")), number(block.get("control_accuracy"))
    if layer is None or not math.isfinite(accuracy):
        return None
    return Memorisation(
        layer=layer,
        accuracy=accuracy,
        ci=pair(block.get("ci")),
        selectivity=number(block.get("selectivity")),
        selectivity_ci=pair(block.get("selectivity_ci")),
        majority=number(block.get("majority")),
        note=str(block.get("note") or ""),
    )


def _block(results: Results, name: str) -> Mapping[str, Any]:
    value = results.summary.get(name)
    return value if isinstance(value, dict) else {}


def _layer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _by_layer(value: object) -> dict[int, Any]:
    """A mapping whose keys are layers, which JSON keeps as text."""
    if not isinstance(value, dict):
        return {}
    return {int(key): v for key, v in value.items() if str(key).isdecimal()}
