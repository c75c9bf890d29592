"""The commonest answers of every class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from signbridge.report.figures import style

if TYPE_CHECKING:
    from signbridge.results.results import AnswerCount, Results

__all__ = ["ClassAnswers", "class_answers"]

_SHOWN = 3
_LONGEST = 40


@dataclass(frozen=True)
class ClassAnswers:
    """The commonest answers to the images of one class.

    Attributes:
        class_name: the class.
        answers: pairs of an answer and its share in per cent as text, the commonest first.
        names_class: share of answers that name the class, as text.
    """

    class_name: str
    answers: tuple[tuple[str, str], ...]
    names_class: str


def class_answers(results: Results) -> list[ClassAnswers]:
    """The commonest answers of every class; empty where nothing was said."""
    found: dict[str, list[AnswerCount]] = {}
    for row in results.answers:
        found.setdefault(row.class_name, []).append(row)
    return [
        ClassAnswers(
            name,
            tuple(
                (
                    style.short(row.answer or "(nothing)", _LONGEST),
                    style.format_value("accuracy", row.share),
                )
                for row in answers[:_SHOWN]
            ),
            style.format_value("accuracy", sum(row.share for row in answers if row.names_class)),
        )
        for name, answers in found.items()
    ]
