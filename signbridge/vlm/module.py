"""The extraction as a LightningModule: its predict step runs one batch through the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule

from signbridge.errors import ModelError, first_line
from signbridge.vlm.batches import PreparedBatch, Span
from signbridge.vlm.description import ModelDescription
from signbridge.vlm.forward import CaptureRequest, run_batch
from signbridge.vlm.host import HostCopy
from signbridge.vlm.load import load_model
from signbridge.vlm.quantization import ComputeDtype, Quantization
from signbridge.words import counted


@dataclass(frozen=True)
class SpanVectors:
    """What one span gave, on its way to the host.

    Attributes:
        span: which samples these are.
        copy: ``resid_post`` (batch, layer, hidden), the baselines (batch, feature) and, where
            asked for, ``class_logprob`` (batch, class).
        responses: the answers, or None where none were asked for.
    """

    span: Span
    copy: HostCopy
    responses: list[str] | None


class ExtractionModule(LightningModule):
    """Loads the model onto this process's device and runs batches through it.

    Args:
        description: which model.
        request: what to read.
        quantization: ``nf4`` or ``none``.
        compute_dtype: dtype of the forward pass.
    """

    def __init__(
        self,
        description: ModelDescription,
        request: CaptureRequest,
        *,
        quantization: Quantization,
        compute_dtype: ComputeDtype,
    ) -> None:
        super().__init__()
        self._description = description
        self._request = request
        self._quantization = quantization
        self._compute_dtype = compute_dtype
        # In a tuple, so that Lightning does not move a quantised model about as its submodule.
        self._loaded: tuple[Any, ...] = ()

    def configure_model(self) -> None:
        """Load the weights, unless nothing is left to do.

        Lightning calls this in every process, which then knows its device and its shards.
        """
        if not self._loaded and self.trainer.datamodule.shards:  # type: ignore[attr-defined]
            model = load_model(
                self._description,
                self.trainer.strategy.root_device,
                quantization=self._quantization,
                compute_dtype=self._compute_dtype,
            )
            self._loaded = (model,)

    def predict_step(self, batch: PreparedBatch, batch_idx: int) -> SpanVectors:
        """Run one batch.

        Raises:
            ModelError: if the device's memory does not hold the batch.
        """
        (model,) = self._loaded
        inputs = {
            name: tensor.to(model.dtype) if tensor.is_floating_point() else tensor
            for name, tensor in batch.inputs.items()
        }
        try:
            captured = run_batch(model, inputs, self._description.image_token_id, self._request)
        except RuntimeError as error:
            if not isinstance(error, torch.cuda.OutOfMemoryError) and "ALLOC_FAILED" not in str(
                error
            ):
                raise
            size = batch.span.stop - batch.span.start
            advice = "try --quantization nf4, or a larger device"
            if size > 1:
                advice = f"run the same command with --batch_size {size // 2}"
            raise ModelError(
                f"{self.device} has not the memory for a batch of {counted(size, 'image')}: "
                f"{advice}; finished shards are kept."
            ) from error
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
        responses = None
        if captured.answer_ids is not None:
            texts = self._description.processor.batch_decode(
                captured.answer_ids, skip_special_tokens=True
            )
            responses = [text.strip() for text in texts]
        return SpanVectors(batch.span, HostCopy(tensors), responses)
