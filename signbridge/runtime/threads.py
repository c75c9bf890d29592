"""CPU threads: how many torch takes for a block of work, and independent work side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager

import torch

_here = threading.local()


@contextmanager
def cpu_threads(number: int | None) -> Iterator[None]:
    """Run the block with ``number`` torch threads; ``None`` changes nothing.

    The setting is restored on leaving, also after an error.
    """
    before = torch.get_num_threads()
    if number is None or number == before:
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Stopped(BaseException):
    """Ends a worker whose work is no longer wanted."""


def side_by_side(tasks: Sequence[Callable[[], None]], threads: int) -> None:
    """Do independent tasks, each with one torch thread, as many at once as there are threads.

    With a single thread or task all is done in the calling thread, with torch's own setting. Where
    a task fails or the caller is interrupted the others end at their next :func:`end_if_stopped`.

    Args:
        tasks: what to do, in the order in which it is begun.
        threads: most tasks at a time.

    Raises:
        Exception: what the first task that failed has raised.
    """
    if threads < 2 or len(tasks) < 2:
        for task in tasks:
            task()
        return
    stopped = threading.Event()

    def work(task: Callable[[], None]) -> None:
        _here.stopped = stopped
        if not stopped.is_set():
            task()

    # A thread takes over torch's setting when it begins, so it has to be made before.
    with cpu_threads(1), ThreadPoolExecutor(threads) as pool:
        try:
            for done in as_completed([pool.submit(work, task) for task in tasks]):
                done.result()
        except BaseException:
            stopped.set()
            raise


def end_if_stopped() -> None:
    """Called in long loops: ends this thread's task where :func:`side_by_side` was stopped."""
    stopped = getattr(_here, "stopped", None)
    if stopped is not None and stopped.is_set():
        raise _Stopped
