"""Which images stand for the others where all would be too many, or copies of each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from signbridge.store.provenance import grouping

if TYPE_CHECKING:
    from signbridge.results.results import Results

__all__ = ["independent_rows", "rows_in_words"]


def independent_rows(results: Results, most: int, seed: int) -> npt.NDArray[np.int64]:
    """Choose images for figures of geometry: one of each photograph, and not too many.

    Copies of a photograph lie beside each other in any feature. On a map they make clusters that
    tell nothing about classes, and in CKA pairs of copies count as agreement. So where groups are
    near-duplicates, one image of each is drawn; of other groups (signers) all images are kept.

    Args:
        results: A results folder.
        most: The most images; more are drawn at random.
        seed: Seed of the draws.

    Returns:
        Ascending rows of the predictions.
    """
    group = results.predictions.group
    generator = np.random.default_rng(seed)
    rows = np.arange(len(group))
    if grouping(results.provenance).kind == "near_duplicates":
        order = generator.permutation(len(group))
        rows = np.sort(order[np.unique(group[order], return_index=True)[1]])
    if len(rows) > most:
        rows = np.sort(generator.choice(rows, most, replace=False))
    return rows


def rows_in_words(results: Results, rows: npt.NDArray[np.int64]) -> str:
    """What :func:`independent_rows` chose, as a sentence; empty where it is all images."""
    total = len(results.predictions.group)
    n_groups = len(np.unique(results.predictions.group))
    if len(rows) == total:
        return ""
    if grouping(results.provenance).kind == "near_duplicates":
        few = "" if len(rows) == n_groups else f", of {len(rows):,} groups"
        return f"One image a group{few}: {len(rows):,} of {total:,} images."
    return f"A random {len(rows):,} of {total:,} images."
