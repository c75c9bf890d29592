"""Stop cleanly when the user or the system asks the process to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from signbridge.errors import Interrupted


class StopOnSigterm(Callback):
    """Raises :class:`~signbridge.errors.Interrupted` at the end of the batch after SIGTERM.

    Lightning notes the signal (as SLURM and Kubernetes send it before they kill) and passes it to
    its other processes, but its predict loop goes on.

    Args:
        message: what to tell the user.
    """

    def __init__(self, message: str) -> None:
        self._message = message

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look whether the signal has come."""
        if trainer.received_sigterm:
            raise Interrupted(self._message, 128 + signal.SIGTERM)


@contextmanager
def interruptible(trainer: Trainer, message: str) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into :class:`~signbridge.errors.Interrupted` inside ``with``.

    During the predict loop SIGTERM is left to :class:`StopOnSigterm`; while the model is loaded
    and the store consolidated it ends the run at once, which costs nothing that is finished.

    Args:
        trainer: the run's trainer.
        message: what to tell the user.
    """

    def on_sigterm(_number: int, _frame: Any) -> None:
        if not trainer.received_sigterm:  # Lightning has not taken note of it
            raise Interrupted(message, 128 + signal.SIGTERM)

    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, on_sigterm) if in_main_thread else None
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:
        # Lightning ends the process on Ctrl-C and ignores a second one; the caller may go on.
        if in_main_thread:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        raise Interrupted(message, 128 + signal.SIGINT) from error
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, before)
