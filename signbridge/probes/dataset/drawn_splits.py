"""Splits that are drawn by a seed, and the split of any name.

A *group* holds images that are not independent (near-duplicates of one photograph, or one signer).
The grouped split never parts a group, so a probe is scored on groups it has not seen; the random
split ignores groups and is kept for comparison with studies that used it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from signbridge.errors import ProbeError
from signbridge.probes.config import SplitName
from signbridge.probes.dataset.given_splits import split_by_source
from signbridge.probes.dataset.splits import (
    IntArray,
    Split,
    checked,
    having,
    names_by_class,
)

HOLDOUT_SHARE = 0.2
"""Share of the samples that a single random hold-out (``folds=1``) scores."""
_VALIDATION_PARTS = 5


def make_split(
    labels: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    *,
    split: SplitName = "grouped",
    folds: int = 5,
    seed: int = 42,
    class_names: Sequence[str] | None = None,
    source_splits: Sequence[str] | None = None,
) -> Split:
    """Divide samples into training and test parts.

    ``grouped`` with ``folds > 1`` is scikit-learn's ``StratifiedGroupKFold`` (shuffled): every
    sample is scored once by a probe that saw nothing of its group. With one fold it is the first
    fold of five, or of fewer where there are fewer groups (:attr:`Split.parts`). ``random`` with
    ``folds > 1`` is ``StratifiedKFold`` (shuffled), and with one fold
    ``StratifiedShuffleSplit(test_size=0.2, random_state=seed)``, the original study's split.
    ``source`` is :func:`signbridge.probes.dataset.given_splits.split_by_source`, which needs
    neither folds nor a seed.

    Args:
        labels: class indices, shape (n_samples,).
        groups: group of each sample, shape (n_samples,); None puts each sample in its own.
        split: which of them; one from a file is made by
            :func:`signbridge.probes.dataset.given_splits.split_by_file`.
        folds: number of folds, at least 1.
        seed: seed of the shuffling.
        class_names: names by class index, for messages.
        source_splits: the data's own part of each sample, for ``source``.

    Returns:
        The split. Classes it cannot treat fairly are named in ``warnings``.

    Raises:
        ProbeError: fewer than two classes, fewer groups than folds, or no class with enough
            samples.
    """
    y, g = checked(labels, groups, split, folds)
    names = names_by_class(y, class_names)
    if split in _DRAWN:
        return _DRAWN[split](y, g, folds, seed, names)
    if split == "file":
        raise ProbeError("split=file needs a file; give it as split_file.")
    return split_by_source(y, g, source_splits or [""] * len(y), class_names)


def inner_split(
    train: IntArray,
    labels: IntArray,
    groups: IntArray,
    *,
    split: SplitName,
    folds: int,
    seed: int,
) -> Split | None:
    """Divide one training part again, for choices that must not see the test part.

    Args:
        train: sample indices of the training part, shape (n_train,).
        labels: class indices of all samples, shape (n_samples,).
        groups: groups of all samples, shape (n_samples,).
        split: the kind of the outer split: the inner one is random where that is, else grouped.
        folds: wanted number of folds; fewer are made where the part cannot fill them.
        seed: seed of the shuffling.

    Returns:
        A split whose indices are those of all samples, or None where the part cannot be divided
        so that every inner training part holds at least two classes.
    """
    y, g = labels[train], groups[train]
    kind: SplitName = "random" if split == "random" else "grouped"
    if kind == "grouped":
        folds = min(folds, len(np.unique(g)))
    folds = min(folds, int(np.bincount(y).max()))
    if folds < 2:
        return None
    try:
        made = make_split(y, g, split=kind, folds=folds, seed=seed)
    except ProbeError:
        return None
    return Split(kind, tuple((train[fit], train[check]) for fit, check in made.folds), len(labels))


def validation_part(
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
    made = inner_split(rows, labels, groups, split="grouped", folds=_VALIDATION_PARTS, seed=seed)
    held = np.empty(0, dtype=np.int64)
    if made is not None:
        trained, held = made.folds[0]
        held = held[np.isin(labels[held], labels[trained])]
    return np.setdiff1d(rows, held), np.sort(held)


def _grouped(y: IntArray, g: IntArray, folds: int, seed: int, names: list[str]) -> Split:
    n_folds = 5 if folds == 1 else folds
    n_groups = int(g.max()) + 1
    # With one fold the number of parts is ours to choose, so too few groups only mean fewer parts.
    if folds == 1:
        n_folds = max(2, min(n_folds, n_groups, int(np.bincount(y).max())))
    _check_largest_class(y, 1)
    if n_groups < n_folds:
        raise ProbeError(
            f"{n_folds} grouped folds need as many groups and there are {n_groups}; "
            + ("lower folds or add groups." if n_groups > 1 else "use split=random.")
        )
    _check_largest_class(y, folds)
    groups_of = {k: len(np.unique(g[y == k])) for k in np.unique(y)}
    made = _folds("StratifiedGroupKFold", n_folds, seed, y, g)
    kept, notes = _usable(made[:1] if folds == 1 else made, y)
    single = [names[k] for k, count in groups_of.items() if count == 1]
    if single:
        notes.append(
            f"{having(single)} one group only, so no probe is ever trained on one of its groups "
            "and tested on another: its images count as wrong; add groups or leave it out."
        )
    few = [names[k] for k, count in groups_of.items() if 1 < count < n_folds]
    if few:
        smallest = min(count for count in groups_of.values() if count > 1)
        notes.append(
            f"{having(few)} fewer groups than the {n_folds} folds, so some folds test none of "
            f"it; add groups or use folds={smallest}."
        )
    return Split("grouped", kept, len(y), tuple(notes), n_folds)


def _random(y: IntArray, g: IntArray, folds: int, seed: int, names: list[str]) -> Split:
    counts = np.bincount(y)
    _check_largest_class(y, folds)
    single = [names[k] for k in np.flatnonzero(counts == 1)]
    notes: list[str] = []
    same = [names[k] for k in np.flatnonzero(counts > 1) if len(np.unique(g[y == k])) == 1]
    last = [
        f"{having(same)} one group only, so a random split trains and tests on that same "
        "group: its score says nothing of another; add groups or leave it out."
        for _ in same[:1]
    ]
    if folds == 1:
        pool = np.flatnonzero(counts[y] > 1)
        n_classes = len(np.unique(y[pool]))
        n_test = int(np.ceil(HOLDOUT_SHARE * len(pool)))
        if n_classes < 1 or n_test < n_classes or len(pool) - n_test < n_classes:
            raise ProbeError(
                f"a random hold-out of one in five needs a test image per class, and {len(y)} "
                f"samples of {len(np.unique(y))} classes give {n_test}; use folds=5 or fewer "
                "classes."
            )
        made = _folds("StratifiedShuffleSplit", 1, seed, y[pool], None)
        alone = np.flatnonzero(counts[y] == 1)
        made = [(np.sort(np.concatenate([pool[a], alone])), pool[b]) for a, b in made]
        if single:
            notes.append(
                f"{having(single)} a single image, which is trained on and never scored; "
                "add images or leave it out."
            )
        kept, more = _usable(made, y)
        return Split("random", kept, len(y), (*more, *notes, *last))
    kept, notes = _usable(_folds("StratifiedKFold", folds, seed, y, None), y)
    if single:
        notes.append(
            f"{having(single)} a single image, which no probe can both train on and be tested "
            "on: it counts as wrong; add images or leave it out."
        )
    few = [names[k] for k in np.flatnonzero((counts > 1) & (counts < folds))]
    if few:
        notes.append(
            f"{having(few)} fewer images than the {folds} folds, so some folds test none of "
            "it; add images or lower folds."
        )
    return Split("random", kept, len(y), (*notes, *last), folds)


def _check_largest_class(y: IntArray, folds: int) -> None:
    largest = int(np.bincount(y).max())
    if largest == 1:
        raise ProbeError(
            "every class has a single image, so no probe can be trained on one image of a class "
            "and tested on another; extract more images of each class (--per_class)."
        )
    if largest < folds:
        raise ProbeError(
            f"{folds} folds need a class of as many images and the largest has {largest}; use "
            f"folds={largest} or fewer, or extract more images of each class (--per_class)."
        )


def _folds(
    kind: str, folds: int, seed: int, y: IntArray, g: IntArray | None
) -> list[tuple[IntArray, IntArray]]:
    from sklearn import model_selection

    maker: Any
    if kind == "StratifiedShuffleSplit":
        maker = model_selection.StratifiedShuffleSplit(
            n_splits=1, test_size=HOLDOUT_SHARE, random_state=seed
        )
    else:
        maker = getattr(model_selection, kind)(n_splits=folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # Small classes are reported by the caller, with names and with what to do.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        try:
            parts = list(maker.split(np.zeros((len(y), 1)), y, g))
        except ValueError as error:
            raise ProbeError(
                f"{len(y)} images of {len(np.unique(y))} classes cannot be divided into "
                f"{folds} folds; use fewer folds or extract more images of each class."
            ) from error
    return [(np.sort(a).astype(np.int64), np.sort(b).astype(np.int64)) for a, b in parts]


def _usable(
    made: list[tuple[IntArray, IntArray]], y: IntArray
) -> tuple[tuple[tuple[IntArray, IntArray], ...], list[str]]:
    """Leave out empty test parts; refuse training parts of a single class."""
    kept = tuple((train, test) for train, test in made if len(test))
    for number, (train, _) in enumerate(kept):
        if len(np.unique(y[train])) < 2:
            raise ProbeError(
                f"the training part of fold {number} holds fewer than two classes; "
                "lower folds or add groups."
            )
    notes = []
    if len(kept) < len(made):
        notes.append(
            f"{len(made) - len(kept)} of {len(made)} folds stayed empty because a few groups hold "
            "most images; lower folds."
        )
    return kept, notes


_DRAWN: dict[str, Callable[[IntArray, IntArray, int, int, list[str]], Split]] = {
    "grouped": _grouped,
    "random": _random,
}
