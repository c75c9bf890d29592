"""What a split is, and the checks of what is split.

:mod:`signbridge.probes.dataset.drawn_splits` makes those that are drawn by a seed, and any by its
name; :mod:`signbridge.probes.dataset.given_splits` those that the data or the user brings along.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt

from signbridge.errors import ProbeError
from signbridge.probes.config import SplitName

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """The folds of one protocol.

    Attributes:
        name: ``grouped``, ``random``, ``source`` (the data's own parts) or ``file`` (the user's).
        folds: for each fold the sample indices of its training and its test part, both sorted.
            No sample is in two test parts; with one fold some samples are in none. Under
            ``source`` and ``file`` a sample may be in no part at all.
        n_samples: number of samples that were split.
        warnings: sentences about classes that the split cannot treat fairly.
        parts: number of parts that the samples were divided into; ``folds`` may hold fewer of them.
            0 where they were not divided into parts.
    """

    name: SplitName
    folds: tuple[tuple[IntArray, IntArray], ...]
    n_samples: int
    warnings: tuple[str, ...] = ()
    parts: int = 0

    def __len__(self) -> int:
        return len(self.folds)

    def __iter__(self) -> Iterator[tuple[IntArray, IntArray]]:
        return iter(self.folds)

    @property
    def used(self) -> IntArray:
        """Samples that are in a training or a test part, ascending."""
        return np.unique(np.concatenate([part for fold in self.folds for part in fold]))

    @property
    def fold_of_sample(self) -> IntArray:
        """Fold in whose test part each sample is, shape (n_samples,); -1 where it is in none."""
        fold = np.full(self.n_samples, -1, dtype=np.int64)
        for number, (_, test) in enumerate(self.folds):
            fold[test] = number
        return fold


def checked(
    labels: npt.ArrayLike,
    groups: npt.ArrayLike | None,
    split: str = "grouped",
    folds: int = 1,
) -> tuple[IntArray, IntArray]:
    """Labels and groups as int64, groups numbered from 0.

    Raises:
        ProbeError: no labels, or not two classes, or arguments that cannot be used.
    """
    if split not in get_args(SplitName):
        raise ProbeError(
            f"split {split!r} is not known; use {', '.join(get_args(SplitName)[:-1])} or file."
        )
    if isinstance(folds, bool) or not isinstance(folds, (int, np.integer)) or folds < 1:
        raise ProbeError(f"folds must be a whole number of 1 or more, not {folds!r}.")
    y = np.asarray(labels)
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
        raise ProbeError("labels must be one class index per sample.")
    if len(y) and y.min() < 0:
        raise ProbeError(
            f"{int((y < 0).sum())} of {len(y)} samples have no label; "
            "probes need a label for every sample."
        )
    present = len(np.unique(y))
    if present < 2:
        raise ProbeError(
            f"probes need at least two classes, and these {len(y)} samples hold {present}."
        )
    g = np.arange(len(y)) if groups is None else np.asarray(groups)
    if g.shape != y.shape:
        raise ProbeError(f"there are {len(y)} labels and {g.size} groups; give one group each.")
    return y.astype(np.int64), np.unique(g, return_inverse=True)[1].astype(np.int64)


def names_by_class(y: IntArray, class_names: Sequence[str] | None) -> list[str]:
    """Names by class index, for messages; the indices themselves where none are given."""
    if class_names is None:
        return [str(k) for k in range(int(y.max()) + 1)]
    if len(class_names) <= int(y.max()):
        raise ProbeError(
            f"label {int(y.max())} has no name: there are {len(class_names)} class names."
        )
    return [str(name) for name in class_names]


def listing(names: Sequence[str], limit: int = 8) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def having(names: Sequence[str]) -> str:
    """The beginning of a sentence about some classes."""
    return f"class {names[0]} has" if len(names) == 1 else f"classes {listing(names)} have each"
