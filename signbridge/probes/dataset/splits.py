"""All kinds of split: what each is, in one table, and how samples are divided.

A *group* holds images that are not independent (near-duplicates of one photograph, or one signer).
The grouped split never parts a group, so a probe is scored on groups it has not seen; the random
split ignores groups and is kept for comparison with studies that used it. The data's own split and
the user's file may part a group too, and then a probe can score by recognising the photograph. That
is measured here and said; nothing is moved.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from signbridge.errors import ProbeError
from signbridge.probes.config import SplitName
from signbridge.probes.dataset.split_file import TEST, TRAIN, read_split_file
from signbridge.runtime.words import counted, some

HOLDOUT_SHARE = 0.2
"""Share of the samples that a single random hold-out (``folds=1``) scores."""
_NAMED = 8  # most names in a sentence
_VALIDATION_PARTS = 5
_GROUPS_AS_FOLDS = 20  # up to so many groups each may well be a fold of its own
IntArray = npt.NDArray[np.int64]
Folds = int | Literal["groups"]
_Fold = tuple[IntArray, IntArray]


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


def shared_groups(split: Split, groups: npt.ArrayLike) -> tuple[int, int]:
    """How far a split parts groups.

    Args:
        split: any split.
        groups: group of each sample, shape (n_samples,).

    Returns:
        The number of test images that have images of their group in the training part of the same
        fold, and the number of these groups.
    """
    g = np.asarray(groups)
    images, parted = 0, set()
    for train, test in split:
        shared = test[np.isin(g[test], g[train])]
        images += len(shared)
        parted.update(np.unique(g[shared]).tolist())
    return images, len(parted)


@dataclass(frozen=True)
class _Samples:
    """What is to be split, checked, and how: see :func:`make_split`.

    ``names`` are by class index, the indices themselves where the caller gave none.
    """

    y: IntArray
    g: IntArray
    names: list[str]
    folds: Folds
    seed: int
    source_splits: Sequence[str]
    sample_ids: Sequence[str]
    split_file: str | Path | None


def make_split(
    labels: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    *,
    split: SplitName = "grouped",
    folds: Folds = 5,
    seed: int = 42,
    class_names: Sequence[str] | None = None,
    source_splits: Sequence[str] | None = None,
    sample_ids: Sequence[str] | None = None,
    split_file: str | Path | None = None,
) -> Split:
    """Divide samples into training and test parts.

    ``grouped`` with ``folds > 1`` is scikit-learn's ``StratifiedGroupKFold`` (shuffled): every
    sample is scored once by a probe that saw nothing of its group. With one fold it is the first
    fold of five, or of fewer where there are fewer groups (:attr:`Split.parts`), and with
    ``folds="groups"`` each group is a test part of its own (``LeaveOneGroupOut``). ``random`` with
    ``folds > 1`` is ``StratifiedKFold`` (shuffled), and with one fold
    ``StratifiedShuffleSplit(test_size=0.2, random_state=seed)``, the original study's split.
    ``source`` trains on the data's own part ``train`` and tests on its part ``test``. Any other
    part (``val``), and samples without one, are neither trained on nor scored: choices are made by
    inner folds of the training part, as under every other split. ``file`` divides as a file says,
    see :func:`signbridge.probes.dataset.split_file.read_split_file`: one fold for each number,
    ascending, or one with the words train and test. These two need neither folds nor a seed.

    Args:
        labels: class indices, shape (n_samples,).
        groups: group of each sample, shape (n_samples,); None puts each sample in its own.
        split: which of them.
        folds: number of folds, at least 1; or ``groups``, for ``grouped`` alone.
        seed: seed of the shuffling.
        class_names: names by class index, for messages.
        source_splits: the data's own part of each sample, or empty, for ``source``.
        sample_ids: the samples' ids, in order, for ``file``.
        split_file: the file, for ``file``.

    Returns:
        The split. ``warnings`` names the classes that it cannot treat fairly, and says how many
        test images share a group with training images where a given split parts groups.

    Raises:
        ProbeError: fewer than two classes, fewer groups than folds, no class with enough samples,
            no training or no test part, or a file that cannot be used.
    """
    if split not in _KINDS:
        *others, last = _KINDS
        raise ProbeError(f"split {split!r} is not known; use {', '.join(others)} or {last}.")
    if folds == "groups":
        if split != "grouped":
            raise ProbeError(f"folds=groups makes grouped folds; it cannot make split={split}.")
    elif isinstance(folds, bool) or not isinstance(folds, (int, np.integer)) or folds < 1:
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
    top = int(y.max())
    names = [str(k) for k in range(top + 1)] if class_names is None else list(map(str, class_names))
    if len(names) <= top:
        raise ProbeError(f"label {top} has no name: there are {len(names)} class names.")
    samples = _Samples(
        y=y.astype(np.int64),
        g=np.unique(g, return_inverse=True)[1].astype(np.int64),
        names=names,
        folds=folds,
        seed=seed,
        source_splits=[""] * len(y) if source_splits is None else source_splits,
        sample_ids=() if sample_ids is None else sample_ids,
        split_file=split_file,
    )
    return _KINDS[split](samples)


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


def _grouped(samples: _Samples) -> Split:
    y, g, names, folds = samples.y, samples.g, samples.names, samples.folds
    n_groups = int(g.max()) + 1
    if folds == "groups":
        return _each_group(y, g, names, n_groups)
    n_folds = 5 if folds == 1 else folds
    # With one fold the number of parts is ours to choose, so too few groups only mean fewer parts.
    if folds == 1:
        n_folds = max(2, min(n_folds, n_groups, int(np.bincount(y).max())))
    _check_largest_class(y, 1)
    if n_groups < n_folds:
        raise ProbeError(
            f"{n_folds} grouped folds need as many groups and there are {n_groups}; "
            + ("use folds=groups or add groups." if n_groups > 1 else "use split=random.")
        )
    _check_largest_class(y, folds)
    groups_of = {k: len(np.unique(g[y == k])) for k in np.unique(y)}
    made = _folds("StratifiedGroupKFold", n_folds, samples.seed, y, g)
    kept, notes = _usable(made[:1] if folds == 1 else made, y, g)
    notes += _of_one_group(groups_of, names)
    few = [names[k] for k, count in groups_of.items() if 1 < count < n_folds]
    if few:
        smallest = min(count for count in groups_of.values() if count > 1)
        notes.append(
            f"{_having(few)} fewer groups than the {n_folds} folds, so some folds test none of "
            f"it; add groups or use folds={smallest}."
        )
    return Split("grouped", kept, len(y), tuple(notes), n_folds)


def _each_group(y: IntArray, g: IntArray, names: Sequence[str], n_groups: int) -> Split:
    """Each group in turn as the test part of a fold."""
    if n_groups < 2:
        raise ProbeError("folds=groups needs two groups or more, and there is one; add groups.")
    rows = np.arange(len(y))
    made = [(rows[g != group], rows[g == group]) for group in range(n_groups)]
    kept, notes = _usable(made, y, g)
    notes += _of_one_group({k: len(np.unique(g[y == k])) for k in np.unique(y)}, names)
    return Split("grouped", kept, len(y), tuple(notes), n_groups)


def _of_one_group(groups_of: Mapping[int, int], names: Sequence[str]) -> list[str]:
    """What to know of classes of which no probe can both learn and be tested."""
    single = [names[k] for k, count in groups_of.items() if count == 1]
    return [
        f"{_having(single)} one group only, so no probe is ever trained on one of its groups and "
        "tested on another: its images count as wrong; add groups or leave it out."
        for _ in single[:1]
    ]


def _random(samples: _Samples) -> Split:
    y, g, names = samples.y, samples.g, samples.names
    folds, seed = samples.folds, samples.seed
    assert folds != "groups"
    counts = np.bincount(y)
    _check_largest_class(y, folds)
    single = [names[k] for k in np.flatnonzero(counts == 1)]
    notes: list[str] = []
    same = [names[k] for k in np.flatnonzero(counts > 1) if len(np.unique(g[y == k])) == 1]
    last = [
        f"{_having(same)} one group only, so a random split trains and tests on that same "
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
                f"{_having(single)} a single image, which is trained on and never scored; "
                "add images or leave it out."
            )
        kept, more = _usable(made, y, g)
        return Split("random", kept, len(y), (*more, *notes, *last))
    kept, notes = _usable(_folds("StratifiedKFold", folds, seed, y, None), y, g)
    if single:
        notes.append(
            f"{_having(single)} a single image, which no probe can both train on and be tested "
            "on: it counts as wrong; add images or leave it out."
        )
    few = [names[k] for k in np.flatnonzero((counts > 1) & (counts < folds))]
    if few:
        notes.append(
            f"{_having(few)} fewer images than the {folds} folds, so some folds test none of "
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
    made: list[tuple[IntArray, IntArray]], y: IntArray, g: IntArray
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
        # The largest groups alone may fill what is left of the folds; else it is the classes.
        largest = np.sort(np.bincount(g))[::-1]
        few = largest[: len(kept)].sum() > 0.9 * len(y) and len(largest) > 2 * len(kept)
        why = (
            f"{counted(len(kept), 'group')} hold nearly all images"
            if few
            else "whole groups go where they make the shares of the classes in each fold most "
            "even, and that took fewer folds"
        )
        or_groups = " or folds=groups" if len(largest) <= _GROUPS_AS_FOLDS else ""
        notes.append(
            f"{len(made) - len(kept)} of {len(made)} folds stayed empty because {why}; use "
            f"folds={len(kept)}{or_groups}."
        )
    return kept, notes


def _source(samples: _Samples) -> Split:
    part = np.asarray(samples.source_splits, dtype=object)
    train, test = np.flatnonzero(part == TRAIN), np.flatnonzero(part == TEST)
    for wanted, rows in ((TRAIN, train), (TEST, test)):
        if not len(rows):
            there = ", ".join(
                f"{count} of {name!r}" if name else f"{count} without a part"
                for name, count in sorted(Counter(part.tolist()).items())
            )
            raise ProbeError(
                f"split=source needs the data's own training and test part, and no image is of the "
                f"part {wanted!r} ({there}); extract from data with both, or use split=grouped."
            )
    notes = []
    count = len(part) - len(train) - len(test)
    if count:
        others = sorted(set(part.tolist()) - {TRAIN, TEST})
        listed = some([name or "without a part" for name in others], _NAMED)
        notes.append(
            f"{counted(count, 'image')} {'is' if count == 1 else 'are'} of neither the training "
            f"nor the test part ({listed}), and so neither trained on nor scored."
        )
    return _given("source", [(train, test)], samples, notes, "the data's own split")


def _file(samples: _Samples) -> Split:
    path = samples.split_file
    if path is None:
        raise ProbeError("split=file needs a file; give it as split_file.")
    folds = read_split_file(path, samples.sample_ids)
    return _given("file", folds, samples, [], f"the split of {path}")


def _given(
    kind: SplitName,
    folds: Sequence[_Fold],
    samples: _Samples,
    notes: Sequence[str],
    whose: str,
) -> Split:
    y, g = samples.y, samples.g
    for number, (train, _) in enumerate(folds):
        if len(np.unique(y[train])) < 2:
            where = "" if len(folds) == 1 else f"fold {number} of "
            raise ProbeError(
                f"the training part of {where}{whose} holds fewer than two classes, and a probe "
                "needs two at least; give it images of others."
            )
    split = Split(kind, tuple(folds), len(y))
    notes = [*notes]
    images, parted = shared_groups(split, g)
    if images:
        total = sum(len(test) for _, test in split)
        notes.append(
            f"{whose} parts {counted(parted, 'group')}: {images:,} of {total:,} test images have "
            "images of their own group in the training part, so a probe can score on them by "
            "recognising the photograph; compare with split=grouped."
        )
    return replace(split, warnings=(*notes, *_thin(split, y, g, samples.names)))


def _thin(split: Split, y: IntArray, g: IntArray, names: Sequence[str]) -> Iterator[str]:
    """Classes with too few groups to be learnt or to be scored."""
    tested = np.concatenate([test for _, test in split])
    scored = {k: len(np.unique(g[tested[y[tested] == k]])) for k in np.unique(y[split.used])}
    # Where the class is tested, the least of what it was learnt from.
    learnt = {
        k: min(
            (len(np.unique(g[a[y[a] == k]])) for a, b in split if (y[b] == k).any()), default=None
        )
        for k in scored
    }

    def among(counts: Mapping[int, int | None], wanted: Callable[[int], bool]) -> list[str]:
        return [names[k] for k, count in counts.items() if count is not None and wanted(count)]

    for found, what in (
        (
            among(learnt, lambda n: n == 0),
            "no image in a training part, so its test images there count as wrong",
        ),
        (among(scored, lambda n: n == 0), "no test image, so nothing scores it"),
        (
            among(learnt, lambda n: n == 1),
            "one group only in a training part, so it is learnt from a single one",
        ),
        (
            among(scored, lambda n: n == 1),
            "one group only among the test images, so a single one decides its score",
        ),
    ):
        if found:
            yield f"{_having(found)} {what}; add groups or leave it out."


def _having(names: Sequence[str]) -> str:
    """The beginning of a sentence about some classes."""
    return (
        f"class {names[0]} has" if len(names) == 1 else f"classes {some(names, _NAMED)} have each"
    )


_KINDS: dict[str, Callable[[_Samples], Split]] = {
    "grouped": _grouped,
    "random": _random,
    "source": _source,
    "file": _file,
}
