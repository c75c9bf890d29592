from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from signbridge.probes.dataset.features import answer_words


def test_words_are_those_of_scikit_learn():
    answers = ["A fist.", "two fingers up", "Fist", "", "up, UP and away"]
    table, words = answer_words(answers)
    reference = CountVectorizer(binary=True, token_pattern=r"\w+").fit(answers)
    assert words == tuple(reference.get_feature_names_out())
    np.testing.assert_array_equal(table, reference.transform(answers).toarray())
    assert table.dtype == np.uint8


def test_only_the_commonest_words_are_kept():
    table, words = answer_words(["x y", "x z", "x y"], max_words=2)
    assert words == ("x", "y")
    assert table.tolist() == [[1, 1], [1, 0], [1, 1]]


@pytest.mark.parametrize("answers", [["", ""], ["...", "!"]])
def test_no_word_at_all_is_a_feature_that_tells_nothing(answers):
    table, words = answer_words(answers)
    assert words == ("",)
    assert table.tolist() == [[0], [0]]
