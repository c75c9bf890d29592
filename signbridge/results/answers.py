"""Whether an answer names a class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from signbridge.store import Store

__all__ = ["class_words", "names_class", "normalise"]


def normalise(answer: str) -> str:
    """An answer without case, outer punctuation and repeated space: what counts as the same."""
    return re.sub(r"\s+", " ", answer).strip(" .,:;!?\"'`*").casefold()


def names_class(answer: str, class_name: str) -> bool:
    """Whether an answer names a class.

    A name of several characters has to occur as a whole word. A single letter also occurs as an
    article or a numeral ("a fist", "I see"), so it counts only as the whole answer, after the word
    "letter" or "sign", or in quotation marks.

    Args:
        answer: the generated answer.
        class_name: the class.
    """
    text = normalise(answer)
    name = normalise(class_name)
    if not name:
        return False
    if text == name:
        return True
    word = rf"(?<!\w){re.escape(name)}(?!\w)"
    if len(name) > 1:
        return re.search(word, text) is not None
    quote = "[\"'`*\u2018\u2019\u201c\u201d]"
    whole = answer.casefold()  # with the marks at its ends
    return re.search(rf"(?:letter|sign)\s+{quote}*{word}|{quote}{word}{quote}", whole) is not None


def class_words(store: Store) -> Sequence[str] | None:
    """What stands for each class in an answer, where extraction was told; else None."""
    words = store.provenance.get("answers")
    return words if isinstance(words, list) and len(words) == len(store.class_names) else None
