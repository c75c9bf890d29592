"""One batch through the model: residual stream, baselines and, where asked for, the answers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import StoppingCriteria, StoppingCriteriaList

from signbridge.errors import ModelError
from signbridge.vlm.capture import Position, ResidualCapture
from signbridge.vlm.families import (
    decoder_layers,
    position_ids,
    projector,
    tiles_per_image,
)


@dataclass(frozen=True)
class CaptureRequest:
    """What to read from each batch.

    Attributes:
        layers: 0-based decoder layers, ascending.
        position: which token's vector is kept.
        max_new_tokens: length of the greedy answer; 0 asks for none, and then neither logits nor
            the layers above the deepest wanted one are computed.
        vision: whether to read the baseline ``vision``.
    """

    layers: tuple[int, ...]
    position: Position = "last_prompt"
    max_new_tokens: int = 0
    vision: bool = True


@dataclass(frozen=True)
class Captured:
    """What one batch gave, on the model's device.

    Attributes:
        resid_post: shape (batch, layers, hidden).
        projector: mean of the image tokens entering the decoder, float32, shape (batch, hidden).
        vision: mean of the patch features entering the projector, float32, shape (batch, vision).
        answer_ids: ids of the answer's tokens after the prompt, shape (batch, new), or None.
    """

    resid_post: torch.Tensor
    projector: torch.Tensor
    vision: torch.Tensor | None
    answer_ids: torch.Tensor | None


class _VisionMean(AbstractContextManager["_VisionMean"]):
    """Reads the mean of the patch features that enter the projector."""

    def __init__(self, model: nn.Module, inputs: dict[str, torch.Tensor]) -> None:
        self._projector = projector(model)
        self._tiles = tiles_per_image(model, inputs)
        self._batch = inputs["input_ids"].shape[0]
        self.mean: torch.Tensor | None = None

    def __enter__(self) -> _VisionMean:
        assert self._projector is not None
        self._handle = self._projector.register_forward_pre_hook(self._read)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def _read(self, _module: nn.Module, args: tuple[Any, ...]) -> None:
        features = args[0].to(torch.float32)
        per_row = features.flatten(1, -2).mean(dim=1)
        counts = self._tiles or [1] * self._batch
        if sum(counts) != len(per_row):
            raise ModelError(
                f"The projector of this model takes {len(per_row)} rows of patches for "
                f"{self._batch} images, so they cannot be told apart: try --batch_size 1."
            )
        self.mean = torch.stack([rows.mean(dim=0) for rows in per_row.split(counts)])


class _MarkFinished(StoppingCriteria):
    """Tells the capture after every new token which answers have ended; never stops by itself."""

    def __init__(self, capture: ResidualCapture, end_ids: Sequence[int]) -> None:
        self._capture = capture
        self._end_ids = list(end_ids)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        ended = torch.isin(input_ids[:, -1], torch.tensor(self._end_ids, device=input_ids.device))
        self._capture.unfinished &= ~ended
        return torch.zeros_like(ended)


@torch.inference_mode()
def run_batch(
    model: Any, inputs: dict[str, torch.Tensor], image_token: int, request: CaptureRequest
) -> Captured:
    """Run one batch and read what ``request`` asks for, with one prefill for all of it.

    Args:
        model: a loaded vision-language model.
        inputs: the processor's tensors, on the model's device, ``input_ids`` and
            ``attention_mask`` among them, shape (batch, tokens).
        image_token: the id of the image token.
        request: what to read.
    """
    mask = inputs["attention_mask"]
    answering = request.max_new_tokens > 0
    capture = ResidualCapture(
        decoder_layers(model),
        request.layers,
        position=request.position,
        attention_mask=mask,
        image_mask=inputs["input_ids"] == image_token,
        stop_after_deepest=not answering,
    )
    seen = _VisionMean(model, inputs) if request.vision else nullcontext()
    answer_ids = None
    with seen, capture:
        if answering:
            answer_ids = _generate(model, inputs, capture, request.max_new_tokens)
        else:
            model(**inputs, **position_ids(model, mask), use_cache=False)
    assert capture.projected is not None
    return Captured(
        resid_post=capture.vectors(),
        projector=capture.projected,
        vision=seen.mean if isinstance(seen, _VisionMean) else None,
        answer_ids=answer_ids,
    )


def _generate(
    model: Any, inputs: dict[str, torch.Tensor], capture: ResidualCapture, max_new_tokens: int
) -> torch.Tensor:
    settings = model.generation_config
    end_ids = settings.eos_token_id
    end_ids = [] if end_ids is None else [end_ids] if isinstance(end_ids, int) else list(end_ids)
    sequences = model.generate(
        **inputs,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        stopping_criteria=StoppingCriteriaList([_MarkFinished(capture, end_ids)]),
    )
    assert isinstance(sequences, torch.Tensor)
    return sequences[:, inputs["input_ids"].shape[1] :]
