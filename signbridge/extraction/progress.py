"""Progress of an extraction: images done, images per second, time left."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from signbridge.extraction.data import Batch
from signbridge.runtime.progress import BarOrLines
from signbridge.runtime.words import counted, duration


class _ImagesPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f} images/s", style="progress.data.speed")


class ExtractionProgress(BarOrLines, Callback):
    """Shows how far this run's first process has come: images done, of how many.

    Args:
        console: where to show it; one that is no terminal gets a line every 30 seconds.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._done = self._total = 0

    def _columns(self) -> list[ProgressColumn]:
        return [
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            _ImagesPerSecond(),
            TimeRemainingColumn(),
        ]

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and the bar in a terminal."""
        if trainer.is_global_zero:
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            self._total = sum(len(shard) for shard in data.shards)
        self._started = self._said = time.monotonic()
        if self._total and self._console.is_terminal:
            self._show("extracting", 0, self._total)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch."""
        if not self._total:
            return
        self._done += len(batch.rows)
        if self._console.is_terminal:
            self._show("extracting", self._done, self._total)
        else:
            speed = self._done / self._passed()
            self._say(
                f"{self._done:,} of {self._total:,} images, {speed:,.1f} images/s, "
                f"about {duration((self._total - self._done) / speed)} left"
            )

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the bar down and say how fast it went."""
        self.close()
        if self._total:
            seconds = self._passed()
            self._console.print(
                f"{counted(self._done, 'image')} in {duration(seconds)}, "
                f"{self._done / seconds:,.1f} images/s",
                highlight=False,
                soft_wrap=True,
            )

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Take the bar down."""
        self.close()
