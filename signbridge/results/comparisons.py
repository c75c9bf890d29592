"""Corrected comparisons of features (``comparisons.csv`` of a results folder)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from signbridge.results.tables import columns_of
from signbridge.statistics.few_groups import ALPHA

__all__ = ["ALPHA", "COMPARISON_COLUMNS", "Comparison", "p_text"]


@dataclass(frozen=True)
class Comparison:
    """One paired difference, ``a`` minus ``b``, on the same images.

    Attributes:
        family: The comparisons that were corrected together, such as ``layers_vs_pixels``.
        a: A feature such as ``resid_post/5``.
        b: The feature whose score is subtracted.
        metric: The metric's name.
        difference: Score of ``a`` minus score of ``b``.
        ci_low: Lower end of the 95 % interval, NaN where there is none.
        ci_high: Upper end.
        p: P-value, NaN where there is none.
        p_corrected: P-value corrected for the comparisons of the family.
        n_comparisons: How many these are, None where it was not written.
    """

    family: str
    a: str
    b: str
    metric: str
    difference: float
    ci_low: float
    ci_high: float
    p: float
    p_corrected: float
    n_comparisons: int | None

    @property
    def layer(self) -> int | None:
        """The layer of ``a``, or None where it has none."""
        tail = self.a.rpartition("/")[2]
        return int(tail) if "/" in self.a and tail.isdecimal() else None

    @property
    def relation(self) -> str:
        """``above`` or ``below`` where the two differ, ``open`` where they may not, else empty.

        By the corrected p-value; by the interval where there is none.
        """
        if math.isfinite(self.p_corrected):
            differs = self.p_corrected < ALPHA
        elif math.isfinite(self.ci_low) and math.isfinite(self.ci_high):
            differs = self.ci_low > 0 or self.ci_high < 0
        else:
            return ""
        if not differs:
            return "open"
        return "above" if self.difference > 0 else "below"


COMPARISON_COLUMNS = columns_of(Comparison)


def p_text(p: float, name: str = "p") -> str:
    """A p-value as text: three decimals, smaller ones as a bound; empty where there is none."""
    if not math.isfinite(p):
        return ""
    return f"{name} < 0.001" if p < 0.001 else f"{name} = {p:.3f}"
