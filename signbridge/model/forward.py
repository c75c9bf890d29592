"""One batch through the model: residual stream, baselines and, where asked for, the answers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import StoppingCriteria, StoppingCriteriaList

from signbridge.model import DECODER_LAYERS, Position
from signbridge.model.answers import (
    ENCODED,
    ClassAnswers,
    Scoring,
    continued,
    end_ids,
    forced,
    generating_part,
    one_pass,
)
from signbridge.model.capture import ResidualCapture
from signbridge.model.families import decoder_layers
from signbridge.model.sites import sites_of
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
        sites: names of :func:`~signbridge.model.sites.sites_of` the model to read besides.
        answers: the class names to score as answers (forced choice), or None.
        scoring: how they are scored, as tried by :mod:`~signbridge.model.certificate`.
    """

    layers: tuple[int, ...]
    position: Position = "last_prompt"
    max_new_tokens: int = 0
    sites: tuple[str, ...] = ()
    answers: ClassAnswers | None = None
    scoring: Scoring = "one_pass"


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
        inputs: dict[str, torch.Tensor],
        capture: ResidualCapture,
        answers: ClassAnswers,
        scoring: Scoring,
    ) -> None:
        self._model = generating_part(model)
        self._inputs = inputs
        self._capture = capture
        self._answers = answers
        self._scoring = scoring
        self._last_position: torch.Tensor | None = None
        self.class_logprob: torch.Tensor | None = None

    def __enter__(self) -> _ForcedChoice:
        decoder = self._model.get_decoder()
        self._handles = [
            self._model.register_forward_hook(self._score),
            decoder.register_forward_pre_hook(self._number, with_kwargs=True),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _number(self, _module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        """Note how the model numbers the prompt: some count from 1, or along several axes."""
        positions = kwargs.get("position_ids")
        if self._last_position is None and positions is not None:
            self._last_position = positions[..., -1:]

    def _score(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if self._capture.paused or self.class_logprob is not None:
            return
        self._capture.paused = True
        # With left padding, as the processor pads, the last token of every row is real.
        after, cache = output.logits[:, -1], output.past_key_values
        if self._scoring == "one_pass":
            mask = self._inputs["attention_mask"]
            last = self._last_position
            if last is None:
                last = mask.long().sum(-1, keepdim=True) - 1
            self.class_logprob = one_pass(self._model, cache, after, mask, last, self._answers)
        else:
            encoded = getattr(output, ENCODED, None)
            inputs = self._inputs if encoded is None else {**self._inputs, ENCODED: encoded}
            self.class_logprob = continued(self._model, inputs, cache, after, self._answers)
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
    model: Any,
    inputs: dict[str, torch.Tensor],
    image_token: int,
    request: CaptureRequest,
    cache: Any = None,
) -> Captured:
    """Run one batch and read what ``request`` asks for, with one prefill for all of it.

    Args:
        model: a loaded vision-language model.
        inputs: the processor's tensors, on the model's device, ``input_ids`` and
            ``attention_mask`` among them, shape (batch, tokens).
        image_token: the id of the image token.
        request: what to read.
        cache: what the model keeps of the prompt's first tokens, the image's among them, which have
            been run; it is changed. The inputs then hold no pixels, and there is no site to read.
    """
    known = 0 if cache is None else cache.get_seq_length()
    mask, image_mask = inputs["attention_mask"], inputs["input_ids"] == image_token
    answering = request.max_new_tokens > 0
    capture = ResidualCapture(
        decoder_layers(model),
        request.layers,
        position=request.position,
        attention_mask=mask[:, known:],
        image_mask=image_mask[:, known:],
        # The sites of a decoder behind the encoder come after all of the encoder's layers.
        stop_after_deepest=not answering
        and request.answers is None
        and not any(name.startswith(DECODER_LAYERS) for name in request.sites),
    )
    sites = sites_of(model)
    readings = {name: sites[name].read(model, inputs, image_mask) for name in request.sites}
    choice: _ForcedChoice | None = None
    if request.answers is not None and request.scoring != "forced":
        choice = _ForcedChoice(model, inputs, capture, request.answers, request.scoring)
    answer_ids = None
    with ExitStack() as hooks:
        for part in (*readings.values(), capture, choice):
            if part is not None:
                hooks.enter_context(part)
        # The model's own way to a first token numbers positions and masks the padding.
        made = model.generate(
            **inputs,
            **({} if cache is None else {"past_key_values": cache}),
            max_new_tokens=max(1, request.max_new_tokens),
            use_cache=answering or choice is not None or cache is not None,
            do_sample=False,
            num_beams=1,
            stopping_criteria=StoppingCriteriaList([_MarkFinished(capture, end_ids(model))]),
            output_logits=answering,  # as many as there are new tokens
            return_dict_in_generate=True,
        )
        if answering:
            answer_ids = made.sequences[:, -len(made.logits) :]
    class_logprob = None if choice is None else choice.class_logprob
    if request.answers is not None and request.scoring == "forced":
        class_logprob = forced(model, inputs, request.answers)
    return Captured(
        resid_post=capture.vectors(),
        sites={name: part.value for name, part in readings.items() if part.value is not None},
        answer_ids=answer_ids,
        class_logprob=class_logprob,
    )


def to_model(inputs: dict[str, torch.Tensor], model: Any) -> dict[str, torch.Tensor]:
    """Return the processor's tensors on the model's device, numbers with a point in its dtype."""
    return {
        name: tensor.to(model.device, model.dtype if tensor.is_floating_point() else None)
        for name, tensor in inputs.items()
        if isinstance(tensor, torch.Tensor)
    }


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the CPU had no memory for what was asked of it."""
    # Not every user of a model has Lightning loaded, and few meet such an error.
    from lightning.pytorch.utilities.memory import is_oom_error

    return (
        isinstance(error, (torch.OutOfMemoryError, MemoryError))
        or is_oom_error(error)
        or "ALLOC_FAILED" in str(error)  # cuBLAS and cuDNN, for their workspaces
    )
