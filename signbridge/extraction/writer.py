"""The Lightning callback that gathers batches into shards and writes them in the background."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from numpy.typing import NDArray

from signbridge.extraction.module import SpanVectors
from signbridge.store import Shard, StoreWriter


class ShardPredictionWriter(BasePredictionWriter):
    """Writes every finished shard while the next one is being computed.

    At most two shards are in memory: the one being gathered and the one being written; a slow
    disk slows the run instead of filling the memory. An error of the writing thread stops the run
    at the next batch.

    Args:
        pixels: the baseline ``pixels`` of every sample, uint8, shape (sample, feature).
    """

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        super().__init__(write_interval="batch")
        self._pixels = pixels
        self._store: StoreWriter | None = None
        self._shards: dict[int, Shard] = {}
        self._gathered: list[SpanVectors] = []
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shard-writer")
        self._writing: Future[None] | None = None

    def attach(self, store: StoreWriter, shards: Sequence[Shard]) -> None:
        """Say where this process writes and which shards are its own."""
        self._store = store
        self._shards = {shard.index: shard for shard in shards}

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: SpanVectors,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Take a batch; hand its shard to the writing thread if this completes it."""
        if self._writing is not None and self._writing.done():
            self._finish_writing()
        self._gathered.append(prediction)
        shard = self._shards[prediction.span.shard]
        if prediction.span.stop == shard.stop:
            self._finish_writing()
            gathered, self._gathered = self._gathered, []
            self._writing = self._thread.submit(self._write, shard, gathered)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the last shard."""
        self._finish_writing()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Let a shard that is complete reach the disk before the run ends."""
        if self._writing is not None:
            self._writing.exception()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop the writing thread."""
        self._thread.shutdown()

    def _finish_writing(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, shard: Shard, gathered: list[SpanVectors]) -> None:
        assert self._store is not None
        batches = [copy.arrays() for part in gathered for copy in part.copies]
        data: dict[str, Any] = {
            name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]
        }
        data["pixels"] = self._pixels[shard.start : shard.stop]
        data["response"] = [text for part in gathered for text in part.responses]
        wanted = [variable.name for variable in self._store.spec.captured]
        self._store.write_shard(shard.index, {name: data[name] for name in wanted})
