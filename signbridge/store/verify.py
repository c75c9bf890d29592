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
from collections.abc import Callable
from pathlib import Path
from typing import IO

from signbridge.errors import StoreError
from signbridge.store.check import DAMAGE, Problem, first_line, full_problems, identity_problem
from signbridge.store.rows import open_hdf5

Progress = Callable[[int, int], None]
_MAX_PROBLEMS = 1000


def check_store(path: Path, progress: Progress | None = None) -> list[Problem]:
    """Check a store in this process; what :func:`verify_store` runs in its child.

    Args:
        path: The store's file, which exists.
        progress: Called with blocks done and blocks to do.

    Returns:
        All that is wrong with it, at most 1,000 findings.
    """
    problems: list[Problem] = []
    try:
        with open_hdf5(path) as h5:
            identity = identity_problem(h5, str(path))
            if identity:
                return [Problem("", identity)]
            for problem in full_problems(h5, path, progress):
                problems.append(problem)
                if len(problems) >= _MAX_PROBLEMS:
                    problems.append(Problem("", "there are more problems, not listed"))
                    break
    except StoreError as error:
        problems.append(Problem("", str(error)))
    except DAMAGE as error:
        problems.append(Problem(str(path), f"cannot be read ({first_line(error)})"))
    return problems


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
        StoreError: If there is no file, or no process can be started.
    """
    path = Path(path)
    if not path.exists():
        open_hdf5(path)  # raises what fits: unfinished, or not there
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
        if "progress" in message and progress:
            progress(*message["progress"])
        problems += [Problem(*p) for p in message.get("problems", [])]
        if message.get("done"):
            return problems


def _pump(stream: IO[bytes], lines: queue.Queue[bytes | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)
