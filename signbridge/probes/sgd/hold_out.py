"""The part of a training part by which training stops."""

from __future__ import annotations

import numpy as np

from signbridge.probes.dataset.splits import IntArray, inner_split

_PARTS = 5


def hold_out(
    rows: IntArray, labels: IntArray, groups: IntArray, seed: int
) -> tuple[IntArray, IntArray]:
    """Divide a training part into samples to train on and samples to stop by.

    No group is parted, unless it holds a class that would be left without a sample to train on,
    which is not held out.

    Args:
        rows: sample indices of the training part.
        labels: class indices of all samples.
        groups: groups of all samples.
        seed: seed of the shuffling.

    Returns:
        Sample indices of both parts, ascending; the second is empty where ``rows`` is too small.
    """
    made = inner_split(rows, labels, groups, split="grouped", folds=_PARTS, seed=seed)
    held = np.empty(0, dtype=np.int64)
    if made is not None:
        trained, held = made.folds[0]
        held = held[np.isin(labels[held], labels[trained])]
    return np.setdiff1d(rows, held), np.sort(held)
