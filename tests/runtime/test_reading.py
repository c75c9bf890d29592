"""Files that a user names: read with a bound, and no device."""

import os
from pathlib import Path

import pytest

from signbridge.runtime.reading import parse_json, read_bytes, read_json, read_text


def test_a_text_is_read_as_it_is(tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes(b"\xef\xbb\xbfa,b\r\n\xc3\xa9\n")
    assert read_bytes(file) == b"\xef\xbb\xbfa,b\r\n\xc3\xa9\n"
    assert read_text(file) == "a,b\r\né\n"
    assert read_bytes(file, largest=11) == file.read_bytes()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux has such files")
def test_a_file_that_does_not_tell_its_size_is_read_whole():
    assert "[stack]" in read_text("/proc/self/maps")
    with pytest.raises(OSError, match="and 100 are the most"):
        read_text("/proc/self/maps", largest=100)


@pytest.mark.skipif(os.name == "nt", reason="no such files there")
def test_what_never_ends_or_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/dev/zero")
    for path in ("/dev/zero", "/dev/null", "/dev/stdin", tmp_path / "fifo", tmp_path / "link"):
        with pytest.raises(OSError, match="it is a pipe or a device"):
            read_bytes(path)
    with pytest.raises(IsADirectoryError):
        read_bytes(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "none")


def test_a_file_is_read_as_far_as_the_bound(tmp_path):
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(1 << 40)  # holes: no disk holds it
    with pytest.raises(OSError, match="1,099,511,627,776 bytes and 268,435,456 are the most"):
        read_text(huge)
    (tmp_path / "some").write_bytes(b"12345")
    with pytest.raises(OSError, match="5 bytes and 4 are the most"):
        read_bytes(tmp_path / "some", largest=4)


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"a":' * 100_000, b"{", b"\xff", b"1" * 100_000]
)
def test_json_that_cannot_be_read_is_a_value_error(content, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError) as error:
        read_json(tmp_path / "a.json")
    assert str(error.value)


def test_json_is_json():
    assert parse_json('{"a": [1, null]}') == {"a": [1, None]}
