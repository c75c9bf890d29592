"""Verifying a store, in a process of its own.

A flipped bit in HDF5's own structures can make the library crash or loop, which nothing inside the
same process could report. So the checks of :mod:`signbridge.store.check` run in a child
(``python -m signbridge.store FILE``), whose death or silence is a finding like any other.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

from signbridge.errors import StoreError, first_line
from signbridge.runtime.progress import Progress
from signbridge.store.check import (
    foreign_problem,
    full_problems,
    identity_problem,
)
from signbridge.store.files import os_error
from signbridge.store.hdf import DAMAGE, DamagedFileError, open_hdf5
from signbridge.store.rules import Problem
from signbridge.store.schema import FORMAT

_MAX_PROBLEMS = 1000
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Where the root attributes lie, as far as can be told when HDF5 cannot open a file.
_HEAD = 1 << 20


def check_store(path: Path, progress: Progress | None = None) -> list[Problem]:
    """Check a store in this process; what :func:`verify_store` runs in its child.

    Args:
        path: The store's file, which exists.
        progress: Called with blocks done and blocks to do.

    Returns:
        All that is wrong with it, at most 1,000 findings.

    Raises:
        StoreError: If it is no store, or one of a newer version, or may not be read.
    """
    problems: list[Problem] = []
    try:
        h5 = open_hdf5(path)
    except DamagedFileError as error:
        # What HDF5 cannot even open is a damaged store if it still has the marks of one.
        if not _has_marks_of_a_store(path):
            raise
        return [Problem("", str(error))]
    try:
        with h5:
            foreign = foreign_problem(h5, str(path))
            if foreign:
                raise StoreError(foreign)
            identity = identity_problem(h5, str(path))
            if identity:
                return [Problem("", identity)]
            for problem in full_problems(h5, path, progress):
                problems.append(problem)
                if len(problems) >= _MAX_PROBLEMS:
                    problems.append(Problem("", "there are more problems, not listed"))
                    break
    except DAMAGE as error:
        problems.append(Problem(str(path), f"cannot be read ({first_line(error)})"))
    return problems


def _has_marks_of_a_store(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    signature = sum(a == b for a, b in zip(head, _SIGNATURE, strict=False))
    return signature >= 6 and FORMAT.encode() in head


def verify_store(
    path: str | os.PathLike[str], progress: Progress | None = None, stall_timeout: float = 600
) -> list[Problem]:
    """Check everything in a store: every value, attribute, name and size.

    Args:
        path: The store's file.
        progress: Called with blocks done and blocks to do.
        stall_timeout: Seconds without any progress after which the file counts as damaged.

    Returns:
        All that is wrong; empty for a whole store.

    Raises:
        StoreError: If there is no such file, it is no store, or one of a newer version, or may not
            be read, or no process can be started.
    """
    path = Path(path)
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        open_hdf5(path)  # raises what fits: unfinished, not there, a folder
        raise os_error(error, path) from error
    environment = dict(os.environ)
    package_parent = str(Path(__file__).resolve().parents[2])
    before = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = package_parent + (os.pathsep + before if before else "")
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", "signbridge.store", str(path.absolute())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
    except OSError as error:
        raise StoreError(f"No process could be started to verify {path} ({error}).") from error
    try:
        return _listen(child, path, progress, stall_timeout)
    finally:
        child.kill()
        child.wait()
        if child.stdout:
            child.stdout.close()


def _listen(
    child: subprocess.Popen[bytes], path: Path, progress: Progress | None, stall_timeout: float
) -> list[Problem]:
    assert child.stdout is not None
    lines: queue.Queue[bytes | None] = queue.Queue()
    threading.Thread(target=_pump, args=(child.stdout, lines), daemon=True).start()
    problems: list[Problem] = []
    while True:
        try:
            line = lines.get(timeout=stall_timeout)
        except queue.Empty:
            return [*problems, Problem(str(path), "reading it never ends, so it is damaged")]
        if line is None:
            code = child.wait()
            what = f"reading it ended the process (exit status {code}), so it is damaged"
            return [*problems, Problem(str(path), what)]
        try:
            message = json.loads(line)
        except ValueError:
            continue
        if "refused" in message:
            raise StoreError(message["refused"])
        if "progress" in message and progress:
            progress(*message["progress"])
        problems += [Problem(*p) for p in message.get("problems", [])]
        if message.get("done"):
            return problems


def _pump(stream: IO[bytes], lines: queue.Queue[bytes | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)
