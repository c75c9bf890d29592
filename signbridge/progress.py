"""Progress of a count: a bar in a terminal, now and then a line in a log."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from signbridge.processes import is_first_process
from signbridge.words import duration

# Whatever is over sooner needs no bar.
_SECONDS_BEFORE_BAR = 0.5
# A log file gets a line this often instead of a moving bar.
_SECONDS_BETWEEN_LINES = 30.0


class Counting:
    """Shows how far a count has come; a context manager, so that the bar is taken down.

    Args:
        what: what is under way: ``reading images``.
        console: where to show it; by default standard error of the run's first process.
    """

    def __init__(self, what: str, console: Console | None = None) -> None:
        self._what = what
        self._console = console or Console(stderr=True, quiet=not is_first_process())
        self._started = self._said = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> Counting:
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

    def __call__(self, done: int, total: int) -> None:
        """Say how many are done, of how many."""
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, total=total)
        elif not self._console.is_terminal:
            if now - self._said >= _SECONDS_BETWEEN_LINES and done < total:
                self._said = now
                left = (now - self._started) / max(1, done) * (total - done)
                self._console.print(
                    f"{self._what}: {done:,} of {total:,}, about {duration(left)} left",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
        elif now - self._started >= _SECONDS_BEFORE_BAR and done < total:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.add_task(self._what, total=total, completed=done)
            self._bar.start()
