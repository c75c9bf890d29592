"""The store that an extraction makes: begun or continued, written shard by shard, made one file."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console

from signbridge.errors import Interrupted, SignBridgeError, StoreError
from signbridge.extraction.data import Batch
from signbridge.extraction.module import HostCopy
from signbridge.images import ImageSet
from signbridge.runtime.progress import CountingStages
from signbridge.runtime.terminal import as_text
from signbridge.runtime.words import counted, size
from signbridge.store import (
    SampleTable,
    Shard,
    StoreSpec,
    StoreWriter,
    estimated_bytes,
    open_store,
)
from signbridge.store.files import check_space
from signbridge.store.leftovers import adding_path, tidy_addings, unfinished
from signbridge.store.merge import extend_store
from signbridge.store.output import check_output, refuse_link
from signbridge.store.parts import comparable_samples, samples_identity
from signbridge.store.provenance import checked_provenance, not_compared, refuse_difference


class StoreOutput(Callback):
    """Opens the store in every process, writes what they give, makes one file of it at the end.

    Every finished shard is written while the next one is being computed. At most two shards are in
    memory: the one being gathered and the one being written; a slow disk slows the run instead of
    filling the memory. An error of the writing thread stops the run at the next batch.

    Args:
        path: the store.
        images: the labelled images.
        samples: what the store says of them.
        spec: what is captured for every image.
        provenance: what a continued run must have in common with this one.
        info: what is recorded besides.
        adding: whether the layers will be joined to the finished store at ``path``.
        overwrite: replace a store that is there already.
        keep_shards: leave the shards where they are and refer to them.
        shard_size: images of a shard.
        console: where the first process reports.
        question: which of the run's questions this store holds.

    Attributes:
        needed: bytes that are still to be written, known after ``begin``.
    """

    def __init__(
        self,
        path: Path,
        images: ImageSet,
        samples: SampleTable,
        spec: StoreSpec,
        provenance: Mapping[str, Any],
        info: Mapping[str, Any],
        *,
        adding: bool,
        overwrite: bool,
        keep_shards: bool,
        shard_size: int,
        console: Console,
        question: int = 0,
    ) -> None:
        self.needed = 0
        self._question = question
        self._path = path
        self._base = path if adding else None
        self._file = adding_path(path, spec.layers) if adding else path
        self._images = images
        self._samples = samples
        self._spec = spec
        self._plan = (self._file, spec, samples, provenance, info)
        self._overwrite = overwrite
        self._keep_shards = keep_shards
        self._shard_size = shard_size
        self._console = console
        self._stages = CountingStages(console)
        self._store: StoreWriter | None = None
        self._ends: dict[int, Shard] = {}
        self._gathered: list[HostCopy] = []
        self._thumbnails: list[str] = []
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shard-writer")
        self._writing: Future[None] | None = None

    # -- the beginning ----------------------------------------------------------------------------

    def begin(self, trainer: Trainer, beside: int = 0) -> list[Shard]:
        """Open the store and return the shards that this process is to make.

        The first process opens it, alone: it locks the output, lays down the plan or refuses, and
        tells the others the outcome, so that none of them waits for a process that has given up.

        Args:
            trainer: of the run.
            beside: bytes that the run writes to other stores meanwhile.

        Raises:
            SignBridgeError: in every process, if the first cannot begin.
        """
        outcome: list[Shard] | str = []
        cause: SignBridgeError | None = None
        if trainer.is_global_zero:
            try:
                outcome = self._open(beside)
            except SignBridgeError as error:
                outcome, cause = str(error), error
        outcome = trainer.strategy.broadcast(outcome)
        if isinstance(outcome, str):
            raise cause or StoreError(outcome)
        if not trainer.is_global_zero and outcome:
            self._store = self._store_writer(trainer.global_rank)
        mine = outcome[trainer.global_rank :: trainer.world_size]
        self._ends = {shard.stop: shard for shard in mine}
        return mine

    @property
    def thumbnails(self) -> bool:
        """Whether the images are stored too, made small; known once the store is open."""
        return self._store is not None and self._store.spec.thumbnails

    def _store_writer(self, rank: int) -> StoreWriter:
        return StoreWriter(
            *self._plan,
            shard_size=self._shard_size,
            overwrite=self._overwrite,
            keep_shards=self._keep_shards,
            rank=rank,
            progress=self._stages,
        )

    def _open(self, beside: int) -> list[Shard]:
        for left in self._tidy():
            self.say(f"left by an earlier command: {left}; it continues there, or remove it")
        if self._base is not None:
            new = estimated_bytes(self._spec, len(self._samples), len(self._samples.class_names))
            # the new layers as shards and as a file, then the joined file beside the base
            check_space(self._base, 3 * new + self._base.stat().st_size)
        with self._stages:
            self._store = self._store_writer(rank=0)
            pending = self._store.pending()
        if not self._store.complete:
            counts = sum(len(shard) for shard in pending), len(self._samples)
            n_classes = len(self._samples.class_names)
            self.needed = sum(estimated_bytes(self._spec, count, n_classes) for count in counts)
            if beside:
                check_space(self._path, self.needed + beside)
            self._announce(pending, of_images=not beside)
            if self.thumbnails != self._spec.thumbnails:
                self.say(f"continued as begun, with{'' if self.thumbnails else 'out'} thumbnails")
            self._say_what_is_not_compared()
        return pending

    def _say_what_is_not_compared(self) -> None:
        assert self._store is not None
        there = self._store.provenance
        if self._base is not None:
            with open_store(self._base, verify="none") as store:
                there = store.provenance
        note = not_compared({str(self._path): there, "this run": self._plan[3]})
        if note:
            self.say(note)

    def _tidy(self) -> list[str]:
        """Remove what earlier addings have left and the store holds already; say what stays."""
        if self._base is not None:
            return tidy_addings(self._base, self._file)
        return tidy_addings(self._path) if self._path.is_file() and not self._overwrite else []

    def _announce(self, pending: list[Shard], *, of_images: bool) -> None:
        images, spec = self._images, self._spec
        if of_images:
            self._announce_images()
        needed = estimated_bytes(spec, len(images), len(images.class_names))
        free = shutil.disk_usage(self._file.absolute().parent).free
        self.say(
            f"{counted(len(images), 'image')} of {len(images.class_names)} classes, "
            f"{counted(len(spec.layers), 'decoder layer')} of width {spec.hidden_size:,}: about "
            f"{size(needed)} to {self._file} ({size(free)} free)"
        )
        done = len(images) - sum(len(shard) for shard in pending)
        if done:
            self.say(f"continuing after {counted(done, 'image')} that are there and verified")

    def _announce_images(self) -> None:
        images = self._images
        if images.layout:
            self.say(f"folders read as {images.layout}")
        for note in images.notes:
            self.say(note)
        if images.skipped:
            unusable = counted(len(images.skipped), "unusable image")
            self.say(f"{unusable} left out:")
            for name, reason in images.skipped[:10]:
                self.say(f"  {name}: {reason}")
            if len(images.skipped) > 10:
                self.say(f"  ... and {len(images.skipped) - 10} more, recorded in the store")

    # -- shard by shard ---------------------------------------------------------------------------

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take a batch; hand its shard to the writing thread if this completes it.

        Raises:
            Interrupted: if SIGTERM has come, as SLURM and Kubernetes send it before they kill.
                Lightning notes it and tells its other processes, but its predict loop goes on.
        """
        if self._writing is not None and self._writing.done():
            self._finish_writing()
        of_this = [found[self._question] for found in outputs]
        self._gathered += [copy for copy in of_this if copy is not None]
        if self._gathered:  # the shard is one that this store lacks
            self._thumbnails += batch.thumbnails
        shard = self._ends.get(batch.rows.stop)
        if shard is not None:
            self._finish_writing()
            gathered, self._gathered = self._gathered, []
            thumbnails, self._thumbnails = self._thumbnails, []
            self._writing = self._thread.submit(self._write, shard, gathered, thumbnails)
        if trainer.received_sigterm:
            raise Interrupted(how_to_continue(self._path), 128 + signal.SIGTERM)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the last shard."""
        self._finish_writing()

    def _finish_writing(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, shard: Shard, gathered: list[HostCopy], thumbnails: list[str]) -> None:
        assert self._store is not None
        batches = [copy.arrays() for copy in gathered]
        data: dict[str, Any] = {
            name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]
        }
        data["pixels"] = self._images.pixels[shard.start : shard.stop]
        data["response"] = [text for copy in gathered for text in copy.responses]
        data["thumbnail"] = thumbnails
        wanted = [variable.name for variable in self._store.spec.captured]
        self._store.write_shard(shard.index, {name: data[name] for name in wanted})

    # -- the end ----------------------------------------------------------------------------------

    def finish(self, info: Mapping[str, Any]) -> None:
        """Make one file of the shards; the first process calls this once all have written.

        Args:
            info: what was not known at the beginning, to be recorded.
        """
        assert self._store is not None
        if self._store.complete and self._base is None:
            self.say(f"{self._path} is complete already")
            return
        self._store.info.update(info)
        with self._stages:
            self._store.consolidate()
            if self._base is not None:
                extend_store(self._base, self._file, self._stages)
                self._file.unlink()
        self.say(f"wrote {size(self._path.stat().st_size)} to {self._path}")

    def close(self) -> None:
        """Let a shard that is complete reach the disk, and give the output free for others."""
        self._thread.shutdown()
        if self._store is not None:
            self._store.close()

    def say(self, text: str) -> None:
        """Report a sentence."""
        self._console.print(as_text(text), soft_wrap=True)


def layers_to_extract(
    path: Path,
    layers: tuple[int, ...],
    provenance: Mapping[str, Any],
    samples: SampleTable,
    *,
    overwrite: bool,
) -> tuple[tuple[int, ...], bool]:
    """Decide what is left to extract.

    Args:
        path: the store that is to hold the layers.
        layers: the wanted decoder layers, ascending.
        provenance: what this run's vectors are made with.
        samples: this run's samples.
        overwrite: whether a store that is there will be replaced.

    Returns:
        The layers, and whether they will be added to a finished store: all that are wanted where
        there is none, those of the store where it has them all, otherwise those that it lacks.

    Raises:
        StoreError: if the store that is there was made otherwise, or refers to shards.
    """
    if overwrite or not path.is_file():
        return layers, False
    with open_store(path, verify=_first_look(path)) as store:
        there = store.layers
        lacking = tuple(layer for layer in layers if layer not in there)
        if not lacking:
            return there, False
        where = f"The finished store {path}"
        refuse_difference(store.provenance, checked_provenance(provenance), where)
        known = samples_identity(store.samples), samples_identity(samples)
        refuse_difference(*comparable_samples(*known), where)
        if "shards" in store:
            raise StoreError(
                f"{path} refers to its shards, so no layers can be added to it: extract them "
                "into another file, then run 'signbridge merge'."
            )
    refuse_link(path)
    check_output(adding_path(path, lacking))
    return lacking, True


@dataclass(frozen=True)
class Begun:
    """What a store that is there, finished or not, was made with."""

    provenance: Mapping[str, Any]
    baselines: set[str]


def begun(path: Path) -> Begun | None:
    """Look at the store at ``path``, finished or with a finished shard.

    None where there is none, or none that can be read: to refuse it is another's task.
    """
    try:
        with open_store(path, verify="none") as store:
            return Begun(store.provenance, set(store.baselines))
    except StoreError:
        left = unfinished(path)
    return Begun(left.provenance, left.baselines) if left and left.shards_done else None


def _first_look(path: Path) -> Literal["none", "read"]:
    """Shards that a store refers to may be missing: its writer makes them again."""
    with open_store(path, verify="none") as store:
        return "none" if "shards" in store else "read"


def how_to_continue(path: object) -> str:
    """Return the line that an interrupted run ends with."""
    return f"Stopped; the finished shards of {path} are kept: run the same command to continue."
