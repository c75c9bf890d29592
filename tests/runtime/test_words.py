import pytest

from signbridge.runtime.words import counted, duration, listed, size, some


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (counted(0, "image"), "0 images"),
        (counted(1, "image"), "1 image"),
        (counted(1204, "image"), "1,204 images"),
        (counted(2, "class", "classes"), "2 classes"),
        (size(0), "0 bytes"),
        (size(1), "1 byte"),
        (size(999), "999 bytes"),
        (size(1000), "1.0 kB"),
        (size(9_949), "9.9 kB"),
        (size(52_400), "52 kB"),
        (size(999_600), "1.0 MB"),
        (size(75e9), "75 GB"),
        (size(3.2e15), "3,200 TB"),
        (duration(0.04), "0.0 s"),
        (duration(9.96), "10 s"),
        (duration(99), "99 s"),
        (duration(100), "2 min"),
        (duration(5400), "90 min"),
        (duration(5990), "1.7 h"),
    ],
)
def test_numbers_are_written_as_people_write_them(made, text):
    assert made == text


def test_lists():
    assert [listed(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        *("", "a", "a and b", "a, b and c")
    ]
    assert listed(["a", "b"], "or") == "a or b"
    assert some(["a", "b", "c"]) == "a, b, c"
    assert some([str(number) for number in range(1_234)], most=2) == "0, 1 and 1,232 more"
