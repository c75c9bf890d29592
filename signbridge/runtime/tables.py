"""CSV as every table of the package is written: no cell of it is a formula to a spreadsheet.

A text cell that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line end is what a spreadsheet
would compute rather than show, and class names, paths and answers come from data sets. Such a cell
gets an apostrophe in front (OWASP, "CSV Injection"), and so does one that has apostrophes and then
such a sign, so that :func:`unquoted` gives every text back. What is a number stays as it is.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from types import SimpleNamespace

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_NUMBER = re.compile(
    r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?(inf|nan)", re.IGNORECASE
)


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as CSV text.

    Args:
        columns: Its header.
        rows: Its cells; None is an empty one.
    """
    lines: list[str] = []
    # Only with both as its line end does Python quote a cell that holds one of the two.
    end = "\r\n"
    writer = csv.writer(SimpleNamespace(write=lines.append), lineterminator=end)
    writer.writerow([quoted(column) for column in columns])
    writer.writerows([quoted(cell) for cell in row] for row in rows)
    return "".join(f"{line.removesuffix(end)}\n" for line in lines)


def csv_lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of CSV text with the number of the line where each ends, quoted texts as they were.

    Raises:
        csv.Error: It is no CSV.
    """
    reader = csv.reader(io.StringIO(text, newline=""))
    for row in reader:
        yield reader.line_num, [unquoted(cell) for cell in row]


def quoted(cell: object) -> object:
    """A cell that no spreadsheet takes for a formula."""
    if not isinstance(cell, str) or not _FORMULA.match(cell) or _NUMBER.fullmatch(cell):
        return cell
    return f"'{cell}"


def unquoted(cell: str) -> str:
    """The text of a cell that :func:`quoted` has made."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell, 1) else cell
