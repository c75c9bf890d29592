"""Telling how far long work on a store has come."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

Progress = Callable[[int, int], None]
"""Called with how many are done and of how many."""

StageProgress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done and of how many."""


def stage(progress: StageProgress | None, what: str) -> Progress | None:
    """What tells of one stage of the work; nothing if nobody listens."""
    return None if progress is None else partial(progress, what)
