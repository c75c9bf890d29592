"""Batches of labelled images, made ready for the model, in the order of the store's shards."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader, Dataset, Sampler

from signbridge.errors import ModelError, SignBridgeError, first_line
from signbridge.extraction.batch_size import BatchLimit
from signbridge.images import ImageSet
from signbridge.images.decode import side_by_side, thumbnail
from signbridge.model.certificate import Certificate, certify
from signbridge.model.description import ModelDescription
from signbridge.model.forward import CaptureRequest
from signbridge.model.processor import prepare
from signbridge.model.questions import Endings, shared_prefix
from signbridge.runtime.stopping import LIKE_SIGTERM
from signbridge.store import Shard

# Below this many images, starting worker processes costs more than they save: a GPU waits for every
# image that is prepared between its batches, while on a CPU the cores are the model's.
_FEW_IMAGES = 512
_FEW_FOR_A_GPU = 64


@dataclass
class Batch:
    """Some samples, ready for the model.

    Attributes:
        rows: which samples these are.
        inputs: the processor's tensors: ``input_ids`` and ``attention_mask``, shape (batch,
            tokens), ``pixel_values``, and whatever else it gives.
        thumbnails: the images as the store keeps them, where it does.
    """

    rows: range
    inputs: dict[str, torch.Tensor]
    thumbnails: Sequence[str] = ()

    def pin_memory(self) -> Batch:
        """Copy the tensors to page-locked memory; the DataLoader calls this for a GPU."""
        self.inputs = {name: tensor.pin_memory() for name, tensor in self.inputs.items()}
        return self


def split_rows(rows: range, images: int) -> list[range]:
    """Cut consecutive rows into ranges of at most so many."""
    return [rows[k : k + images] for k in range(0, len(rows), images)]


class ShardBatchSampler(Sampler[range]):
    """Cuts shards into batches that never cross a shard's edge, by the limit of the moment.

    A batch's samples then depend on the shard and the batch size alone, not on which worker runs
    it or on where an earlier run was stopped, and with them every rounding error of the batch.
    It has no length: how many batches there will be depends on the memory they meet.

    Args:
        shards: the shards to cut.
        limit: the most images of a batch.
    """

    def __init__(self, shards: Sequence[Shard], limit: BatchLimit) -> None:
        self._shards = shards
        self._limit = limit

    def __iter__(self) -> Iterator[range]:
        for shard in self._shards:
            rows = range(shard.start, shard.stop)
            while rows:
                batch = rows[: self._limit.images]
                yield batch
                rows = rows[len(batch) :]


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _leave_signals_to_the_parent(_worker: int) -> None:
    """Ctrl-C and a cluster's signals reach the whole process group; the parent ends the batch."""
    for number in (signal.SIGINT, signal.SIGTERM, *LIKE_SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class BatchDataset(Dataset[Any]):
    """The item of a range of rows is their images, decoded and run through the processor.

    An error is returned, not raised: a DataLoader worker would bury its one sentence in a
    traceback. :class:`ExtractionDataModule` raises it in the main process.
    """

    def __init__(self, images: ImageSet, processor: Any, prompt: str) -> None:
        self.images = images
        self._processor = processor
        self.prompt = prompt
        self.thumbnails = False

    def __getitem__(self, rows: range) -> Batch | SignBridgeError:
        try:
            samples = [self.images.load_all(row) for row in rows]
        except SignBridgeError as error:
            return error
        try:
            inputs = prepare(self._processor, [self.prompt] * len(samples), samples)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            return ModelError(
                f"The model's processor cannot prepare {self.images.sample_id[rows.start]} "
                f"({first_line(error)}): fetch its processor files again, or give another model."
            )
        small = [thumbnail(side_by_side(sample)) for sample in samples if self.thumbnails]
        return Batch(rows, inputs, small)


class ExtractionDataModule(LightningDataModule):
    """Serves this worker's share of the shards that are still to be made.

    Args:
        images: the labelled images.
        processor: the model's processor.
        prompts: the questions, with the processor's own image token; batches hold the first.
        limit: the most images of a forward pass.
        begin: called with the trainer once the processes of the run know each other; returns
            for each question the shards that this process is to make.
        num_workers: processes that decode and prepare images; None chooses.
        thumbnails: asked after ``begin`` whether the store keeps the images, made small.

    Attributes:
        shards: this process's shards, of whatever question, known after ``setup``.
    """

    def __init__(
        self,
        images: ImageSet,
        processor: Any,
        prompts: Sequence[str],
        limit: BatchLimit,
        begin: Callable[[Trainer], Sequence[Sequence[Shard]]],
        num_workers: int | None = None,
        thumbnails: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        # A worker may find nothing left to do; the others must not care.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self._dataset = BatchDataset(images, processor, prompts[0])
        self._prompts = prompts
        self._limit = limit
        self._begin = begin
        self._num_workers = num_workers
        self._thumbnails = thumbnails
        self._pending: list[set[Shard]] = []
        self.shards: list[Shard] = []

    def setup(self, stage: str) -> None:
        """Learn this process's shards."""
        assert self.trainer is not None
        self._pending = [set(shards) for shards in self._begin(self.trainer)]
        self.shards = sorted(set().union(*self._pending), key=lambda shard: shard.start)
        self._dataset.thumbnails = self._thumbnails()

    def pending(self, rows: range | None = None) -> list[bool]:
        """For each question, whether anything is to be made for it, or for these rows of it."""
        return [
            any(rows is None or shard.start <= rows.start < shard.stop for shard in shards)
            for shards in self._pending
        ]

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return a loader of prepared batches, one per item."""
        assert self.trainer is not None
        on_gpu = self.trainer.strategy.root_device.type == "cuda"
        workers = self._num_workers
        if workers is None:
            images = sum(len(shard) for shard in self.shards)
            few = images < (_FEW_FOR_A_GPU if on_gpu else _FEW_IMAGES)
            workers = 0 if few else min(8, usable_cores() // self.trainer.num_devices - 1)
        return DataLoader(
            self._dataset,
            batch_size=None,
            sampler=ShardBatchSampler(self.shards, self._limit),
            num_workers=max(0, workers),
            worker_init_fn=_leave_signals_to_the_parent,
            pin_memory=on_gpu,
        )

    def prepare(self, rows: range, device: torch.device) -> Batch:
        """Prepare one batch in this process and move it to a device.

        Raises:
            SignBridgeError: if an image cannot be read or prepared.
        """
        return self.transfer_batch_to_device(self._dataset[rows], device, 0)

    def certify(
        self,
        model: Any,
        description: ModelDescription,
        request: CaptureRequest,
        question: int,
        known: Certificate | None = None,
    ) -> Certificate:
        """Try a loaded model on the first image of this process, see ``model/certificate.py``."""
        pictures = self._dataset.images.load_all(self.shards[0].start)
        return certify(model, description, self._prompts[question], pictures, request, known)

    def shared_prefix(
        self,
        model: Any,
        description: ModelDescription,
        requests: Sequence[CaptureRequest | None],
        *,
        pads: bool,
    ) -> tuple[Endings, float]:
        """Try on that image whether the questions can share it, see ``model/questions.py``."""
        pictures = self._dataset.images.load_all(self.shards[0].start)
        return shared_prefix(model, description, self._prompts, pictures, requests, pads=pads)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Move a batch's tensors, or raise the error that a loader process met."""
        if isinstance(batch, SignBridgeError):
            raise batch
        moved: Batch = batch
        moved.inputs = {
            name: tensor.to(device, non_blocking=True) for name, tensor in moved.inputs.items()
        }
        return moved
