"""The folder of one demo: what visitors give lies there alone, and goes when the demo ends."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any

from filelock import FileLock, Timeout

PREFIX = "signbridge-demo-"
UPLOADS = "uploads"
_LOCK = "lock"
# Where Gradio keeps uploads and copies of examples; by default it shares both with other pages.
_GRADIO_FOLDERS = ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE")


@contextmanager
def demo_folder() -> Iterator[Path]:
    """Make a folder for this demo, and remove it with all that is in it at the end.

    What is uploaded goes into its ``uploads``, as long as the block runs. A demo that was killed
    leaves its folder behind; the next one removes it, for nobody holds its lock any longer.
    """
    temporary = Path(tempfile.gettempdir()).resolve()
    remove_abandoned(temporary)
    # A visitor's upload that ends just now may put a file where all was removed.
    with tempfile.TemporaryDirectory(
        prefix=PREFIX, dir=temporary, ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        lock = FileLock(folder / _LOCK)
        with suppress(OSError, NotImplementedError):  # no locks there: then nobody removes it
            lock.acquire()
        uploads = folder / UPLOADS
        uploads.mkdir()
        before = {key: os.environ.get(key) for key in _GRADIO_FOLDERS}
        os.environ.update(dict.fromkeys(_GRADIO_FOLDERS, str(uploads)))
        try:
            yield folder
        finally:
            for key, value in before.items():
                if value is None:
                    del os.environ[key]
                else:
                    os.environ[key] = value
            lock.release()


def remove_abandoned(temporary: Path) -> None:
    """Remove the folders of demos of this user that were killed.

    Args:
        temporary: where they lie.
    """
    for folder in temporary.glob(f"{PREFIX}*"):
        with suppress(OSError, NotImplementedError, Timeout):
            made, lock_made = folder.lstat(), (folder / _LOCK).lstat()
            if not S_ISDIR(made.st_mode) or not S_ISREG(lock_made.st_mode):
                continue
            if os.name != "nt" and {made.st_uid, lock_made.st_uid} != {os.getuid()}:
                continue
            with FileLock(folder / _LOCK, blocking=False):
                shutil.rmtree(folder, ignore_errors=True)


def own_upload(path: Any, uploads: Path) -> Path | None:
    """Return where a file that was uploaded to this page lies, or None if it was not.

    Args:
        path: what a visitor says of the file, of any type.
        uploads: the folder of this page's uploads.
    """
    if not isinstance(path, str):
        return None
    try:
        found = Path(path).resolve(strict=True)
        is_file = S_ISREG(found.stat().st_mode)
    except (OSError, ValueError, RuntimeError):
        return None
    return found if is_file and found.is_relative_to(uploads.resolve()) else None
