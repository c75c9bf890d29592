"""Files that a user names or a stranger has made: read with a bound, and never a device."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

LARGEST = 1 << 28
"""Bytes of a text file that are read; a split file of ten million images has fewer."""


def read_bytes(path: str | os.PathLike[str], largest: int = LARGEST) -> bytes:
    """Read a regular file whole.

    Args:
        path: the file.
        largest: its bytes may not be more.

    Raises:
        OSError: it is a folder, a pipe or a device, too large, or the system refuses; ``strerror``
            says so in words that fit "cannot be read (...)".
    """
    if Path(path).is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    # A pipe that nobody writes to would never open otherwise.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise _refused(path, "it is a pipe or a device")
        # A size that is told may be wrong, so what comes after it is asked for too.
        size = found.st_size
        content = file.read(size + 1) if size <= largest else b""
        while size < len(content) <= largest and (more := file.read(1 << 20)):
            content += more
        if max(size, len(content)) > largest:
            size = max(size, len(content))
            raise _refused(path, f"it has {size:,} bytes and {largest:,} are the most")
        return content


def read_text(
    path: str | os.PathLike[str], largest: int = LARGEST, encoding: str = "utf-8-sig"
) -> str:
    """Read a regular text file whole; its line ends stay as they are.

    Args:
        path: the file.
        largest: its bytes may not be more.
        encoding: by default UTF-8, with or without a mark at the beginning.

    Raises:
        OSError: as :func:`read_bytes`.
        UnicodeDecodeError: it is no such text.
    """
    return read_bytes(path, largest).decode(encoding)


def read_json(path: str | os.PathLike[str], largest: int = LARGEST) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        largest: its bytes may not be more.

    Raises:
        OSError: as :func:`read_bytes`.
        ValueError: it is no JSON in UTF-8, or nests too deep.
    """
    return parse_json(read_text(path, largest))


def parse_json(text: str) -> Any:
    """Read JSON text.

    Raises:
        ValueError: it is no JSON, or nests too deep.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it nests too deep") from None


def _refused(path: str | os.PathLike[str], reason: str) -> OSError:
    return OSError(errno.EINVAL, reason, str(Path(path)))
