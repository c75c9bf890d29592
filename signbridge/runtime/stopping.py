"""Ctrl-C, SIGTERM and their like end a command with one line that says how to go on."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from signbridge.errors import Interrupted

_KEPT = "Stopped; what is finished is kept: run the same command to continue."
_ADVICE = {
    "extract": _KEPT,
    "train_probes": _KEPT,
    "run": _KEPT,
    "report": "Stopped before the report was written: run the same command to write it.",
    "compare": "Stopped before the comparison was written: run the same command to write it.",
    "verify": "Stopped before all was checked; nothing was changed: run the same command to check.",
    "merge": "Stopped before the store was made; nothing was changed: run the same command to "
    "make it.",
}

LIKE_SIGTERM = [
    getattr(signal, name)
    for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")  # Windows has none of them
    if hasattr(signal, name)
]
"""A closed terminal, and what clusters send before a job's limit."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised like Ctrl-C, so that what is open is closed and half-made files removed."""


def advice(command: str | None) -> str:
    """Return the line that a command ends with when it is stopped."""
    return _ADVICE.get(command or "", "Stopped.")


@contextmanager
def stoppable(message: str, is_noted: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM inside ``with`` into :class:`~signbridge.errors.Interrupted`.

    SIGHUP, SIGUSR1, SIGUSR2 and SIGXCPU count as SIGTERM, unless they are ignored, as under nohup,
    or somebody else listens. What is inside may raise its own with a message that says more.

    Args:
        message: what to tell the user.
        is_noted: whether someone else has taken note of SIGTERM, as Lightning's Trainer does, and
            ends the work at a better moment.
    """

    def on_sigterm(_number: int, _frame: Any) -> None:
        if not is_noted():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough; the end takes its time
            raise Terminated

    in_main_thread = threading.current_thread() is threading.main_thread()
    before: dict[int, Any] = {}
    if in_main_thread:
        before[signal.SIGTERM] = signal.signal(signal.SIGTERM, on_sigterm)
        for number in LIKE_SIGTERM:
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, _as_sigterm)
    hook = sys.unraisablehook

    def on_lost(lost: sys.UnraisableHookArgs) -> None:
        """Python drops what is raised inside a destructor: ask again when that is over."""
        if not in_main_thread or not issubclass(lost.exc_type, KeyboardInterrupt):
            hook(lost)
            return
        number = signal.SIGINT
        if issubclass(lost.exc_type, Terminated):
            number = signal.SIGTERM
            signal.signal(number, on_sigterm)
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()

    sys.unraisablehook = on_lost
    try:
        yield
    except KeyboardInterrupt as error:
        raise _interrupted(message, error) from error
    except SystemExit as error:
        # Lightning's Trainer ends the process itself on Ctrl-C, and ignores a second one.
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        if in_main_thread:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        raise _interrupted(message, error.__context__) from error
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _as_sigterm(_number: int, _frame: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _interrupted(message: str, error: KeyboardInterrupt) -> Interrupted:
    number = signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT
    return Interrupted(message, 128 + number)
