"""What the model says, beside what its layers know: the sentence and the commonest answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from signbridge.report.figures import style
from signbridge.results.features import ZERO_SHOT

if TYPE_CHECKING:
    from signbridge.results.results import AnswerCount, Results

__all__ = ["ClassAnswers", "class_answers", "naming_sentence", "said_sentence"]

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


def said_sentence(results: Results) -> str:
    """The sentence that the bits support; empty where nothing was said."""
    said = results.summary.said
    return "" if said is None else said.sentence


def naming_sentence(results: Results) -> str:
    """How often the answer names the class; the forced choice too where no score holds it."""
    parts: list[str] = []
    said = results.summary.said
    if said is None:
        return ""
    if said.text is not None:
        share = style.format_value("accuracy", said.text.names_class)
        parts.append(f"The answer names the class for {share} of the images")
        if said.text.distinct_answers is not None:
            parts[-1] += f" ({said.text.distinct_answers:,} different answers)"
    if (
        said.forced_choice is not None
        and "accuracy" in said.forced_choice.zero_shot
        and results.score(ZERO_SHOT, None, "accuracy") is None
    ):
        value = style.format_value("accuracy", said.forced_choice.zero_shot["accuracy"].value)
        parts.append(f"the forced choice without a probe is right for {value}")
    if not parts:
        return ""
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


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
