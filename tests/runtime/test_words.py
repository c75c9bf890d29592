import pytest

from signbridge.runtime.words import counted, duration, size


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
