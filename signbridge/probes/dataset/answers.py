"""The model's own answers as features, and what they say in so many words.

Two features stand for what the model *says*, to be measured like any layer:

``text``
    which words the generated answer holds, 0 or 1 for each word;
``forced_choice``
    the log-probability of each class name as the whole answer.

A probe on them learns which answer goes with which class ("fist" may mean A, E, M, N, S or T), so
it credits the answer with everything that can be told from it, not only with naming the class.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from signbridge.results.results import AnswerCount

MAX_WORDS = 1000
"""Most words of the feature ``text``: the commonest, in alphabetical order."""


def normalise(answer: str) -> str:
    """An answer without case, outer punctuation and repeated space: what counts as the same."""
    return re.sub(r"\s+", " ", answer).strip(" .,:;!?\"'`*").casefold()


def answer_words(
    responses: Sequence[str], max_words: int = MAX_WORDS
) -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    """Which words each answer holds.

    The vocabulary is that of all answers: it knows no labels, so nothing leaks into a test part.

    Args:
        responses: the answers.
        max_words: most words to count, the commonest.

    Returns:
        0 or 1, shape (answers, words), and the words. Where no answer holds a word, one column of
        zeros for the word ``""``.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(
        binary=True, token_pattern=r"\w+", max_features=max_words, dtype=np.uint8
    )
    try:
        table = counter.fit_transform(responses)
    except ValueError:  # scikit-learn's way to say that there is no word at all
        return np.zeros((len(responses), 1), dtype=np.uint8), ("",)
    return np.asarray(table.toarray(), dtype=np.uint8), tuple(counter.get_feature_names_out())


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


def count_answers(
    responses: Sequence[str], labels: npt.NDArray[np.int64], class_names: Sequence[str]
) -> list[AnswerCount]:
    """Count the answers of every class, commonest first.

    Args:
        responses: the answers, one an image.
        labels: class indices, shape (images,); negative ones are left out.
        class_names: names by class index.
    """
    found: list[AnswerCount] = []
    for index, name in enumerate(class_names):
        rows = np.flatnonzero(np.asarray(labels) == index).tolist()
        answers = Counter(
            (normalise(responses[row]), names_class(responses[row], name)) for row in rows
        )
        for (answer, named), count in sorted(answers.items(), key=lambda item: (-item[1], item[0])):
            found.append(AnswerCount(name, answer, count, count / len(rows), named))
    return found
