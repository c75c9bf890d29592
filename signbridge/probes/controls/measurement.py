"""What a sweep hands to whatever measures in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from signbridge.probes.dataset.features import FeatureSource

if TYPE_CHECKING:
    from signbridge.probes.config import SweepConfig
    from signbridge.probes.dataset.plan import Plan
    from signbridge.probes.engines import Engine
    from signbridge.results.features import Feature
    from signbridge.results.folder import ResultsFolder
    from signbridge.store import Store

Progress = Callable[[str, int, int], None]
"""Called with what is under way, how many features are done, and how many there are."""


class Stages:
    """Tells a progress callback what is under way, one thread at a time.

    Args:
        progress: the callback, or None.
        total: number of features.

    Attributes:
        done: number of features that are done.
    """

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._lock = progress, total, Lock()
        self.done = 0

    def __call__(self, what: str) -> None:
        """Say what begins."""
        if self._progress is not None:
            with self._lock:
                self._progress(what, self.done, self._total)


@dataclass(frozen=True, eq=False)
class Sweep:
    """A sweep under way.

    Attributes:
        config: its arguments.
        store: the open store.
        plan: its splits.
        engine: what fits.
        folder: where finished parts are kept.
        workers: batches of features that are worked on at once.
        memory_bytes: what each of them may take.
        stages: to be told what begins.
    """

    config: SweepConfig
    store: Store
    plan: Plan
    engine: Engine
    folder: ResultsFolder
    workers: int
    memory_bytes: int
    stages: Stages

    def source(self, store: Store, batch: Sequence[Feature]) -> FeatureSource:
        """A batch of features, read within its share of the memory."""
        return FeatureSource(store, batch, self.memory_bytes // 4)


def names(batch: Sequence[Feature]) -> str:
    """A batch in words: its feature, or the first and the last."""
    first, last = batch[0].name, batch[-1].name
    return first if len(batch) == 1 else f"{first} to {last}"
