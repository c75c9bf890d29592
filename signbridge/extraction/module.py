"""The extraction as a LightningModule: its predict step runs one batch through the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.memory import garbage_collection_cuda
from numpy.typing import NDArray

from signbridge.errors import ModelError, NamesError, first_line
from signbridge.extraction.batch_size import BatchLimit
from signbridge.extraction.data import Batch, ExtractionDataModule, split_rows
from signbridge.model import ComputeDtype, Quantization
from signbridge.model.certificate import Certificate
from signbridge.model.description import ModelDescription
from signbridge.model.forward import (
    Captured,
    CaptureRequest,
    is_out_of_memory,
    run_batch,
    to_model,
)
from signbridge.model.load import load_model
from signbridge.model.questions import Endings, NotSharedError, run_questions


class HostCopy:
    """A forward pass's tensors on their way to the host, until :meth:`arrays` is called.

    On a GPU the copy runs in the background into page-locked buffers that this object owns, and
    an event marks its end: reading such a buffer before the event is a race that no error shows.

    Args:
        tensors: named tensors, all on one device.
        responses: the answers as text, where some were asked for.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], responses: Sequence[str] = ()) -> None:
        self.responses = responses
        self._event: torch.cuda.Event | None = None
        self._host: dict[str, torch.Tensor] = {}
        stream: torch.cuda.Stream | None = None
        for name, tensor in tensors.items():
            # NumPy has no bfloat16; every bfloat16 is a float32.
            value = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
            if value.device.type == "cuda":
                buffer = torch.empty(value.shape, dtype=value.dtype, device="cpu", pin_memory=True)
                self._host[name] = buffer.copy_(value, non_blocking=True)
                stream = torch.cuda.current_stream(value.device)
            else:
                self._host[name] = value.cpu()
        if stream is not None:
            self._event = torch.cuda.Event()
            self._event.record(stream)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Wait for the copy to end and return it as arrays."""
        if self._event is not None:
            self._event.synchronize()
        return {name: tensor.numpy() for name, tensor in self._host.items()}


class ExtractionModule(LightningModule):
    """Loads the model onto this process's device and runs batches through it.

    Args:
        description: which model.
        requests: what to read for each question; several continue from one pass over an image.
        limit: the most images of a forward pass; lowered when memory runs out.
        quantization: as ``--quantization`` takes it.
        compute_dtype: dtype of the forward pass.

    Attributes:
        certificates: what the loaded model was found to do, by question.
        shared: how far a question that continues was off a prompt that is run whole, or None.
        unscored: why class names cannot be scored, by question.
        was_tried: whether the loaded model was found fit for every question.
    """

    def __init__(
        self,
        description: ModelDescription,
        requests: Sequence[CaptureRequest],
        limit: BatchLimit,
        *,
        quantization: Quantization,
        compute_dtype: ComputeDtype,
    ) -> None:
        super().__init__()
        self._description = description
        self._requests = list(requests)
        self._endings: Endings = ()
        self._limit = limit
        self._quantization = quantization
        self._compute_dtype = compute_dtype
        self.certificates: dict[int, Certificate] = {}
        self.shared: float | None = None
        self.unscored: dict[int, NamesError] = {}
        self.was_tried = False
        # In a tuple, so that Lightning does not move a quantised model about as its submodule.
        self._loaded: tuple[Any, ...] = ()

    def setup(self, stage: str) -> None:
        """Load the weights and try batch sizes, unless nothing is left to do.

        Lightning calls this in every process, which then knows its device and its shards. (Inside
        ``configure_model`` the GPU would be the default device of every tensor that is made, those
        of the host included.)
        """
        if self._loaded:
            return
        shards = self._data.shards
        if shards:
            self._load()
        if len(self._requests) > 1:
            self._share()
        if shards:
            first, device = shards[0], self.trainer.strategy.root_device
            self._limit.choose(
                lambda images: self._run(
                    self._data.prepare(range(first.start, first.start + images), device)
                ),
                device,
                most=len(first),
            )

    def _load(self) -> None:
        """Load the model and try it with every question.

        Raises:
            NamesError: if class names cannot be scored; ``unscored`` then says for which questions.
        """
        model = load_model(
            self._description,
            self.trainer.strategy.root_device,
            quantization=self._quantization,
            compute_dtype=self._compute_dtype,
        )
        self._loaded = (model,)
        for k, pending in enumerate(self._data.pending()):
            if not pending:
                continue
            request = self._requests[k]
            try:
                with self._one_image_fits():
                    known = next(iter(self.certificates.values()), None)
                    found = self._data.certify(model, self._description, request, k, known)
            except NamesError as error:
                self.unscored[k] = error
                continue
            self.certificates[k], self._requests[k] = found, found.request
        if self.unscored:
            raise next(iter(self.unscored.values()))
        self.was_tried = True
        pads = [found.pads for found in self.certificates.values()]
        if None in pads:
            garbage_collection_cuda()
            self._limit.lower(2)
        elif not all(pads):
            self._limit.one_by_one(self._description.spec)

    def _share(self) -> None:
        """Try whether the questions can continue from one pass over an image, in every process.

        Raises:
            NotSharedError: in every process, if they cannot in one.
        """
        failed: NotSharedError | None = None
        if self._loaded:
            pads = all(found.pads for found in self.certificates.values())
            try:
                with self._one_image_fits():
                    self._endings, self.shared = self._data.shared_prefix(
                        self._loaded[0], self._description, self._wanted(), pads=pads
                    )
            except NotSharedError as error:
                failed = error
        if not self.trainer.strategy.reduce_boolean_decision(failed is None):
            raise failed or NotSharedError("another process of this run has found so")

    def _wanted(self, rows: range | None = None) -> list[CaptureRequest | None]:
        pending = self._data.pending(rows)
        return [request if k else None for request, k in zip(self._requests, pending, strict=True)]

    def record(self, question: int) -> dict[str, Any]:
        """What a question's store records of how it was made."""
        tried = self.certificates.get(question)
        if tried is None:
            return {"batch_size": self._limit.images}
        shared = {} if self.shared is None else {"check_shared_image": self.shared}
        return {"batch_size": self._limit.images, **tried.record(), **shared}

    def free(self) -> None:
        """Give back the model's memory, after an error too: what follows may need the device."""
        on_gpu = any(model.device.type == "cuda" for model in self._loaded)
        self._loaded = ()
        if on_gpu:
            garbage_collection_cuda()

    @property
    def _data(self) -> ExtractionDataModule:
        data: ExtractionDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        return data

    def predict_step(self, batch: Batch, batch_idx: int) -> list[list[HostCopy | None]]:
        """Run one batch, in smaller ones if the memory does not hold it.

        Returns:
            What each forward pass gave, mostly one, for each question: ``resid_post`` (batch,
            layer, hidden), the baselines (batch, feature) and, where asked for, ``class_logprob``
            (batch, class).

        Raises:
            ModelError: if the device's memory does not hold a single image.
        """
        copies: list[list[HostCopy | None]] = []
        # Batches were prepared ahead; those that are too large by now are prepared again.
        waiting: list[Batch | range] = [batch]
        while waiting:
            part = waiting.pop(0)
            rows = part if isinstance(part, range) else part.rows
            if len(rows) > self._limit.images:
                waiting = [*split_rows(rows, self._limit.images), *waiting]
                continue
            if isinstance(part, range):
                part = self._data.prepare(rows, self.trainer.strategy.root_device)
            copy = self._run_if_it_fits(part)
            del part  # its memory is needed
            if copy is not None:
                copies.append(copy)
            else:
                garbage_collection_cuda()
                self._limit.lower(len(rows))
                waiting.insert(0, rows)
        return copies

    def _run_if_it_fits(self, batch: Batch) -> list[HostCopy | None] | None:
        """Run a batch; None if the memory does not hold it."""
        if len(batch.rows) == 1:
            with self._one_image_fits():
                return self._run(batch)
        try:
            return self._run(batch)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None

    @contextmanager
    def _one_image_fits(self) -> Iterator[None]:
        """Say so in a sentence if the memory does not hold a single image."""
        try:
            yield
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise ModelError(
                f"{self.trainer.strategy.root_device} has not the memory for one image: try "
                "--quantization nf4, or a larger device; finished shards are kept."
            ) from error

    def _run(self, batch: Batch) -> list[HostCopy | None]:
        (model,) = self._loaded
        image_token, wanted = self._description.image_token_id, self._wanted(batch.rows)
        found: list[Captured | None]
        try:
            inputs = to_model(batch.inputs, model)
            if len(wanted) > 1:
                found = run_questions(model, inputs, image_token, self._endings, wanted)
            else:
                found = [
                    None if one is None else run_batch(model, inputs, image_token, one)
                    for one in wanted
                ]
        except (ValueError, RuntimeError, LookupError, TypeError, AttributeError) as error:
            if is_out_of_memory(error):
                raise
            raise ModelError(
                f"{self._description.spec} cannot take what its own processor makes of an image "
                f"({first_line(error)}): fetch its configuration and processor files again, or "
                "give another model."
            ) from error
        return [None if one is None else self._to_host(one) for one in found]

    def _to_host(self, captured: Captured) -> HostCopy:
        tensors = {"resid_post": captured.resid_post, **captured.sites}
        if captured.class_logprob is not None:
            tensors["class_logprob"] = captured.class_logprob
        responses: list[str] = []
        if captured.answer_ids is not None:
            texts = self._description.processor.batch_decode(
                captured.answer_ids, skip_special_tokens=True
            )
            responses = [text.strip() for text in texts]
        return HostCopy(tensors, responses)
