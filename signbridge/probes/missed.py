"""Records of fits that missed their tolerance, as ``summary.json`` lists them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from signbridge.probes.dataset.features import Feature

Record = dict[str, Any]


def missed_record(
    feature: Feature,
    *,
    split: str | None,
    fold: int | None,
    part: str,
    C: float,
    relative_tolerance: float,
) -> Record:
    """The record of one fit.

    Args:
        feature: what was fitted.
        split: the split's name, None where the fit belongs to none.
        fold: the fold's number, None where there are no folds.
        part: what the fit was for: ``outer``, ``inner``, ``refit`` and so on.
        C: its inverse penalty.
        relative_tolerance: gradient norm over the norm of the penalty's gradient.
    """
    return {
        "feature": feature.kind,
        "layer": feature.layer,
        "split": split,
        "fold": fold,
        "part": part,
        "C": float(C),
        "relative_tolerance": float(relative_tolerance),
    }


def records_of(feature: Feature, records: Iterable[Record]) -> list[Record]:
    """Those of one feature."""
    return [r for r in records if (r["feature"], r["layer"]) == (feature.kind, feature.layer)]
