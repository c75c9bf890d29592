"""Progress of a sweep: what is under way, features done, time passed."""

from __future__ import annotations

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from signbridge.runtime.progress import BarOrLines
from signbridge.runtime.words import counted, duration


class SweepProgress(BarOrLines):
    """Shows how far a sweep has come: the ``progress`` of :func:`signbridge.probes.run_sweep`.

    Nothing is shown before the sweep says that there is something to do.

    Args:
        console: see :class:`~signbridge.runtime.progress.BarOrLines`.
    """

    def _columns(self) -> list[ProgressColumn]:
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
        if self._console.is_terminal:
            self._show(what, done, total)
        else:
            passed = duration(self._passed())
            self._say(f"{done} of {counted(total, 'feature')} done after {passed}; now {what}")
