"""Sign Language MNIST in the CSV layout of Kaggle.

A header ``label,pixel1,...,pixel784``, then one grey 28 × 28 image a row: its label (the letter's
place in the alphabet, from 0) and 784 grey levels, 0 to 255. J (9) and Z (25) never occur, because
those letters need motion. Numbers may be in quotes or end in ``.0``, as other programs write them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from signbridge.errors import ImagesError
from signbridge.images.sources.source import Asked, Candidates
from signbridge.runtime.words import counted

NAME = "sign-language-mnist"
WHAT = "a CSV file of Sign Language MNIST"
TRAIN_FILE, TEST_FILE = "sign_mnist_train.csv", "sign_mnist_test.csv"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
PIXELS = 784
_COLUMNS = ["label", *(f"pixel{number}" for number in range(1, PIXELS + 1))]
_ENCODING = "utf-8-sig"  # spreadsheets write a byte order mark
_MOTION = {LETTERS.index("J"): "J", LETTERS.index("Z"): "Z"}


# A whole cell in quotes, and the end of a whole number written as a fraction.
_QUOTED = re.compile(r'(?<![^,])"([+-]?[0-9]{1,1000}(?:\.0+)?)"(?![^,])')
_POINT = re.compile(r"(?<=[0-9])\.0+(?![^,])")


def matches(spec: str, path: Path) -> bool:
    """Whether this is a file, or a folder that holds the official ones."""
    return path.is_file() or bool(_official_files(path))


def read(path: Path, asked: Asked | None = None) -> Candidates:
    """Read one CSV file, or the official files of a folder.

    The split of a file is the word "train" or "test" in its name, if there is one. Other CSV files
    of a folder are left out, and this is said.
    """
    if path.is_file():
        words = set(re.split(r"[^a-z]+", path.stem.lower()))
        named = [split for split in ("train", "test") if split in words]
        split = named[0] if len(named) == 1 else ""
        return _candidates(path.stem, [(split, split or path.stem, path)])
    found = _candidates(NAME, [(split, split, file) for split, file in _official_files(path)])
    others = sorted(
        file.name
        for file in path.glob("*.csv")
        if file.name not in {TRAIN_FILE, TEST_FILE} and not file.name.startswith(".")
    )
    if others:
        found.notes.append(
            f"{', '.join(others)} left out: of a folder only {TRAIN_FILE} and {TEST_FILE} are "
            "read; give another file by its own path."
        )
    return found


def _official_files(folder: Path) -> list[tuple[str, Path]]:
    """Return (split, path) of the official files in a folder, the training part first.

    Also found where unpacking put each into a folder of its own name.
    """
    found = []
    for split, name in (("train", TRAIN_FILE), ("test", TEST_FILE)):
        for path in (folder / name, folder / Path(name).stem / name):
            if path.is_file():
                found.append((split, path))
                break
    return found


def _candidates(name: str, files: list[tuple[str, str, Path]]) -> Candidates:
    tables = [(split, prefix, *read_csv(path)) for split, prefix, path in files]
    least = min(int(y.min()) for _, _, y, _ in tables)
    notes = []
    if least > 0:
        notes.append(
            f"No label is 0: label {least} is read as {LETTERS[least]}, counting from A = 0; if "
            "the labels count from A = 1, subtract 1 from each."
        )
    return Candidates(
        name=name,
        sample_id=[f"{prefix}/{row}" for _, prefix, y, _ in tables for row in range(len(y))],
        label=[LETTERS[number] for _, _, y, _ in tables for number in y],
        source_split=list(chain.from_iterable([split] * len(y) for split, _, y, _ in tables)),
        pixels=np.concatenate([pixels for *_, pixels in tables]),
        notes=notes,
    )


def read_csv(path: Path) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Read a CSV of the Kaggle layout.

    Args:
        path: The file.

    Returns:
        Labels, int64 (rows,), and pixels, uint8 (rows, 784).

    Raises:
        ImagesError: The file does not keep to the layout; the message names the line.
    """
    try:
        with path.open(encoding=_ENCODING, errors="replace") as file:
            _check_header(path, file.readline(100_000))
            begin = file.tell()
            try:
                table = _table(file)
            except (ValueError, OverflowError, Warning):
                file.seek(begin)
                table = _table(_plain_lines(file))
    except OSError as error:
        raise ImagesError(
            f"{path} cannot be read ({error.strerror}); check the file and its permissions."
        ) from None
    except (ValueError, OverflowError, Warning):
        table = None  # found out below, line by line, where
    if table is None or table.shape[1] != PIXELS + 1:
        raise _explain(path)
    labels = table[:, 0].astype(np.int64)
    if np.any((labels >= len(LETTERS)) | np.isin(labels, list(_MOTION))):
        raise _explain(path)
    return labels, np.ascontiguousarray(table[:, 1:])


