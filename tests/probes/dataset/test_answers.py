import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from signbridge.probes.dataset.answers import answer_words, count_answers, names_class, normalise


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


@pytest.mark.parametrize(
    ("answer", "name", "named"),
    [
        ("A", "A", True),
        (" a. ", "A", True),
        ("A fist", "A", False),
        ("I see a hand", "I", False),
        ("I see a hand", "A", False),
        ("The letter A", "A", True),
        ("the letter 'A' in ASL", "A", True),
        ('It is "B".', "B", True),
        ("the sign **C**", "C", True),
        ("the letter AB", "A", False),
        ("the letter B", "A", False),
        ("Peace sign", "peace", True),
        ("peaceful", "peace", False),
        ("seven", "Seven", True),
        ("", "A", False),
        ("anything", "", False),
        ("c++ or c", "c++", True),
    ],
)
def test_naming_a_class(answer, name, named):
    assert names_class(answer, name) is named


def test_the_same_answer_is_counted_once_however_it_is_written():
    assert normalise('  "Thumbs   Up!" ') == "thumbs up"
    counts = count_answers(
        ["Fist", "fist.", "A", "peace", "x"], np.array([0, 0, 0, 1, -1]), ["A", "B", "C"]
    )
    assert [(c.class_name, c.answer, c.count, c.names_class) for c in counts] == [
        ("A", "fist", 2, False),
        ("A", "a", 1, True),
        ("B", "peace", 1, False),
    ]
    assert counts[0].share == pytest.approx(2 / 3)
