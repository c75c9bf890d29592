"""Corrected comparisons of features (``comparisons.csv`` of a results folder)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from signbridge.results.format import COMPARISON_COLUMNS
from signbridge.results.table_files import number_in, read_table

__all__ = ["ALPHA", "Comparison", "p_text", "read_comparisons"]

ALPHA = 0.05


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


def p_text(p: float, name: str = "p") -> str:
    """A p-value as text: three decimals, smaller ones as a bound; empty where there is none."""
    if not math.isfinite(p):
        return ""
    return f"{name} < 0.001" if p < 0.001 else f"{name} = {p:.3f}"


def read_comparisons(path: Path) -> tuple[Comparison, ...]:
    """Read ``comparisons.csv``.

    Args:
        path: The file; results of format version 1.0 have none.

    Returns:
        Its rows, empty where the file does not exist.

    Raises:
        ProbeError: The file lacks a column, holds a cell that is no number, or cannot be read.
    """
    if not path.exists():
        return ()

    def comparison(row: Mapping[str, str | None], line: int) -> Comparison:
        cells = {key: number_in(row, key, path, line) for key in COMPARISON_COLUMNS[4:]}
        count = cells["n_comparisons"]
        return Comparison(
            family=row["family"] or "",
            a=row["a"] or "",
            b=row["b"] or "",
            metric=row["metric"] or "",
            difference=cells["difference"],
            ci_low=cells["ci_low"],
            ci_high=cells["ci_high"],
            p=cells["p"],
            p_corrected=cells["p_corrected"],
            n_comparisons=int(count) if math.isfinite(count) else None,
        )

    return read_table(path, COMPARISON_COLUMNS, comparison)
