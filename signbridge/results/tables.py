"""The CSV files of a results folder: a dataclass a row, its fields are the columns."""

from __future__ import annotations

import csv
import io
import math
import typing
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from signbridge.errors import ProbeError
from signbridge.results.format import AGAIN
from signbridge.runtime.files import replace_file

__all__ = ["columns_of", "read_rows", "write_rows"]

T = TypeVar("T")


def columns_of(kind: type[Any]) -> tuple[str, ...]:
    """The columns of a table, in their order."""
    return tuple(field.name for field in fields(kind))


def write_rows(path: Path, kind: type[Any], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table by way of a temporary name.

    Args:
        path: The file.
        kind: The dataclass of its rows.
        rows: The values by column; what is missing, None or NaN is left empty. Numbers are written
            with ten digits.
    """
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, columns_of(kind), lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow({key: _text(row.get(key)) for key in columns_of(kind)})
    replace_file(path, text.getvalue().encode())


def read_rows(
    path: Path, kind: type[T], defaults: Mapping[str, str] | None = None
) -> tuple[T, ...]:
    """Read a table and check every cell against the annotations.

    Args:
        path: The file. Columns that the dataclass does not know are left out.
        kind: The dataclass of its rows. Its fields are texts, ``float`` (NaN where the cell is
            empty), ``int``, ``int | None`` and ``bool``.
        defaults: What to read in columns that may be missing, or empty.

    Raises:
        ProbeError: The file lacks a column, holds something else in a cell, or cannot be read; the
            message names file, line and column.
    """
    hints, defaults = typing.get_type_hints(kind), defaults or {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            there = [c for c in columns_of(kind) if c in (reader.fieldnames or ())]
            for column in columns_of(kind):
                if column not in there and column not in defaults:
                    raise ProbeError(f"{path} lacks the column {column!r}: {AGAIN}.")
            rows = []
            for row in reader:
                if any(row[column] is None for column in there):
                    raise ProbeError(
                        f"{path}, line {reader.line_num}: the row is too short: {AGAIN}."
                    )
                try:
                    cells = {
                        column: _cell(
                            hints[column], row.get(column) or defaults.get(column, ""), column
                        )
                        for column in columns_of(kind)
                    }
                except ValueError as error:
                    raise ProbeError(f"{path}, line {reader.line_num}: {error}: {AGAIN}.") from None
                rows.append(kind(**cells))
            return tuple(rows)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ProbeError(f"{path} cannot be read ({error}): {AGAIN}.") from error


def _cell(hint: Any, text: str, column: str) -> Any:
    if hint is str:
        return text
    text = text.strip()
    if hint is bool:
        return text == "true"
    try:
        number = float(text) if text else math.nan
    except ValueError:
        raise ValueError(f"{column} is {text!r}, not a number") from None
    if hint is float:
        return number
    if not text and hint is not int:
        return None
    if not math.isfinite(number) or number != round(number) or number < 0:
        raise ValueError(f"{column} is not a whole number")
    return int(number)


def _text(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.10g}" if isinstance(value, float) else value
