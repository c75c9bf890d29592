"""What may be written to an output file: judged before the work, and by what is there."""

from __future__ import annotations

import os
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG

from signbridge.errors import StoreError
from signbridge.runtime.files import try_to_write
from signbridge.store import files, hdf
from signbridge.store.opening import open_reading
from signbridge.store.parts import parts_folder
from signbridge.store.schema import FORMAT

_HDF5 = b"\x89HDF\r\n\x1a\n"
_HEAD = 1 << 20


def check_output(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Refuse an output that could not be written in the end, or that is not ours to replace.

    It takes milliseconds, so it comes before what takes hours. What is there and is not to be
    overwritten is left to who continues it, which may need to write nothing.

    Args:
        path: The store to make.
        overwrite: Whether a store that is there will be replaced.

    Raises:
        StoreError: If ``path`` is a folder, a link, no regular file, or, to be overwritten, no
            store; or if no file can be made there.
    """
    path = Path(path)
    with files.clear_errors(path):
        there = refuse_what_is_no_store(path, overwrite=overwrite)
        if there and not overwrite:
            return
        try_to_write(path)
        try_to_write(parts_folder(path) / "shard-00000.json")


def refuse_what_is_no_store(path: Path, *, overwrite: bool) -> bool:
    """Refuse an output file that must not be replaced by a store.

    Args:
        path: The store to make.
        overwrite: Whether what is there will be replaced; only then need it be a store.

    Returns:
        Whether there is a regular file, or a link to one.

    Raises:
        StoreError: As :func:`check_output`, of what is there.
        OSError: If the system does not let us look.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if S_ISLNK(mode):
        if path.is_file() and not overwrite:
            return True
        refuse_link(path)
    if S_ISDIR(mode):
        raise StoreError(f"{path} is a folder: give the name of a file for the store.")
    if not S_ISREG(mode):
        raise StoreError(f"{path} is no regular file, so no store replaces it: give another file.")
    if overwrite and not is_store(path):
        raise StoreError(
            f"{path} is not an activation store, so --overwrite does not replace it: give another "
            "output file, or remove that one yourself."
        )
    return True


def refuse_link(path: Path) -> None:
    """Refuse to put a store in the place of a symbolic link.

    Raises:
        StoreError: If ``path`` is one.
    """
    if path.is_symlink():
        raise StoreError(
            f"{path} is a link to {path.readlink()} and would be replaced by a file: give the path "
            "that it leads to, or remove the link."
        )


def is_store(path: Path) -> bool:
    """Whether a regular file is recognisably an activation store, also one that is damaged."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head.startswith(_HDF5):
        return False
    try:
        with open_reading(path) as h5:
            return bool(h5.attrs["format"] == FORMAT)
    except hdf.DAMAGE:  # cut off, say, so that only its bytes tell
        return FORMAT.encode() in head
