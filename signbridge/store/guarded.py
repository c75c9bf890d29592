"""A file that HDF5 writes into, which turns a failing disk into an error instead of a crash."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from signbridge.store.files import let_go

Opener = Callable[[Path], Any]
_PAGE = 4096
# Written between two requests to the system to begin with its part.
_WRITE_OUT_BYTES = 4 << 20


def open_raw(path: Path) -> io.FileIO:
    """Create a file for unbuffered reading and writing."""
    return io.FileIO(path, "x+")


@dataclass
class _Unasked:
    """What was written since the disk was last asked to begin: how much, and between where."""

    size: int = 0
    low: int = sys.maxsize
    high: int = 0


class GuardedFile(io.RawIOBase):
    """A file for HDF5 to write into, which remembers the first error of the system below.

    The HDF5 library cannot be closed cleanly once a write has failed, and may end the process. So
    after an error (a full disk, a quota, a vanished device) this object keeps in memory what HDF5
    still writes, and gives it back when asked, while the library winds up. The writing code calls
    :meth:`raise_error` after every block, so that this is little.

    Args:
        path: File to create.
        opener: Opens ``path`` for unbuffered reading and writing; replaced in tests.
    """

    def __init__(self, path: Path, opener: Opener | None = None) -> None:
        super().__init__()
        self._file = (opener or open_raw)(path)
        self._position = 0
        self._end = 0
        self._unasked = _Unasked()
        self._pages: dict[int, bytearray] = {}  # written since the error
        self.error: OSError | None = None

    def readable(self) -> bool:
        """Whether it can be read (always)."""
        return True

    def writable(self) -> bool:
        """Whether it can be written (always)."""
        return True

    def seekable(self) -> bool:
        """Whether it can seek (always)."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._end}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` from the position; what is beyond the end reads as zeros."""
        view = memoryview(buffer).cast("B")
        if self.error is None:
            self._read_file(self._position, view)
        else:
            for page, low, high, offset in _pages(self._position, len(view)):
                view[offset : offset + high - low] = self._page(page)[low:high]
        self._position += len(view)
        return len(view)

    def write(self, data: Any) -> int:
        """Write all of ``data`` at the position, to memory once there was an error."""
        view = memoryview(data).cast("B")
        if self.error is None:
            try:
                self._file.seek(self._position)
                done = 0
                while done < len(view):
                    done += self._file.write(view[done:]) or 0
                self._begin_writing_out(self._position, self._position + done)
            except OSError as error:
                self.error = error
        if self.error is not None:
            for page, low, high, offset in _pages(self._position, len(view)):
                self._page(page)[low:high] = view[offset : offset + high - low]
        self._position += len(view)
        self._end = max(self._end, self._position)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the file's length."""
        size = self._position if size is None else size
        if self.error is None:
            try:
                self._file.truncate(size)
            except OSError as error:
                self.error = error
        self._end = size
        return size

    def flush(self) -> None:
        """Nothing is buffered here."""

    def write_blocks(self, blocks: Iterable[tuple[int, memoryview]]) -> str:
        """Write blocks of bytes that HDF5 has left room for, and hash the whole file on the way.

        A block is hashed while the processor still has it in its cache.

        Args:
            blocks: Offsets, ascending, and bytes, which may change once the next is asked for.

        Returns:
            SHA-256 of the file, in hexadecimal.

        Raises:
            OSError: If the system refuses.
        """
        self.raise_error()
        digest = hashlib.sha256()
        position = 0
        for offset, block in blocks:
            digest.update(self._read_range(position, offset))
            digest.update(block)
            self.seek(offset)
            self.write(block)
            self.raise_error()
            position = offset + len(block)
        digest.update(self._read_range(position, self._end))
        return digest.hexdigest()

    def _begin_writing_out(self, start: int, stop: int) -> None:
        """Let the disk begin with what was written, rather than with all of it at the fsync."""
        unasked = self._unasked
        unasked.size += stop - start
        unasked.low, unasked.high = min(unasked.low, start), max(unasked.high, stop)
        if unasked.size < _WRITE_OUT_BYTES:
            return
        self._unasked = _Unasked()
        let_go(self._file.fileno(), unasked.low, unasked.high - unasked.low)

    def _read_range(self, start: int, stop: int) -> bytearray:
        data = bytearray(max(0, stop - start))
        self._read_file(start, memoryview(data))
        return data

    def raise_error(self) -> None:
        """Raise the first error met, if there was one.

        Raises:
            OSError: That error.
        """
        if self.error is not None:
            raise self.error

    def sync(self) -> None:
        """Fsync, and let go of what was written, so that the disk is read next.

        Raises:
            OSError: The first error met, if there was one.
        """
        self.raise_error()
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            self.error = error
            raise
        let_go(self._file.fileno())

    def finish(self) -> None:
        """Fsync and close.

        Raises:
            OSError: The first error met, if there was one.
        """
        try:
            self.raise_error()
            os.fsync(self._file.fileno())
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close without fsync and without raising."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._pages.clear()
        self.close()

    def _read_file(self, position: int, view: memoryview) -> None:
        done = 0
        self._file.seek(position)
        while done < len(view):
            size = self._file.readinto(view[done:])
            if not size:
                view[done:] = bytes(len(view) - done)
                break
            done += size

    def _page(self, number: int) -> bytearray:
        if number not in self._pages:
            page = bytearray(_PAGE)
            with contextlib.suppress(OSError):
                self._read_file(number * _PAGE, memoryview(page))
            self._pages[number] = page
        return self._pages[number]


def _pages(position: int, size: int) -> list[tuple[int, int, int, int]]:
    """Cut a range into pages: ``(page, from, to, offset in the range)``."""
    pieces = []
    done = 0
    while done < size:
        page, low = divmod(position + done, _PAGE)
        high = min(_PAGE, low + size - done)
        pieces.append((page, low, high, done))
        done += high - low
    return pieces


@contextlib.contextmanager
def new_hdf5(target: Path, opener: Opener | None = None) -> Iterator[tuple[h5py.File, GuardedFile]]:
    """Write a new HDF5 file in the block, and fsync it at its end; on any error it is removed.

    Args:
        target: The file, which must not exist.
        opener: As of :class:`GuardedFile`.

    Raises:
        OSError: If the system refuses to write: that error, and not what HDF5 made of it.
    """
    file = GuardedFile(target, opener)
    try:
        try:
            with h5py.File(file, "w") as h5:
                yield h5, file
        except Exception:
            if file.error is not None:
                raise file.error from None
            raise
        file.finish()
    except BaseException:
        file.abandon()
        with contextlib.suppress(OSError):
            target.unlink()
        raise
