"""One batch through the model: residual stream, baselines and, where asked for, the answers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache, StoppingCriteria, StoppingCriteriaList

from signbridge.model import Position
from signbridge.model.answers import ClassAnswers, end_ids, score_answers
from signbridge.model.capture import ResidualCapture
from signbridge.model.families import decoder_layers, position_ids
from signbridge.model.sites import SITES
from signbridge.runtime.threads import cpu_threads

# Below this width a layer's work is shorter than the threads' meeting.
_NARROW = 512


@dataclass(frozen=True)
class CaptureRequest:
    """What to read from each batch.

    Attributes:
        layers: 0-based decoder layers, ascending.
        position: which token's vector is kept.
        max_new_tokens: length of the greedy answer; 0 asks for none, and then neither logits nor
            the layers above the deepest wanted one are computed.
        sites: names of the :data:`~signbridge.model.sites.SITES` to read besides.
        answers: the class names to score as answers (forced choice), or None.
    """

    layers: tuple[int, ...]
    position: Position = "last_prompt"
    max_new_tokens: int = 0
    sites: tuple[str, ...] = ()
    answers: ClassAnswers | None = None


@dataclass(frozen=True)
class Captured:
    """What one batch gave, on the model's device.

    Attributes:
        resid_post: shape (batch, layers, hidden).
        sites: the vectors of each site that was asked for, float32, shape (batch, width).
        answer_ids: ids of the answer's tokens after the prompt, shape (batch, new), or None.
        class_logprob: log-probability of each class name as the answer, float32, shape
            (batch, classes), or None.
    """

    resid_post: torch.Tensor
    sites: dict[str, torch.Tensor]
    answer_ids: torch.Tensor | None
    class_logprob: torch.Tensor | None = None


class _MarkFinished(StoppingCriteria):
    """Tells the capture after every new token which answers have ended; never stops by itself."""

    def __init__(self, capture: ResidualCapture, end_ids: Sequence[int]) -> None:
        self._capture = capture
        self._end_ids = list(end_ids)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        ended = torch.isin(input_ids[:, -1], torch.tensor(self._end_ids, device=input_ids.device))
        self._capture.unfinished &= ~ended
        return torch.zeros_like(ended)


class _ForcedChoice(AbstractContextManager["_ForcedChoice"]):
    """Scores the class names after the first forward pass, when the cache holds just the prompt.

    It reads the logits from the model itself: generation hands on logits that its own settings
    (suppressed tokens, penalties) may have changed.
    """

    def __init__(
        self,
        model: Any,
        capture: ResidualCapture,
        attention_mask: torch.Tensor,
        answers: ClassAnswers,
    ) -> None:
        self._model = model
        self._capture = capture
        self._mask = attention_mask
        self._answers = answers
        self.cache = DynamicCache(config=model.config.get_text_config(decoder=True))
        self.class_logprob: torch.Tensor | None = None

    def __enter__(self) -> _ForcedChoice:
        self._handle = self._model.register_forward_hook(self._score)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def _score(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if self._capture.paused or self.class_logprob is not None:
            return
        self._capture.paused = True
        # With left padding, as the processor pads, the last token of every row is real.
        self.class_logprob = score_answers(
            self._model, self.cache, output.logits[:, -1], self._mask, self._answers
        )
        self._capture.paused = False


def cpu_threads_for(hidden_size: int, device: torch.device) -> AbstractContextManager[None]:
    """Run a narrow model on one thread of the CPU inside ``with``, and leave any other to torch.

    Threads that wait for one another spin. On two idle cores a second one saves the bundled model
    little; on two busy ones it was measured to make the same batch 25 times slower.

    Args:
        hidden_size: width of the residual stream.
        device: where the model runs.
    """
    return cpu_threads(1 if device.type == "cpu" and hidden_size < _NARROW else None)


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
    mask, image_mask = inputs["attention_mask"], inputs["input_ids"] == image_token
    answering = request.max_new_tokens > 0
    capture = ResidualCapture(
        decoder_layers(model),
        request.layers,
        position=request.position,
        attention_mask=mask,
        image_mask=image_mask,
        stop_after_deepest=not answering and request.answers is None,
    )
    readings = {name: SITES[name].read(model, inputs, image_mask) for name in request.sites}
    choice: _ForcedChoice | None = None
    kept: dict[str, Any] = {"use_cache": answering}
    if request.answers is not None:
        choice = _ForcedChoice(model, capture, mask, request.answers)
        kept = {"use_cache": True, "past_key_values": choice.cache}
    answer_ids = None
    with ExitStack() as hooks:
        for part in (*readings.values(), capture, choice):
            if part is not None:
                hooks.enter_context(part)
        if answering:
            answer_ids = _generate(model, inputs, capture, request.max_new_tokens, kept)
        elif choice is not None:
            model(**inputs, **position_ids(model, mask), **kept, logits_to_keep=1)
        else:
            model(**inputs, **position_ids(model, mask), **kept)
    return Captured(
        resid_post=capture.vectors(),
        sites={name: part.value for name, part in readings.items() if part.value is not None},
        answer_ids=answer_ids,
        class_logprob=None if choice is None else choice.class_logprob,
    )


def _generate(
    model: Any,
    inputs: dict[str, torch.Tensor],
    capture: ResidualCapture,
    max_new_tokens: int,
    kept: dict[str, Any],
) -> torch.Tensor:
    sequences = model.generate(
        **inputs,
        **kept,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        stopping_criteria=StoppingCriteriaList([_MarkFinished(capture, end_ids(model))]),
    )
    assert isinstance(sequences, torch.Tensor)
    return sequences[:, inputs["input_ids"].shape[1] :]
