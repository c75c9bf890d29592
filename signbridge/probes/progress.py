"""Progress of a sweep: what is under way, features done, time passed."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from signbridge.words import counted, duration

# A log file gets a line at most this often instead of a moving bar.
_SECONDS_BETWEEN_LINES = 30.0


class SweepProgress:
    """Shows how far a sweep has come: the ``progress`` of :func:`signbridge.probes.run_sweep`.

    A context manager, so that the bar is taken down whatever happens. Nothing is shown before the
    sweep says that there is something to do.

    Args:
        console: where to show it, stderr by default; one that is no terminal gets a line when the
            sweep says something new and 30 seconds have passed without one.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._started = time.monotonic()
        self._said = self._started
        self._bar: Progress | None = None

    def __enter__(self) -> SweepProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __call__(self, what: str, done: int, total: int) -> None:
        """Say what is under way and how many features are done."""
        if self._console.is_terminal:
            if self._bar is None:
                self._bar = Progress(
                    SpinnerColumn(),
                    TextColumn("{task.description}", markup=False),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TextColumn("features"),
                    TimeElapsedColumn(),
                    console=self._console,
                )
                self._bar.add_task("", total=total)
                self._bar.start()
            self._bar.update(self._bar.task_ids[0], description=what, completed=done, total=total)
            return
        now = time.monotonic()
        if now - self._said < _SECONDS_BETWEEN_LINES:
            return
        self._said = now
        passed = duration(now - self._started)
        text = f"{done} of {counted(total, 'feature')} done after {passed}; now {what}"
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