def _table(lines: TextIO | Iterator[str]) -> NDArray[np.uint8]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no rows; integers written as floats
        return np.loadtxt(lines, dtype=np.uint8, delimiter=",", comments=None, ndmin=2)


def _plain_lines(lines: TextIO) -> Iterator[str]:
    for line in lines:
        yield _POINT.sub("", _QUOTED.sub(r"\1", line.rstrip("\n")))


def _counting(path: Path) -> str:
    """What a set of labels that cannot be right gives away about how they were numbered."""
    with path.open(encoding=_ENCODING, errors="replace") as file:
        next(file)
        first = {line.partition(",")[0].strip() for line in _plain_lines(file)} - {""}
    if not all(re.fullmatch("[0-9]{1,4}", label) for label in first):
        return ""
    labels = {int(label) for label in first}
    if 0 not in labels and 10 not in labels:  # J and Z would be 10 and 26
        return "; no label is 0 or 10, so these seem to count from A = 1: subtract 1"
    if max(labels) < len(LETTERS) - 2 and len(labels) > 1:
        return "; no label is above 23, so these seem to count without the gap at J"
    return ""


def _check_header(path: Path, header: str) -> None:
    columns = [column.strip().strip("\"'") for column in header.strip().split(",")]
    if columns != _COLUMNS:
        beginning = re.sub(r"[^ -~]", "?", header.strip()[:40])
        raise ImagesError(
            f"{path} is no Sign Language MNIST CSV: line 1 must be label,pixel1,...,pixel{PIXELS} "
            f"and it has {counted(len(columns), 'column')} beginning {beginning!r}."
        )


def _explain(path: Path) -> ImagesError:
    """Find the first line that breaks the layout; only ever run on a file that does."""
    rows = 0
    with path.open(encoding=_ENCODING, errors="replace") as file:
        next(file)
        for number, text in enumerate(_plain_lines(file), start=2):
            if not text:
                continue
            rows += 1
            where = f"{path}, line {number}"
            values = text.split(",")
            if len(values) != PIXELS + 1:
                return ImagesError(
                    f"{where}: {len(values)} values instead of {PIXELS + 1}; the line is cut or "
                    "ragged, so fetch the file again or repair it."
                )
            for column, value in zip(_COLUMNS, values, strict=True):
                if not re.fullmatch(r"[ \t]*[+-]?[0-9]{1,1000}[ \t]*", value):
                    return ImagesError(
                        f"{where}: {column} is {value[:20]!r}, not a whole number; repair the line."
                    )
                if column == "label" and int(value) in _MOTION:
                    return ImagesError(
                        f"{where}: label {int(value)} is {_MOTION[int(value)]}, which needs motion "
                        "and never occurs in Sign Language MNIST; number the letters A = 0 to "
                        f"Y = 24, with the gap at J{_counting(path)}."
                    )
                if column == "label" and not 0 <= int(value) < len(LETTERS):
                    return ImagesError(
                        f"{where}: label {int(value)} is outside 0 to 24 (A to Y); repair the line."
                    )
                if not 0 <= int(value) <= 255:
                    return ImagesError(
                        f"{where}: {column} is {int(value)}, outside 0 to 255; repair the line."
                    )
    if rows == 0:
        return ImagesError(f"{path} has a header and no rows; fetch the file again.")
    return ImagesError(f"{path} cannot be parsed as whole numbers with commas between them.")
