"""The CSV files of a results folder, read so that what is wrong is named."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from signbridge.errors import ProbeError
from signbridge.results.format import AGAIN

__all__ = ["number_in", "read_table"]

T = TypeVar("T")


def read_table(
    path: Path, columns: Iterable[str], made: Callable[[Mapping[str, str | None], int], T]
) -> tuple[T, ...]:
    """Read a CSV file.

    Args:
        path: The file.
        columns: What it must hold; others may be there.
        made: Makes something of a row, given with the number of its line.

    Returns:
        What was made of the rows.

    Raises:
        ProbeError: The file lacks a column or cannot be read.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [c for c in columns if c not in (reader.fieldnames or ())]
            if missing:
                raise ProbeError(f"{path} lacks the column {missing[0]!r}: {AGAIN}.")
            return tuple(made(row, reader.line_num) for row in reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ProbeError(f"{path} cannot be read ({error}): {AGAIN}.") from error


def number_in(row: Mapping[str, str | None], column: str, path: Path, line: int) -> float:
    """The number in a cell, NaN where it is empty.

    Raises:
        ProbeError: It holds something else.
    """
    text = (row[column] or "").strip()
    try:
        return float(text) if text else math.nan
    except ValueError:
        raise ProbeError(
            f"{path}, line {line}: {column} is {text!r}, not a number: {AGAIN}."
        ) from None
