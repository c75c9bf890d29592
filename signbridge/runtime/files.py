"""Files that are either whole or absent and survive a loss of power, and their checksums."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import socket
from pathlib import Path
from typing import Any

_READ_SIZE = 1 << 18  # stays in the cache of the processor, which is twice as fast

_LONGEST_SHOWN = 300
# How HDF5, or a process that loads data, says an error of the system whose number is lost.
_IN_WORDS = re.compile(r"\berrno (?:= )?(\d+)", re.IGNORECASE)


def replace_file(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Args:
        path: the file.
        content: what it is to hold.
        durable: whether the same is to hold after a loss of power, which takes some milliseconds.

    Raises:
        OSError: the system refuses; it names ``path``.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        if durable:
            publish(temporary, path)
        else:
            temporary.replace(path)
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # not the temporary one, and not none
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def publish(temporary: Path, path: Path) -> None:
    """Give a finished file its name, after what it holds is on the disk.

    Args:
        temporary: the file as it was written, in the folder of ``path``.
        path: the name.
    """
    with temporary.open("r+b") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Make renames in ``folder`` durable, where the platform can."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # some network file systems refuse it for folders
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    buffer = bytearray(_READ_SIZE)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            digest.update(view[:size])
    return digest.hexdigest()


def temporary_name(path: Path) -> Path:
    """A name beside ``path`` that no other process uses."""
    return path.with_name(f"{path.name}.tmp-{host_name()}-{os.getpid()}-{secrets.token_hex(4)}")


def host_name() -> str:
    """This machine's name, as it stands in the names of temporary files."""
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname()) or "host"


def try_to_write(path: Path) -> None:
    """Find out whether a file can be made, by making one beside it, with a longer name.

    Nothing is left behind. Folders that are missing are not made; that their names are not too long
    is checked.

    Args:
        path: the file that is to be made later.

    Raises:
        OSError: it cannot.
    """
    temporary = temporary_name(path.absolute())
    if len(os.fsencode(temporary)) >= _longest(temporary.anchor, "PC_PATH_MAX", 4096):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(path))
    folder = temporary.parent
    missing = [temporary.name]
    while not folder.exists():
        missing.append(folder.name)
        folder = folder.parent
    longest = _longest(folder, "PC_NAME_MAX", 255)
    if any(len(os.fsencode(name)) > longest for name in missing):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(path))
    if len(missing) > 1:
        temporary = temporary_name(folder / "signbridge")
    try:
        temporary.write_bytes(b"x")
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _longest(folder: Path | str, limit: str, usual: int) -> int:
    try:
        return os.pathconf(folder, limit)
    except (OSError, ValueError, AttributeError):  # unknown here, or Windows
        return usual


def error_number(error: BaseException) -> int | None:
    """The system's number of an error, also where a library has put it into words."""
    number = getattr(error, "errno", None)
    if isinstance(number, int):
        return number
    found = _IN_WORDS.search(str(error))
    return int(found[1]) if found else None


def refusal(error: BaseException, path: Path | str | None = None) -> str:
    """Say what the system refused and what to do: a sentence without its full stop.

    Args:
        error: the system's error, or a library's that names its number.
        path: what was to be read or written; the error's own file by default.
    """
    code = error_number(error)
    named = path if path is not None else getattr(error, "filename", None)
    if named is None:
        said = _refusal("what was to be written", code, error)
        return said[0].upper() + said[1:]
    where = str(named)
    if len(where) > _LONGEST_SHOWN:
        where = f"{where[:120]} ... {where[-120:]}"
    return _refusal(where, code, error)


def _refusal(where: str, code: int | None, error: BaseException) -> str:
    if code == errno.ENOSPC:
        return (
            f"The disk that holds {where} is full (No space left on device): free some space and "
            "run the command again"
        )
    if code == errno.EDQUOT:
        return f"Your disk quota for {where} is used up: free some space and run the command again"
    if code == errno.EFBIG:
        return (
            f"{where} would be larger than a file may be here (File too large): raise the limit "
            "('ulimit -f' shows it) or choose another file system"
        )
    if code == errno.EROFS:
        return f"{where} lies on a read-only file system: choose a folder that can be written"
    if code in (errno.EACCES, errno.EPERM):
        return f"{where} cannot be written or read for lack of permission: change it or its folder"
    # Where Python finds no folder for temporary files it names none, and says more in words.
    absent = code == errno.ENOENT and getattr(error, "filename", None) is not None
    if absent or code in (errno.ESTALE, errno.ENODEV, errno.ENXIO):
        return f"{where} or its folder has vanished: bring it back or run the command again"
    if code == errno.ENAMETOOLONG:
        return f"The name of {where} is too long for its file system: choose a shorter one"
    if code in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
        return f"{where} cannot be used because a file and a folder are mixed up in its path: check"
    if code in (errno.EMFILE, errno.ENFILE):
        return (
            f"{where} cannot be opened, since too many files are open: raise the limit "
            "('ulimit -n' shows it) or close other programs"
        )
    told = getattr(error, "strerror", None)  # which may say more than the number
    reason = told or (os.strerror(code) if code else str(error) or type(error).__name__)
    return f"{where} cannot be written or read ({reason}): check the disk and run it again"


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and plain characters: equal values, equal text."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def sha256_text(text: str) -> str:
    """SHA-256 of a text's UTF-8 bytes, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
