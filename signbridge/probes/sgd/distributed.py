"""Several processes, one for each device, that train the same probes (DDP, through Lightning)."""

from __future__ import annotations

import platform
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import numpy.typing as npt
import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies.ddp import DDPStrategy as FabricDDP
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy

from signbridge.errors import Interrupted, ProbeError, SignBridgeError
from signbridge.results.folder import ResultsFolder
from signbridge.runtime.processes import (
    PATIENCE,
    had_or_refused,
    plain_trainer,
    process_settings,
)
from signbridge.runtime.terminal import quiet_lightning

T = TypeVar("T")

STOPPED = "Stopped; what is trained is kept: run the same command to continue."


class _Ended(BaseException):
    """SIGTERM has come; no library on the way takes it for an error of its own."""


class ProcessGroup:
    """The processes of a sweep on several devices, or the only one.

    The first starts the others, as Lightning does: by the same command, unless torchrun or SLURM
    has started them. Each goes through the whole sweep; the first alone reads and writes the
    results folder.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.
        devices: how many, as Lightning takes it.
        num_nodes: number of machines.
        strategy: ``auto`` or ``ddp``.

    Raises:
        ProbeError: they cannot be had on this machine.
    """

    def __init__(
        self,
        device: str = "auto",
        devices: int | str = 1,
        num_nodes: int = 1,
        strategy: Literal["auto", "ddp"] = "auto",
    ) -> None:
        if strategy not in ("auto", "ddp"):
            raise ProbeError(f"strategy {strategy!r} is not known; use auto or ddp.")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        accelerator = "gpu" if device == "cuda" else "cpu"
        what = f"devices {devices!r}, num_nodes {num_nodes!r} and strategy {strategy!r}"
        with had_or_refused(what, f"device {device!r} of this machine", ProbeError):
            self._settings = process_settings(accelerator, devices, num_nodes)
            self._fabric = Fabric(strategy="auto", **self._settings)
            self._parallel = strategy == "ddp" or self._fabric.world_size > 1
            if self._parallel:
                self._fabric = Fabric(strategy=FabricDDP(timeout=PATIENCE), **self._settings)
        self._before: Any = None
        self._threads: int | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return bool(self._fabric.is_global_zero)

    @property
    def device(self) -> torch.device:
        """This process's device."""
        return self._fabric.device

    def __enter__(self) -> ProcessGroup:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self.on_sigterm)
        if self._parallel:
            with quiet_lightning(every_warning=True):
                self._fabric.launch()
            if self.device.type == "cpu":
                self._share_cores()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        if error is not None:
            self._end_others()
        if kind is _Ended:
            raise Interrupted(STOPPED, 128 + signal.SIGTERM) from error
        if error is None and self._parallel and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    def _share_cores(self) -> None:
        """More threads than cores stand in each other's way; two nodes may be one machine."""
        machines: list[Any] = [None] * self._fabric.world_size
        torch.distributed.all_gather_object(machines, platform.node())
        self._threads = torch.get_num_threads()
        torch.set_num_threads(max(1, self._threads // machines.count(platform.node())))

    @property
    def listens(self) -> bool:
        """Whether SIGTERM is this object's business."""
        return self._before is not None

    def on_sigterm(self, number: int, frame: Any) -> None:
        """End the run, as SLURM and Kubernetes ask for; what is kept is whole at any moment.

        Raises:
            _Ended: always.
        """
        self._end_others()
        raise _Ended

    def _end_others(self) -> None:
        """Kill the processes that this one has started, so that none waits for it in vain."""
        started = getattr(self._fabric.strategy.launcher, "procs", [])
        for process in started:
            process.kill()
        for process in started:
            process.wait()
        started.clear()  # else Lightning's observer of them ends this process too

    def first(self, work: Callable[[], T]) -> T:
        """Have the first process do something while the others wait; all get what it returns.

        Raises:
            SignBridgeError: in every process, where the first one's work raised it; the others say
                nothing of it.
        """
        if not self._parallel:
            return work()
        outcome: tuple[bool, Any] = (True, None)
        cause: SignBridgeError | None = None
        if self.is_first:
            try:
                outcome = True, work()
            except SignBridgeError as error:
                outcome, cause = (False, (str(error), error.exit_status)), error
        done, value = self._fabric.broadcast(outcome)
        if not done:
            raise cause or Interrupted(*value)
        return value  # type: ignore[no-any-return]

    def share(self, folder: ResultsFolder) -> ResultsFolder:
        """The folder as every process may use it for parts."""
        return SharedFolder(folder, self) if self._parallel else folder

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Sum of a tensor over the processes, where it was."""
        if not self._parallel:
            return values
        summed = self._fabric.all_reduce(values.to(self.device), reduce_op="sum")
        return torch.as_tensor(summed).to(values.device)

    def trainer(self, callbacks: Sequence[Callback]) -> Trainer:
        """A Trainer of this process, as the others have theirs."""
        strategy: Any = "auto"
        if self._parallel:
            # Buffers follow from what is reduced, so they need not be sent around.
            strategy = DDPStrategy(timeout=PATIENCE, broadcast_buffers=False)
        return plain_trainer(
            strategy=strategy,
            max_epochs=-1,
            limit_val_batches=0,
            callbacks=[*callbacks, _EndOnSigterm(self)],
            enable_checkpointing=bool(callbacks),
            **self._settings,
        )


class SharedFolder(ResultsFolder):
    """A results folder that the first process reads and writes for all.

    Args:
        folder: the first process's.
        group: the processes.
    """

    def __init__(self, folder: ResultsFolder, group: ProcessGroup) -> None:
        super().__init__(folder.path, folder.identity)
        self._folder, self._group = folder, group

    def save_part(self, name: str, arrays: Mapping[str, npt.NDArray[Any]], words: Any) -> None:
        """See :class:`~signbridge.results.folder.ResultsFolder`."""
        self._group.first(lambda: self._folder.save_part(name, arrays, words))

    def load_part(self, name: str) -> tuple[dict[str, npt.NDArray[Any]], Any] | None:
        """See :class:`~signbridge.results.folder.ResultsFolder`."""
        return self._group.first(lambda: self._folder.load_part(name))


class _EndOnSigterm(Callback):
    """Puts the group's handler in the place of Lightning's, which waits for its processes."""

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning has just set its own, and takes this one away with it."""
        if self._group.listens:
            signal.signal(signal.SIGTERM, self._group.on_sigterm)
