"""Stop at the end of a batch when the system asks the process to end."""

from __future__ import annotations

import signal
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from signbridge.errors import Interrupted


class StopOnSigterm(Callback):
    """Raises :class:`~signbridge.errors.Interrupted` after SIGTERM.

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
