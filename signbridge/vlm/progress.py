"""Progress of an extraction: images done, images per second, time left."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from signbridge.vlm.module import SpanVectors
from signbridge.words import counted, duration

# A log file gets a line this often instead of a moving bar.
_SECONDS_BETWEEN_LINES = 30.0


class _ImagesPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f} images/s", style="progress.data.speed")


class ExtractionProgress(Callback):
    """Shows how far this run's first process has come.

    Args:
        console: where to show it; one that is no terminal gets a line every 30 seconds.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._total = 0
        self._done = 0
        self._started = self._said = 0.0
        self._bar: Progress | None = None

    def expect(self, images: int) -> None:
        """Say how many images this process will run."""
        self._total = images

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and the bar in a terminal."""
        self._started = self._said = time.monotonic()
        if not trainer.is_global_zero or not self._console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("extracting"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            _ImagesPerSecond(),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._bar.add_task("extracting", total=self._total)
        self._bar.start()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: SpanVectors,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch."""
        step = outputs.span.stop - outputs.span.start
        self._done += step
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], step)
        elif trainer.is_global_zero and time.monotonic() - self._said > _SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            speed = self._done / (self._said - self._started)
            left = (self._total - self._done) / speed
            self._console.print(
                f"{self._done:,} of {self._total:,} images, {speed:,.1f} images/s, "
                f"about {duration(left)} left",
                highlight=False,
                soft_wrap=True,
            )

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the bar down and say how fast it went."""
        self._close()
        if trainer.is_global_zero and self._done:
            seconds = time.monotonic() - self._started
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
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
