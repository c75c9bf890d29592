"""Files that are either whole or absent: atomic replacement, fsync, and errors in one sentence."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from signbridge.errors import StoreError
from signbridge.runtime.files import fsync_folder, host_name, publish, refusal, temporary_name
from signbridge.runtime.words import size

_TEMPORARY = re.compile(r"\.tmp-(?P<host>[^-]*)-(?P<pid>\d+)-[0-9a-f]+\Z")
# Left free when space is checked: metadata of the file system and of other programs.
SPACE_RESERVE = 16 << 20


def remove_stale_temporaries(folder: Path, prefix: str, *, everyone: bool = False) -> None:
    """Remove temporary files that a killed process left in ``folder``.

    Files of live processes on this machine and files of other machines stay, since several workers
    may share the folder; with ``everyone`` they go too.
    """
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            match = _TEMPORARY.search(path.name)
            if not match or not path.name.startswith(prefix):
                continue
            if everyone or (match["host"] == host_name() and not _is_alive(int(match["pid"]))):
                with contextlib.suppress(OSError):
                    path.unlink()


def _is_alive(pid: int) -> bool:
    if pid == os.getpid():
        return False  # our own, left by an earlier error in this process
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that none of them can vanish with the power."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    fsync_folder(folder.parent)


def replace(temporary: Path, path: Path) -> None:
    """Rename a finished, fsynced file into place, durably."""
    temporary.replace(path)
    fsync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that ``path`` holds either its old content or all of the new."""
    temporary = temporary_name(path)
    data = (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
    try:
        temporary.write_bytes(data)
        publish(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def let_go(file: int, start: int = 0, size: int = 0) -> None:
    """Tell the system that a range of an open file is not needed in memory, where it listens.

    Linux begins to write out what of it is not on the disk yet, without waiting, and forgets what
    is, so that it is read from the disk again.

    Args:
        file: The file's descriptor.
        start: First byte of the range.
        size: Its bytes; 0 for all to the end.
    """
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):  # advice, no more
            os.posix_fadvise(file, start, size, os.POSIX_FADV_DONTNEED)


def free_bytes(path: Path) -> int:
    """Free space on the file system that would hold ``path``, whose folder may not exist yet."""
    folder = path
    while not folder.exists():
        if folder.parent == folder:
            break
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_space(path: Path, needed: int) -> None:
    """Refuse to start what cannot be finished.

    Raises:
        StoreError: If the file system of ``path`` has less than ``needed`` bytes free.
    """
    free = free_bytes(path)
    if free < needed + SPACE_RESERVE:
        raise StoreError(
            f"There is not enough room for {path}: {size(needed + SPACE_RESERVE)} more "
            f"are needed and {size(free)} are free, so free some space or choose another "
            "folder."
        )


def os_error(error: OSError, path: Path, *, finished: str = "") -> StoreError:
    """Say in one sentence what the system refused, and what to do."""
    return StoreError(f"{refusal(error, path)}{f'; {finished}' if finished else ''}.")


@contextlib.contextmanager
def clear_errors(path: Path, *, finished: str = "") -> Iterator[None]:
    """Turn an ``OSError`` inside the block into a :class:`StoreError` about ``path``."""
    try:
        yield
    except OSError as error:
        raise os_error(error, path, finished=finished) from error
