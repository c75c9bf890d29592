"""Splits that are given, not drawn: the data's own training and test part, or the user's file.

They may part a group, and then a probe can score by recognising the photograph. That is measured
here and said; nothing is moved.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from signbridge.errors import ProbeError
from signbridge.probes.config import SplitName
from signbridge.probes.dataset.splits import (
    IntArray,
    Split,
    checked,
    having,
    listing,
    names_by_class,
)
from signbridge.runtime.words import counted

TRAIN, TEST, IGNORE = "train", "test", "ignore"
_HEADER = ["sample_id", "fold"]
_Fold = tuple[IntArray, IntArray]


def split_by_source(
    labels: npt.ArrayLike,
    groups: npt.ArrayLike | None,
    source_splits: Sequence[str],
    class_names: Sequence[str] | None = None,
) -> Split:
    """Train on the data's own part ``train`` and test on its part ``test``.

    Any other part (``val``), and samples without one, are neither trained on nor scored: choices
    are made by inner folds of the training part, as under every other split.

    Args:
        labels: class indices, shape (n_samples,).
        groups: group of each sample, shape (n_samples,); None puts each sample in its own.
        source_splits: part of each sample, as the source calls it, or empty.
        class_names: names by class index, for messages.

    Returns:
        One fold. ``warnings`` says how many test images share a group with training images, and
        which classes have too few groups.

    Raises:
        ProbeError: there is no training or no test part, or no two classes to train on.
    """
    y, g = checked(labels, groups)
    part = np.asarray(source_splits, dtype=object)
    train, test = np.flatnonzero(part == TRAIN), np.flatnonzero(part == TEST)
    other = Counter(str(name) for name in part if name not in (TRAIN, TEST))
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
    if other:
        listed = listing([name or "without a part" for name in sorted(other)])
        count = sum(other.values())
        notes.append(
            f"{counted(count, 'image')} {'is' if count == 1 else 'are'} of neither the training "
            f"nor the test part ({listed}), and so neither trained on nor scored."
        )
    return _given("source", [(train, test)], y, g, class_names, notes, "the data's own split")


def split_by_file(
    path: str | Path,
    sample_ids: Sequence[str],
    labels: npt.ArrayLike,
    groups: npt.ArrayLike | None,
    class_names: Sequence[str] | None = None,
) -> Split:
    """Divide samples as a file says, see :func:`read_split_file`.

    Args:
        path: the file.
        sample_ids: the samples, in order.
        labels: class indices, shape (n_samples,).
        groups: group of each sample, shape (n_samples,); None puts each sample in its own.
        class_names: names by class index, for messages.

    Returns:
        One fold for each fold number, ascending, or one with the words train and test.

    Raises:
        ProbeError: the file cannot be used.
    """
    y, g = checked(labels, groups)
    folds = read_split_file(path, sample_ids)
    return _given("file", folds, y, g, class_names, [], f"the split of {path}")


def read_split_file(path: str | Path, sample_ids: Sequence[str]) -> list[_Fold]:
    """Read folds from a CSV (UTF-8) with the header ``sample_id,fold`` and a line for each sample.

    ``fold`` is a whole number, of which each is once the test part while the others are trained on,
    or one of the words ``train`` and ``test`` for a single hold-out. Samples with no fold, or with
    ``ignore``, are left out.

    Args:
        path: the file.
        sample_ids: the samples, in order.

    Returns:
        Training and test part of each fold as sample indices, ascending.

    Raises:
        ProbeError: the file cannot be read, has another header, names a sample that is not there,
            twice or not at all, or gives fewer than two parts.
    """
    row_of = {name: row for row, name in enumerate(sample_ids)}
    fold: dict[int, int | str] = {}
    seen: dict[str, int] = {}
    for line, sample, text in _lines(Path(path)):
        where = f"{path}, line {line}"
        if sample not in row_of:
            raise ProbeError(
                f"{where}: the store has no sample {sample!r}, its first is {sample_ids[0]!r}; "
                "give its own sample_id, or leave the line out."
            )
        if sample in seen:
            raise ProbeError(
                f"{where}: sample {sample!r} is in line {seen[sample]} already; keep one."
            )
        seen[sample] = line
        value = _fold_value(text, where)
        if value is None:
            continue
        first = next(iter(fold.values()), value)
        if type(first) is not type(value):
            raise ProbeError(
                f"{where}: fold is {value!r} here and {first!r} above; use either whole numbers or "
                "the words train and test."
            )
        fold[row_of[sample]] = value
    missing = [name for name in sample_ids if name not in seen]
    if missing:
        raise ProbeError(
            f"{path} has no line for {len(missing):,} of {len(sample_ids):,} samples, the first of "
            f"them {missing[0]!r}; add a line for each, with the fold {IGNORE} to leave it out."
        )
    parts = sorted(set(fold.values()), key=str)
    if len(parts) < 2:
        held = f"only the fold {parts[0]}" if parts else "no fold at all"
        raise ProbeError(
            f"{path} holds {held}; give at least two numbers, or the words train and test."
        )
    rows = np.array(sorted(fold), dtype=np.int64)
    if TRAIN in parts:
        is_test = np.array([fold[row] == TEST for row in rows.tolist()])
        return [(rows[~is_test], rows[is_test])]
    number = np.array([int(fold[row]) for row in rows.tolist()])
    return [(rows[number != k], rows[number == k]) for k in np.unique(number)]


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a split file's bytes, in hexadecimal.

    Raises:
        ProbeError: it cannot be read.
    """
    return hashlib.sha256(_read(Path(path))).hexdigest()


