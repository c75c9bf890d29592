"""The processes of a sweep: one, or those of :mod:`signbridge.probes.sgd.distributed`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from signbridge.probes.config import SweepConfig
    from signbridge.results.folder import ResultsFolder

T = TypeVar("T")


@runtime_checkable
class Recorded(Protocol):
    """An engine that says by feature's name what it did, a record for every C."""

    records: dict[str, list[dict[str, Any]]]


@runtime_checkable
class Joining(Protocol):
    """An engine that several processes train together."""

    def join(self, group: Any, folder: ResultsFolder) -> None:
        """Train with these processes, and keep what is done among the parts of this folder."""


class Processes(Protocol):
    """What a sweep asks of its processes, each of which runs the whole of it."""

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes."""

    def first(self, work: Callable[[], T]) -> T:
        """Have the first process do something while the others wait; all get what it returns."""

    def share(self, folder: ResultsFolder) -> ResultsFolder:
        """The folder as every process may use it for parts."""

    def __enter__(self) -> Processes: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object, /) -> None: ...


class Alone:
    """A single process."""

    is_first = True

    def first(self, work: Callable[[], T]) -> T:
        """Do it."""
        return work()

    def share(self, folder: ResultsFolder) -> ResultsFolder:
        """The folder itself."""
        return folder

    def __enter__(self) -> Alone:
        return self

    def __exit__(self, *exc: object) -> None: ...


def processes_of(config: SweepConfig) -> Processes:
    """The processes that a config asks for; entering them starts the others.

    Raises:
        ProbeError: they cannot be had on this machine.
    """
    if config.solver == "exact":
        return Alone()
    from signbridge.probes.sgd.distributed import ProcessGroup

    return ProcessGroup(config.device, config.devices, config.num_nodes, config.strategy)
