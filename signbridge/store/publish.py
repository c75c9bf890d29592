"""A whole store file: written under a temporary name, verified, and only then given its name."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from signbridge.errors import StoreError, first_line
from signbridge.store import files
from signbridge.store.check import DAMAGE, full_problems
from signbridge.store.final import Content, write_store_file
from signbridge.store.guarded import Opener
from signbridge.store.rows import open_hdf5
from signbridge.store.shards import shard_space
from signbridge.store.stages import Progress, StageProgress, stage


def publish_store(
    path: Path,
    content: Content,
    *,
    opener: Opener | None = None,
    progress: StageProgress | None = None,
    finished: str = "",
) -> None:
    """Write a store so that ``path`` is what it was before, or holds all of it, verified.

    Args:
        path: The store's file.
        content: What goes into it.
        opener: Opens the file to write; replaced in tests.
        progress: Told how far writing and verifying have come.
        finished: What an error of the system is to say of what was finished before.

    Raises:
        StoreError: If there is not enough room, the system refuses, the source finds its rows
            damaged, or the written file does not verify.
    """
    temporary = files.temporary_name(path)
    try:
        with files.clear_errors(path, finished=finished):
            if not content.shards:
                n_classes = len(content.samples.class_names)
                needed = shard_space(content.spec, len(content.samples), n_classes)
                files.check_space(path, needed)
            write_store_file(temporary, content, opener, stage(progress, "making the file"))
            _verify(temporary, path, stage(progress, "verifying the file"))
            files.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _verify(temporary: Path, path: Path, progress: Progress | None) -> None:
    """Check every value of a file just written, before it takes its place at ``path``."""
    try:
        with suppress(OSError), temporary.open("rb") as file:
            files.let_go(file.fileno())  # so that the disk is read, not what the system still holds
        with open_hdf5(temporary) as h5:
            problem: object = next(full_problems(h5, temporary, progress), None)
    except DAMAGE as error:
        problem = first_line(error)
    if problem is not None:
        raise StoreError(
            f"The file written for {path} does not verify ({problem}), so it was discarded: check "
            "disk and memory, then run the same command again."
        )