def split_file_record(path: str | Path | None) -> dict[str, str] | None:
    """What the results record of a split file: its path and SHA-256; None without one."""
    return None if path is None else {"path": str(path), "sha256": file_sha256(path)}


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


def _given(
    kind: SplitName,
    folds: Sequence[_Fold],
    y: IntArray,
    g: IntArray,
    class_names: Sequence[str] | None,
    notes: Sequence[str],
    whose: str,
) -> Split:
    names = names_by_class(y, class_names)
    for number, (train, _) in enumerate(folds):
        if len(np.unique(y[train])) < 2:
            where = "" if len(folds) == 1 else f"fold {number} of "
            raise ProbeError(
                f"the training part of {where}{whose} holds fewer than two classes, and a probe "
                "needs two at least; give it images of others."
            )
    split = Split(kind, tuple(folds), len(y))
    warnings = [*notes, *_parted(split, g, whose), *_thin(split, y, g, names)]
    return Split(kind, split.folds, len(y), tuple(warnings))


def _parted(split: Split, g: IntArray, whose: str) -> list[str]:
    images, parted = shared_groups(split, g)
    if not images:
        return []
    total = sum(len(test) for _, test in split)
    return [
        f"{whose} parts {counted(parted, 'group')}: {images:,} of {total:,} test images have "
        "images of their own group in the training part, so a probe can score on them by "
        "recognising the photograph; compare with split=grouped."
    ]


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
            yield f"{having(found)} {what}; add groups or leave it out."


def _fold_value(text: str, where: str) -> int | str | None:
    if text in ("", IGNORE):
        return None
    if text in (TRAIN, TEST):
        return text
    if not text.isascii() or not text.isdecimal():
        raise ProbeError(
            f"{where}: fold is {text!r}; write a whole number of 0 or more, or {TRAIN}, {TEST} or "
            f"{IGNORE}."
        )
    return int(text)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ProbeError(
            f"the split file {path} cannot be read ({error.strerror}); give a CSV with the header "
            "sample_id,fold."
        ) from None


def _lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line number, sample and fold of each line below the header."""
    try:
        text = _read(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProbeError(
            f"the split file {path} is no UTF-8 text ({error.reason} at byte {error.start}); save "
            "it as UTF-8."
        ) from None
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = next(reader, None)
        if header is None:
            raise ProbeError(f"the split file {path} is empty; its first line is sample_id,fold.")
        if [word.strip() for word in header] != _HEADER:
            raise ProbeError(
                f"{path} begins with {','.join(header)!r}; its first line must be sample_id,fold."
            )
        for row in reader:
            if not row or row == [""]:
                continue
            if len(row) != 2:
                raise ProbeError(
                    f"{path}, line {reader.line_num}: {counted(len(row), 'value')} instead of two; "
                    "write sample_id,fold."
                )
            yield reader.line_num, row[0].strip(), row[1].strip()
    except csv.Error as error:
        raise ProbeError(
            f"{path}, line {reader.line_num}: this is no CSV ({error}); write sample_id,fold."
        ) from None
