"""The user's own split, read from a file."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from signbridge.errors import ProbeError
from signbridge.runtime.reading import read_bytes
from signbridge.runtime.tables import csv_lines
from signbridge.runtime.words import counted

TRAIN, TEST, IGNORE = "train", "test", "ignore"
_HEADER = ["sample_id", "fold"]
_Fold = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


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
        return read_bytes(path)
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
    line = 1
    try:
        lines = csv_lines(text)
        line, header = next(lines, (1, None))
        if header is None:
            raise ProbeError(f"the split file {path} is empty; its first line is sample_id,fold.")
        if [word.strip() for word in header] != _HEADER:
            raise ProbeError(
                f"{path} begins with {','.join(header)!r}; its first line must be sample_id,fold."
            )
        for line, row in lines:
            if not row or row == [""]:
                continue
            if len(row) != 2:
                raise ProbeError(
                    f"{path}, line {line}: {counted(len(row), 'value')} instead of two; "
                    "write sample_id,fold."
                )
            yield line, row[0].strip(), row[1].strip()
    except csv.Error as error:
        raise ProbeError(
            f"{path}, line {line + 1}: this is no CSV ({error}); write sample_id,fold."
        ) from None
