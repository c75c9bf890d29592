"""Finished folds and checkpoints of a training, so that a killed one goes on where it was."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from signbridge.probes.sgd.module import LinearProbes
from signbridge.probes.sgd.schedule import DONE
from signbridge.runtime.files import publish

if TYPE_CHECKING:
    from signbridge.results.folder import ResultsFolder

_PREFIX = "sgd-"
SECONDS = 30.0
"""Time between two checkpoints."""


class Checkpoints:
    """Finished folds and the checkpoint of the one under way, among a folder's parts.

    Args:
        folder: the results folder.
        seconds: least time between two checkpoints.
    """

    def __init__(self, folder: ResultsFolder, seconds: float = SECONDS) -> None:
        self.folder, self.seconds = folder, seconds

    def save(self, key: str, arrays: dict[str, npt.NDArray[Any]], words: Any) -> None:
        """Keep a finished fold; its checkpoint goes."""
        self.folder.save_part(_PREFIX + key, arrays, words)
        self.checkpoint(key).unlink(missing_ok=True)

    def load(self, key: str) -> tuple[dict[str, npt.NDArray[Any]], Any] | None:
        """A finished fold, or None."""
        return self.folder.load_part(_PREFIX + key)

    def checkpoint(self, key: str) -> Path:
        """Where the checkpoint of a fold lies."""
        return self.folder.parts / f"{_PREFIX}{key}.ckpt"


def fit_key(*parts: npt.NDArray[Any] | str) -> str:
    """A name for a fit, from all that it depends on."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:32]


class SaveCheckpoint(Checkpoint):
    """Writes a Lightning checkpoint at the end of an epoch, if the last one is old enough.

    The file appears under its name only when it is whole.

    Args:
        path: where.
        seconds: least time between two.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.seconds = path, seconds
        self._written = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See whether it is time; the first process's clock counts."""
        due = time.monotonic() - self._written >= self.seconds
        assert isinstance(pl_module, LinearProbes)
        if int(pl_module.schedule.stage) == DONE or not trainer.strategy.broadcast(due):
            return
        partial = self.path.with_suffix(".tmp")
        trainer.save_checkpoint(partial)  # waits for all processes
        if trainer.is_global_zero:
            publish(partial, self.path)
        self._written = time.monotonic()
