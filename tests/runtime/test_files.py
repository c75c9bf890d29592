import errno
import os
import re

import pytest

from signbridge.runtime.files import error_number, refusal, replace_file, try_to_write

# fmt: off
CODES = (
    "ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS", "ESTALE",
    "EACCES", "EPERM", "EMFILE", "ENFILE", "ENOENT", "ENODEV",
    "ENXIO", "ENOTDIR", "EISDIR", "EEXIST", "ENAMETOOLONG", "ETIMEDOUT",
    "EBUSY", "ENOMEM", "ENOTCONN", "EHOSTDOWN", "ELOOP", "EREMOTEIO",
)
# fmt: on


@pytest.mark.parametrize("name", CODES)
def test_whatever_the_system_refuses_is_one_sentence(name):
    code = getattr(errno, name)
    for error in (
        OSError(code, os.strerror(code)),
        OSError(code, os.strerror(code), "some/file"),
        OSError(f"Can't write data (file write failed: errno = {code}, error message = 'x', ...)"),
        RuntimeError(f"Unable to flush file (errno = {code})"),
        OSError(f"Caught OSError in DataLoader worker process 0.\n...\nOSError: [Errno {code}] x"),
    ):
        assert error_number(error) == code
        said = refusal(error)
        assert said[0].isupper() or said.startswith("some/file")
        assert re.search(": (free|raise|choose|change|bring|check)", said)
        assert "\n" not in said
        assert "my/store.h5" in refusal(error, "my/store.h5")


def test_what_no_system_has_refused_has_no_number():
    for error in (OSError("Unable to open file (truncated file)"), RuntimeError("x"), ValueError()):
        assert error_number(error) is None


def test_a_long_path_is_not_told_whole():
    said = refusal(OSError(errno.ENAMETOOLONG, "x"), "d/" * 2000)
    assert len(said) < 400


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_file_that_cannot_be_replaced_stays_and_is_named(tmp_path, monkeypatch, call):
    path = tmp_path / "scores.csv"
    path.write_text("old")

    def fails(*_args, **_kwargs):
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    if call == "write":
        monkeypatch.setattr("pathlib.Path.write_bytes", fails)
    else:
        monkeypatch.setattr(os, call, fails)
        monkeypatch.setattr(f"pathlib.os.{call}", fails)
    with pytest.raises(OSError, match="scores") as caught:
        replace_file(path, b"new")
    assert caught.value.filename == str(path)
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["scores.csv"]


def test_trying_leaves_nothing(tmp_path):
    (tmp_path / "a.h5").write_text("old")
    try_to_write(tmp_path / "a.h5")
    try_to_write(tmp_path / "new" / "folder" / "a.h5")
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]
    assert (tmp_path / "a.h5").read_text() == "old"
