"""The CSV files of a results folder: a dataclass a row, its fields are the columns."""

from __future__ import annotations

import csv
import math
import typing
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from signbridge.errors import ProbeError, first_line
from signbridge.results.format import AGAIN
from signbridge.runtime.files import replace_file
from signbridge.runtime.reading import read_text
from signbridge.runtime.tables import csv_lines, csv_text

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
    columns = columns_of(kind)
    cells = ([_text(row.get(column)) for column in columns] for row in rows)
    replace_file(path, csv_text(columns, cells).encode())


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
    line = 1
    try:
        lines = csv_lines(read_text(path))
        _, header = next(lines, (1, []))
        place = {column: header.index(column) for column in columns_of(kind) if column in header}
        for column in columns_of(kind):
            if column not in place and column not in defaults:
                raise ProbeError(f"{path} lacks the column {column!r}: {AGAIN}.")
        rows = []
        for line, row in lines:
            if not row:
                continue
            if len(row) <= max(place.values(), default=0):
                raise ProbeError(f"{path}, line {line}: the row is too short: {AGAIN}.")
            given = {column: row[at] for column, at in place.items()}
            cells = {
                column: _cell(hints[column], given.get(column) or defaults.get(column, ""), column)
                for column in columns_of(kind)
            }
            rows.append(kind(**cells))
        return tuple(rows)
    except ValueError as error:
        if isinstance(error, UnicodeDecodeError):
            raise ProbeError(f"{path} is no UTF-8 text ({first_line(error)}): {AGAIN}.") from None
        raise ProbeError(f"{path}, line {line}: {error}: {AGAIN}.") from None
    except OSError as error:
        raise ProbeError(f"{path} cannot be read ({error.strerror}): {AGAIN}.") from error
    except csv.Error as error:
        raise ProbeError(f"{path}, line {line + 1}: this is no CSV ({error}): {AGAIN}.") from error


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
