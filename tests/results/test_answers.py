import pytest

from signbridge.results.answers import names_class, normalise


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


def test_the_same_answer_is_the_same_however_it_is_written():
    assert normalise('  "Thumbs   Up!" ') == "thumbs up"
