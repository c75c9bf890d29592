"""Work that a stranger's file decides: done in a process of its own, which may not take much."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import psutil

from signbridge.errors import SignBridgeError, first_line
from signbridge.runtime.words import counted

Result = TypeVar("Result")

_WALL = 10  # a busy machine gives a process a share of its time


class FailedError(Exception):
    """The work failed, or took more than it may; the message says so in a few words."""


def bounded(work: Callable[[], Result], seconds: int, memory: int) -> Result:
    """Return what a function returns, which runs in a copy of this process on one thread.

    The copy is forked, as those that prepare images are. Where the system cannot do that safely,
    which is on all but Linux, the function runs here, without bounds.

    Args:
        work: the function; what it returns must be picklable.
        seconds: of processor time that it may take.
        memory: bytes that it may take besides what this process has.

    Raises:
        FailedError: whatever it raised, but for a ``SignBridgeError``, or it took more, or ended
            the process.
        SignBridgeError: that it raised.
    """
    if sys.platform != "linux":
        try:
            return work()
        except SignBridgeError:
            raise
        except Exception as error:
            raise FailedError(_words(error)) from error
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(work, theirs, seconds, memory))
    process.start()
    theirs.close()
    try:
        outcome = ours.recv() if ours.poll(_WALL * seconds) else None
    except EOFError:
        outcome = None
    finally:
        process.kill()
        process.join()
        ours.close()
    if outcome is None:
        raise FailedError(f"it takes more than {counted(seconds, 'second')}, or ends the process")
    result, error = outcome
    if isinstance(error, str):
        raise FailedError(error)
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def _run(work: Callable[[], Any], answer: Connection, seconds: int, memory: int) -> None:
    import resource  # not on every system

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends this one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what a library says of its own failure
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    most = psutil.Process().memory_info().vms + memory
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # its other threads were not copied
    try:
        answer.send((work(), None))
    except SignBridgeError as error:
        answer.send((None, error))
    except MemoryError:
        answer.send((None, f"it takes more than {memory / 1e9:.0f} GB"))
    except BaseException as error:  # the tokenizers' panics are no Exception
        answer.send((None, _words(error)))


def _words(error: BaseException) -> str:
    return first_line(error) or type(error).__name__
