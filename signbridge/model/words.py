"""The words that stand for the classes in answers, from a file.

Folders may be called ``a``, ``0`` or ``class_7`` where the model would say another word.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence

from signbridge.errors import ModelError
from signbridge.runtime.reading import read_text
from signbridge.runtime.tables import csv_lines
from signbridge.runtime.words import composed, some

_HEADER = ["class", "answer"]


def read_words(path: str) -> dict[str, str]:
    """Read the answer of each class from a CSV with the columns ``class,answer``.

    Args:
        path: the CSV file (UTF-8).

    Raises:
        ModelError: it cannot be read, lacks a column, or has a class without an answer, twice, or
            two classes with one answer.
    """
    given: dict[str, str] = {}
    try:
        lines = list(csv_lines(read_text(path)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelError(
            f"The answers file {path} cannot be read as CSV in UTF-8 ({reason}): give one with the "
            "columns class,answer."
        ) from error
    if not lines or [cell.strip() for cell in lines[0][1]] != _HEADER:
        raise ModelError(f"{path} has no header with the columns class,answer: add it as line 1.")
    for number, row in lines[1:]:
        if not row:
            continue
        name, answer = (composed(cell).strip() for cell in [*row, "", ""][:2])
        if len(row) != len(_HEADER) or not name or not answer:
            raise ModelError(
                f"{path}, line {number}: write a class and its answer, both not empty."
            )
        if name in given:
            raise ModelError(f"{path}, line {number}: class {name!r} stands there twice: keep one.")
        if answer in given.values():
            other = next(key for key, value in given.items() if value == answer)
            raise ModelError(
                f"{path}, line {number}: the classes {other!r} and {name!r} have the same answer "
                f"{answer!r}: give each its own."
            )
        given[name] = answer
    return given


def words_of(path: str, class_names: Sequence[str], *, selected: bool = False) -> list[str]:
    """Return the answer of every class, in the order of the labels.

    Args:
        path: the CSV file.
        class_names: the classes.
        selected: whether they are some of those that there are, so that the file may know others.

    Raises:
        ModelError: as of :func:`read_words`, and for a class that the file lacks or does not know.
    """
    given = read_words(path)
    lacking = [repr(name) for name in class_names if composed(name) not in given]
    if lacking:
        raise ModelError(f"{path} has no answer for class {some(lacking)}: add a line for each.")
    known = {composed(name) for name in class_names}
    unknown = [repr(name) for name in given if name not in known]
    if unknown and not selected:
        raise ModelError(
            f"{path} has an answer for class {some(unknown)}, which the images do not have: they "
            f"have {some([repr(name) for name in class_names], 10)}."
        )
    return [given[composed(name)] for name in class_names]
