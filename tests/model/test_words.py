"""The words that stand for the classes in answers."""

import pytest

from signbridge.errors import ModelError
from signbridge.model.words import words_of


def test_the_words_come_in_the_order_of_the_classes(tmp_path):
    file = tmp_path / "words.csv"
    file.write_text('class,answer\nb,"B, the letter"\n0, zero \n', encoding="utf-8-sig")
    assert words_of(str(file), ["0", "b"]) == ["zero", "B, the letter"]
    assert words_of(str(file), ["0"], selected=True) == ["zero"]  # of a file for all classes


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("class,answer\na,A\n", r"no answer for class 'b'"),
        ("class,answer\na,A\nb,B\nc,C\n", r"for class 'c', which the images do not have"),
        ("class,answer\na,A\na,B\n", r"line 3: class 'a' stands there twice"),
        ("class,answer\na,A\nb,A\n", r"line 3: the classes 'a' and 'b' have the same answer"),
        ("class,answer\na,\n", r"line 2: write a class and its answer"),
        ("class,answer\na\n", r"line 2: write a class and its answer"),
        ("class,answer\na,A,x\n", r"line 2: write a class and its answer"),
        ("answer,class\nA,a\n", r"no header with the columns class,answer"),
        ("", r"no header with the columns class,answer"),
        (b"class,answer\na,\xff\n", r"cannot be read as CSV"),
        (None, r"cannot be read as CSV"),
    ],
)
def test_a_file_of_words_that_cannot_be_used_is_one_sentence(tmp_path, content, says):
    file = tmp_path / "words.csv"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ModelError, match=says):
        words_of(str(file), ["a", "b"])


def test_a_device_is_no_file_of_words(tmp_path):
    for path in (tmp_path, "/dev/zero"):
        with pytest.raises(ModelError, match="cannot be read"):
            words_of(str(path), ["a"])
