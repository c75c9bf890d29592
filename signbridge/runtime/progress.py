"""Progress of long work: a bar in a terminal, now and then a line in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, TypeAlias

from signbridge.runtime.processes import is_first_process
from signbridge.runtime.terminal import as_text, visible
from signbridge.runtime.words import counted, duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import ProgressColumn
    from typing_extensions import Self

Progress: TypeAlias = Callable[[int, int], None]
"""Called with how many are done and of how many."""

StageProgress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, how many are done and of how many."""


def stage(progress: StageProgress | None, what: str) -> Progress | None:
    """What tells of one stage of the work; nothing if nobody listens."""
    return None if progress is None else partial(progress, what)


# Whatever is over sooner needs no bar.
_SECONDS_BEFORE_BAR = 0.5
# A log file gets a line at most this often instead of a moving bar.
_SECONDS_BETWEEN_LINES = 30.0
# The first line about a sweep, which may take hours, comes sooner.
_SECONDS_BEFORE_SWEEP = 2.0


class _Closing:
    """A context manager that closes itself at the end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Take down what is shown."""
        raise NotImplementedError


class BarOrLines(_Closing):
    """What shows how far work has come; a context manager, so that the bar is taken down.

    Args:
        console: where to show it; by default standard error of the run's first process. One that is
            no terminal gets lines instead of a bar.
    """

    _is_transient = False  # whether the bar vanishes when it has done its work

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console  # whoever only tells how far it is needs no rich

        self._console = console or Console(stderr=True, quiet=not is_first_process())
        self._started = self._said = time.monotonic()
        self._bar: Bar | None = None

    def close(self) -> None:
        """Take the bar down."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _passed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def _say(self, text: str) -> None:
        """Print a line, if the last one is 30 seconds ago."""
        now = time.monotonic()
        if now - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = now
            self._console.print(as_text(text), soft_wrap=True)

    def _show(self, what: str, done: int, total: int) -> None:
        """Show or move the bar."""
        what = visible(what)
        if self._bar is None:
            from rich.progress import Progress as Bar

            self._bar = Bar(*self._columns(), console=self._console, transient=self._is_transient)
            self._bar.add_task(what, total=total, completed=done)
            self._bar.start()
        task = self._bar.task_ids[0]
        self._bar.update(task, description=what, completed=done, total=total)

    def _columns(self) -> list[ProgressColumn]:
        """The columns of the bar."""
        raise NotImplementedError


class Counting(BarOrLines):
    """Shows how far a count has come.

    Args:
        what: what is under way: ``reading images``.
        console: see :class:`BarOrLines`.

    Attributes:
        what: what is under way.
    """

    _is_transient = True

    def __init__(self, what: str, console: Console | None = None) -> None:
        super().__init__(console)
        self.what = what

    def _columns(self) -> list[ProgressColumn]:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

        return [
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        ]

    def __call__(self, done: int, total: int) -> None:
        """Say how many are done, of how many."""
        passed = self._passed()
        if self._console.is_terminal:
            if self._bar is not None or (passed >= _SECONDS_BEFORE_BAR and done < total):
                self._show(self.what, done, total)
        elif done < total:
            left = duration(passed / max(1, done) * (total - done))
            self._say(f"{self.what}: {done:,} of {total:,}, about {left} left")


class CountingStages(_Closing):
    """Shows how far each of several counts has come, one after the other; a context manager.

    Args:
        console: see :class:`BarOrLines`.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console
        self._counting: Counting | None = None

    def close(self) -> None:
        """Take the bar of the last stage down."""
        if self._counting is not None:
            self._counting.close()
            self._counting = None

    def __call__(self, what: str, done: int, total: int) -> None:
        """Say what is under way, how many are done and of how many."""
        if self._counting is None or self._counting.what != what:
            self.close()
            self._counting = Counting(what, self._console)
        self._counting(done, total)


class TimeLeft:
    """How long a job of several kinds of work still takes.

    Args:
        pace: for each kind the seconds that one thread takes for a unit of it, until measured.
        workers: threads that work at once.
    """

    def __init__(self, pace: Mapping[str, float], workers: int = 1) -> None:
        self._pace, self._workers = pace, workers
        self._left = dict.fromkeys(pace, 0.0)
        self._did = dict.fromkeys(pace, 0.0)
        self._took = dict.fromkeys(pace, 0.0)
        self._began: dict[int, float] = {}  # by thread

    def expect(self, kind: str, amount: float) -> None:
        """Add to what is to be done."""
        self._left[kind] += amount

    def begin(self) -> None:
        """Say that this thread begins some work now."""
        self._began[get_ident()] = time.monotonic()

    def did(self, kind: str, amount: float) -> None:
        """Say that this thread has done so much since it last began or did something."""
        now = time.monotonic()
        self._took[kind] += now - self._began.get(get_ident(), now)
        self._began[get_ident()] = now
        self._did[kind] += amount
        self._left[kind] = max(0.0, self._left[kind] - amount)

    def seconds(self) -> float:
        """Seconds that are left."""
        total = 0.0
        for kind, left in self._left.items():
            pace = self._took[kind] / self._did[kind] if self._did[kind] else self._pace[kind]
            total += left * pace
        return total / self._workers


class SweepProgress(BarOrLines):
    """Shows how far a sweep has come: the ``progress`` of :func:`signbridge.probes.run_sweep`.

    Nothing is shown before the sweep says that there is something to do.

    Args:
        console: see :class:`BarOrLines`.

    Attributes:
        seconds_left: what the whole of it still takes, None while that is not known.
    """

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(console)
        self._said += _SECONDS_BEFORE_SWEEP - _SECONDS_BETWEEN_LINES
        self.seconds_left: float | None = None

    def _columns(self) -> list[ProgressColumn]:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        return [
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("features"),
            TimeElapsedColumn(),
        ]

    def __call__(self, what: str, done: int, total: int) -> None:
        """Say what is under way and how many features are done."""
        left = self.seconds_left
        rest = "" if left is None else f", about {duration(left)} left"
        if self._console.is_terminal:
            self._show(what + rest, done, total)
        else:
            times = duration(self._passed()) + rest
            self._say(f"{done} of {counted(total, 'feature')} done after {times}; now {what}")
