"""Progress of an extraction: images done, images per second, time left."""

from __future__ import annotations

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

from signbridge.extraction.module import SpanVectors
from signbridge.runtime.progress import BarOrLines
from signbridge.runtime.words import counted, duration


class _ImagesPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f} images/s", style="progress.data.speed")


class _ImagesDone(BarOrLines):
    """Images done, of how many."""

    def __init__(self, console: Console, total: int) -> None:
        super().__init__(console)
        self._done, self._total = 0, total
        if console.is_terminal:
            self._show("extracting", 0, total)

    def _columns(self) -> list[ProgressColumn]:
        return [
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            _ImagesPerSecond(),
            TimeRemainingColumn(),
        ]

    def add(self, images: int) -> None:
        """Count some more."""
        self._done += images
        if self._console.is_terminal:
            self._show("extracting", self._done, self._total)
        else:
            speed = self._done / self._passed()
            self._say(
                f"{self._done:,} of {self._total:,} images, {speed:,.1f} images/s, "
                f"about {duration((self._total - self._done) / speed)} left"
            )

    def summary(self) -> str:
        """How many were done and how fast."""
        seconds = self._passed()
        done = f"{counted(self._done, 'image')} in {duration(seconds)}"
        return f"{done}, {self._done / seconds:,.1f} images/s"


class ExtractionProgress(Callback):
    """Shows how far this run's first process has come.

    Args:
        console: where to show it; one that is no terminal gets a line every 30 seconds.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._total = 0
        self._shown: _ImagesDone | None = None

    def expect(self, images: int) -> None:
        """Say how many images this process will run."""
        self._total = images

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and the bar in a terminal."""
        if trainer.is_global_zero and self._total:
            self._shown = _ImagesDone(self._console, self._total)

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
        if self._shown is not None:
            self._shown.add(len(outputs.span))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the bar down and say how fast it went."""
        if self._shown is not None:
            self._shown.close()
            self._console.print(self._shown.summary(), highlight=False, soft_wrap=True)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Take the bar down."""
        if self._shown is not None:
            self._shown.close()
