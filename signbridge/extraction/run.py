"""What the processes of one extraction share: the store being made and who makes which shard."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer
from rich.console import Console

from signbridge.errors import SignBridgeError, StoreError
from signbridge.extraction.adding import Target
from signbridge.images import ImageSet
from signbridge.runtime.progress import CountingStages
from signbridge.runtime.terminal import as_text
from signbridge.runtime.words import counted, size
from signbridge.store import SampleTable, Shard, StoreSpec, StoreWriter, estimated_bytes


class ExtractionRun:
    """Opens the store in every process, shares out the shards, consolidates at the end.

    Args:
        images: the labelled images.
        samples: what the store says of them.
        target: the file to make, and whether it will be joined to another.
        spec: what is captured for every image.
        provenance: what a continued run must have in common with this one.
        info: what is recorded besides.
        overwrite: replace a store that is there already.
        keep_shards: leave the shards where they are and refer to them.
        shard_size: images of a shard.
        console: where the first process reports.

    Attributes:
        writer: the store's writer, once the run has begun.
    """

    def __init__(
        self,
        images: ImageSet,
        samples: SampleTable,
        target: Target,
        spec: StoreSpec,
        provenance: Mapping[str, Any],
        info: Mapping[str, Any],
        *,
        overwrite: bool,
        keep_shards: bool,
        shard_size: int,
        console: Console,
    ) -> None:
        self._images = images
        self._samples = samples
        self._target = target
        self._output = target.path
        self._spec = spec
        self._provenance = provenance
        self._info = info
        self._overwrite = overwrite
        self._keep_shards = keep_shards
        self._shard_size = shard_size
        self._console = console
        self._stages = CountingStages(console)
        self.writer: StoreWriter | None = None

    def begin(self, trainer: Trainer) -> list[Shard]:
        """Open the store and return the shards that this process is to make.

        The first process opens it, alone: it locks the output, lays down the plan or refuses, and
        tells the others the outcome, so that none of them waits for a process that has given up.

        Raises:
            SignBridgeError: in every process, if the first cannot begin.
        """
        outcome: list[Shard] | str = []
        cause: SignBridgeError | None = None
        if trainer.is_global_zero:
            try:
                outcome = self._open()
            except SignBridgeError as error:
                outcome, cause = str(error), error
        outcome = trainer.strategy.broadcast(outcome)
        if isinstance(outcome, str):
            raise cause or StoreError(outcome)
        if not trainer.is_global_zero and outcome:
            self.writer = self._store_writer(trainer.global_rank)
        return outcome[trainer.global_rank :: trainer.world_size]

    def note(self, **info: Any) -> None:
        """Record what was not known at the beginning."""
        assert self.writer is not None
        self.writer.info.update(info)

    def finish(self) -> None:
        """Make one file of the shards; the first process calls this once all have written."""
        assert self.writer is not None
        if self.writer.complete and self._target.base is None:
            self.say(f"{self._output} is complete already")
            return
        with self._stages:
            self.writer.consolidate()
            self._target.join(self._stages)
        path = self._target.base or self._output
        self.say(f"wrote {size(path.stat().st_size)} to {path}")

    def close(self) -> None:
        """Give the output free for other processes."""
        if self.writer is not None:
            self.writer.close()

    def _store_writer(self, rank: int) -> StoreWriter:
        return StoreWriter(
            self._output,
            self._spec,
            self._samples,
            self._provenance,
            self._info,
            shard_size=self._shard_size,
            overwrite=self._overwrite,
            keep_shards=self._keep_shards,
            rank=rank,
            progress=self._stages,
        )

    def _open(self) -> list[Shard]:
        for left in self._target.tidy():
            self.say(f"left by an earlier command: {left}; it continues there, or remove it")
        self._target.check_space(self._spec, self._samples)
        with self._stages:
            self.writer = self._store_writer(rank=0)
            pending = self.writer.pending()
        if not self.writer.complete:
            self._announce(pending)
        return pending

    def _announce(self, pending: list[Shard]) -> None:
        images, spec = self._images, self._spec
        for note in images.notes:
            self.say(note)
        if images.skipped:
            unusable = counted(len(images.skipped), "unusable image")
            self.say(f"{unusable} left out:")
            for name, reason in images.skipped[:10]:
                self.say(f"  {name}: {reason}")
            if len(images.skipped) > 10:
                self.say(f"  ... and {len(images.skipped) - 10} more, recorded in the store")
        needed = estimated_bytes(spec, len(images), len(images.class_names))
        free = shutil.disk_usage(self._output.absolute().parent).free
        self.say(
            f"{counted(len(images), 'image')} of {len(images.class_names)} classes, "
            f"{counted(len(spec.layers), 'decoder layer')} of width {spec.hidden_size:,}: about "
            f"{size(needed)} to {self._output} ({size(free)} free)"
        )
        done = len(images) - sum(len(shard) for shard in pending)
        if done:
            self.say(f"continuing after {counted(done, 'image')} that are there and verified")

    def say(self, text: str) -> None:
        """Report a sentence."""
        self._console.print(as_text(text), soft_wrap=True)
