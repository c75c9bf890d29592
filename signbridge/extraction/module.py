"""The extraction as a LightningModule: its predict step runs one batch through the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.memory import garbage_collection_cuda

from signbridge.errors import ModelError, first_line
from signbridge.extraction.batch_size import BatchLimit, is_out_of_memory
from signbridge.extraction.batches import PreparedBatch, Span, SpanDataModule
from signbridge.extraction.host import HostCopy
from signbridge.model.description import ModelDescription
from signbridge.model.forward import CaptureRequest, run_batch
from signbridge.model.load import load_model
from signbridge.model.quantization import ComputeDtype, Quantization


@dataclass(frozen=True)
class SpanVectors:
    """What one span gave, on its way to the host.

    Attributes:
        span: which samples these are.
        copies: of each forward pass, mostly one, ``resid_post`` (batch, layer, hidden), the
            baselines (batch, feature) and, where asked for, ``class_logprob`` (batch, class).
        responses: the answers; none where none were asked for.
    """

    span: Span
    copies: list[HostCopy] = field(default_factory=list)
    responses: list[str] = field(default_factory=list)


class ExtractionModule(LightningModule):
    """Loads the model onto this process's device and runs batches through it.

    Args:
        description: which model.
        request: what to read.
        limit: the most images of a forward pass; lowered when memory runs out.
        quantization: ``nf4`` or ``none``.
        compute_dtype: dtype of the forward pass.
    """

    def __init__(
        self,
        description: ModelDescription,
        request: CaptureRequest,
        limit: BatchLimit,
        *,
        quantization: Quantization,
        compute_dtype: ComputeDtype,
    ) -> None:
        super().__init__()
        self._description = description
        self._request = request
        self._limit = limit
        self._quantization = quantization
        self._compute_dtype = compute_dtype
        # In a tuple, so that Lightning does not move a quantised model about as its submodule.
        self._loaded: tuple[Any, ...] = ()

    def setup(self, stage: str) -> None:
        """Load the weights and try batch sizes, unless nothing is left to do.

        Lightning calls this in every process, which then knows its device and its shards. (Inside
        ``configure_model`` the GPU would be the default device of every tensor that is made, those
        of the host included.)
        """
        if self._loaded or not self._data.shards:
            return
        device = self.trainer.strategy.root_device
        model = load_model(
            self._description,
            device,
            quantization=self._quantization,
            compute_dtype=self._compute_dtype,
        )
        self._loaded = (model,)
        first = self._data.shards[0]
        self._limit.choose(
            lambda images: self._run(
                self._data.prepare(Span(first.index, first.start, first.start + images), device)
            ),
            device,
            most=len(first),
        )

    def free(self) -> None:
        """Give back the model's memory, after an error too: what follows may need the device."""
        on_gpu = any(model.device.type == "cuda" for model in self._loaded)
        self._loaded = ()
        if on_gpu:
            garbage_collection_cuda()

    @property
    def _data(self) -> SpanDataModule:
        data: SpanDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        return data

    def predict_step(self, batch: PreparedBatch, batch_idx: int) -> SpanVectors:
        """Run one batch, in smaller ones if the memory does not hold it.

        Raises:
            ModelError: if the device's memory does not hold a single image.
        """
        vectors = SpanVectors(batch.span)
        # Batches were prepared ahead; those that are too large by now are prepared again.
        waiting: list[PreparedBatch | Span] = [batch]
        while waiting:
            part = waiting.pop(0)
            span = part if isinstance(part, Span) else part.span
            if len(span) > self._limit.images:
                waiting = [*span.pieces(self._limit.images), *waiting]
                continue
            if isinstance(part, Span):
                part = self._data.prepare(part, self.trainer.strategy.root_device)
            fitted = self._try(part, vectors)
            del part  # its memory is needed
            if not fitted:
                garbage_collection_cuda()
                self._limit.lower(len(span))
                waiting.insert(0, span)
        return vectors

    def _try(self, batch: PreparedBatch, vectors: SpanVectors) -> bool:
        """Run a batch and add what it gave; False if the memory does not hold it."""
        try:
            copy, responses = self._run(batch)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if len(batch.span) > 1:
                return False
            raise ModelError(
                f"{self.trainer.strategy.root_device} has not the memory for one image: try "
                "--quantization nf4, or a larger device; finished shards are kept."
            ) from error
        vectors.copies.append(copy)
        vectors.responses.extend(responses)
        return True

    def _run(self, batch: PreparedBatch) -> tuple[HostCopy, list[str]]:
        (model,) = self._loaded
        inputs = {
            name: tensor.to(model.dtype) if tensor.is_floating_point() else tensor
            for name, tensor in batch.inputs.items()
        }
        try:
            captured = run_batch(model, inputs, self._description.image_token_id, self._request)
        except ValueError as error:
            raise ModelError(
                f"{self._description.spec} cannot take what its own processor makes of an image "
                f"({first_line(error)}): fetch its configuration and processor files again, or "
                "give another model of the LLaVA family."
            ) from error
        tensors = {"resid_post": captured.resid_post, "projector": captured.projector}
        if captured.vision is not None:
            tensors["vision"] = captured.vision
        if captured.class_logprob is not None:
            tensors["class_logprob"] = captured.class_logprob
        responses: list[str] = []
        if captured.answer_ids is not None:
            texts = self._description.processor.batch_decode(
                captured.answer_ids, skip_special_tokens=True
            )
            responses = [text.strip() for text in texts]
        return HostCopy(tensors), responses
