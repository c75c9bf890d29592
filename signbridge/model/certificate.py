"""What is tried on a model when it is loaded, before anything is stored.

nnterp and nnbench (ndif-team, 2026) do the like for text models: a family is taken because its
numbers agree with its own plain forward pass, not because its name is known. What does not agree is
done another way, left out and said, or refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from PIL import Image, ImageOps
from torch import nn

from signbridge.errors import ModelError, NamesError, SignBridgeError, SiteError, first_line
from signbridge.model import DECODER_LAYERS
from signbridge.model.answers import (
    Scoring,
    end_ids,
    forced_logits,
    name_logprob,
    shared,
    start_id,
)
from signbridge.model.description import ModelDescription
from signbridge.model.families import (
    answer_layers,
    decoder_layers,
    followed_by,
    is_encoder_decoder,
)
from signbridge.model.forward import (
    Captured,
    CaptureRequest,
    is_out_of_memory,
    run_batch,
    to_model,
)
from signbridge.model.processor import Pictures, as_list, prepare, takes_fewer
from signbridge.model.quantization import rounds_activations

# What rounding may do: measured as 1e-6 to 1e-5 in float32 on tiny models of 23 families.
_ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-3}
_HALF_ROUNDING = 0.1


def rounding(model: Any) -> float:
    """The largest difference, relative or in nats, that may be rounding in a model's layers."""
    if rounds_activations(model):
        return _HALF_ROUNDING
    return _ROUNDING.get(model.dtype, _HALF_ROUNDING)


_FINAL_NORMS = (
    "norm",
    "final_layer_norm",
    "final_layernorm",
    "ln_f",
    "final_norm",
    "embedding_norm",
)
CANNOT = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError)
"""What a family answers to a way of running it that it does not allow."""


@dataclass(frozen=True)
class Certificate:
    """What a model was found to do.

    Attributes:
        request: what to read, scored in the fastest way that is right.
        padding: largest relative difference between the vectors of an image in a padded batch and
            those of the image alone; None where the memory holds no batch of two, infinite where
            the model or its processor takes none.
        image: largest relative difference between the vectors of two images.
        head: cosine between the model's logits and those made from the last layer's vector by the
            final norm and the unembedding; None where these have no standard place.
        names: largest difference between a name's log-probability and that of a plain forward pass
            of prompt and name, in nats; None without forced choice.
        pads: whether a batch may be padded; None where that could not be tried.
    """

    request: CaptureRequest
    padding: float | None
    image: float
    head: float | None
    names: float | None
    pads: bool | None

    def record(self) -> dict[str, Any]:
        """Return the numbers as the store keeps them, which holds no infinity."""
        found = {
            "check_padding": self.padding,
            "check_image": self.image,
            "check_head": self.head,
            "check_names": self.names,
            "forced_choice_by": None if self.names is None else self.request.scoring,
        }
        return {name: value for name, value in found.items() if value not in (None, math.inf)}


@torch.inference_mode()
def certify(
    model: Any,
    description: ModelDescription,
    prompt: str,
    pictures: Pictures,
    request: CaptureRequest,
    known: Certificate | None = None,
) -> Certificate:
    """Try a loaded model on the images of one sample and on them turned and inverted.

    Args:
        model: the loaded model.
        description: of that model.
        prompt: as :func:`~signbridge.model.prompts.prompt_for_processor` writes it.
        pictures: in mode RGB, those of one prompt of the run.
        request: what the run will read.
        known: what was found with another prompt; only the names are tried then.

    Raises:
        ModelError: if the stored vectors would not be what they are called: they do not lead to
            the model's logits, or do not depend on each image; or if the names cannot be scored;
            or if the model does not run, since its files are not of one model.
        SiteError: if a baseline inside the model cannot be read, or does not depend on each image.
    """
    several = as_list(pictures)
    with _running(description.spec, len(several)):
        trial = _Trial(model, description, prompt, several, request)
        found = trial.vectors() if known is None else replace(known, request=request, names=None)
        return found if request.answers is None else trial.names(found)


@contextmanager
def _running(spec: str, images: int) -> Iterator[None]:
    """Say that a model's files do not fit each other, which shows where it stumbles over them."""
    try:
        yield
    except SignBridgeError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        if images > 1:
            raise takes_fewer(spec, images, first_line(error)) from error
        raise ModelError(
            f"{spec} does not run on one image ({first_line(error)}): its config.json, "
            "generation_config.json and processor's files do not fit each other, or this version "
            "of transformers."
        ) from error


class _Trial:
    """A loaded model and the samples that it is tried on, alone and in a padded batch."""

    def __init__(
        self,
        model: Any,
        description: ModelDescription,
        prompt: str,
        pictures: list[Image.Image],
        request: CaptureRequest,
    ) -> None:
        self._model, self._spec, self._request = model, description.spec, request
        self._image_token = description.image_token_id
        self._bound = rounding(model)
        others = [another_image(picture) for picture in pictures]
        # Samples of several images in which the first, or the last, is another.
        partly = [[*others[:1], *pictures[1:]], [*pictures[:-1], *others[-1:]]]
        self._alone, self._other, *self._partly = (
            to_model(prepare(description.processor, [prompt], [sample]), model)
            for sample in (pictures, others, *(partly if len(pictures) > 1 else ()))
        )
        self._images = len(pictures)
        if not (self._alone["input_ids"] == self._image_token).any():
            raise ModelError(
                f"The config.json of {self._spec} calls token {self._image_token} the image's, "
                "which its processor never writes: the folder's files are of two models."
            )
        # The image that is asked for alone comes second: some families number a batch's images.
        prompts, samples = [prompt + " 1 2 3 4 5 6 7 8", prompt], [others, pictures]
        self._longer = to_model(prepare(description.processor, prompts[:1], samples[:1]), model)
        self._batch: dict[str, torch.Tensor] = {}
        with suppress(*CANNOT):  # some processors take no prompts of different length
            self._batch = to_model(prepare(description.processor, prompts, samples), model)
        self._everything = replace(
            request,
            layers=tuple(range(len(decoder_layers(model)))),
            position="last_prompt",
            max_new_tokens=0,
            answers=None,
        )

    def _read(self, inputs: dict[str, torch.Tensor], **request: Any) -> Captured:
        asked = replace(self._everything, **request)
        return run_batch(self._model, inputs, self._image_token, asked)

    def vectors(self) -> Certificate:
        """Compare the vectors of an image with those of another, of a batch, and the logits."""
        first, second = self._read(self._alone), self._read(self._other)
        image = difference(first.resid_post, second.resid_post)
        if image <= self._bound / 10:
            raise ModelError(
                f"{self._spec} gives the same vectors for different images, so nothing can be read "
                "of them: its weights or its processor's files are not those of this model."
            )
        for name in self._request.sites:
            if torch.equal(first.sites[name], second.sites[name]):
                raise SiteError(name, "it is the same for different images")
        for inputs in self._partly:
            other = self._read(inputs)
            if difference(first.resid_post, other.resid_post) <= self._bound / 10:
                raise takes_fewer(self._spec, self._images, "not each of them changes its vectors")
            for name in self._request.sites:
                if torch.equal(first.sites[name], other.sites[name]):
                    raise SiteError(name, "not each image of a prompt changes it")
        head = _head_cosine(self._model, self._alone, first)
        if head is not None and head < 0.99:
            raise ModelError(
                f"The last decoder layer of {self._spec} does not lead to its logits (cosine "
                f"{head:.3f}), so its residual stream is not where it was looked for."
            )
        padding = self._padding(first)
        pads = None if padding is None else padding <= self._bound
        return Certificate(self._request, padding, image, head, None, pads)

    def _padding(self, first: Captured) -> float | None:
        """How far an image's vectors change in a padded batch, see ``padding`` above."""
        mask = self._batch.get("attention_mask")
        decoder = not is_encoder_decoder(self._model.config)
        if mask is None or (decoder and not mask[:, -1].all()):
            return math.inf
        try:
            padded = self._read(self._batch)
        except CANNOT as error:
            return None if is_out_of_memory(error) else math.inf
        return max(
            difference(ours, wanted)
            for row, alone in enumerate((self._read(self._longer), first))
            for ours, wanted in (
                (padded.resid_post[row : row + 1], alone.resid_post),
                *((padded.sites[name][row : row + 1], alone.sites[name]) for name in alone.sites),
            )
        )

    def names(self, found: Certificate) -> Certificate:
        """Find the fastest way of scoring that agrees with a plain forward pass."""
        assert self._request.answers is not None
        # The longest name and the one most like it; in a padded batch where one may be.
        longest, *others = sorted(set(self._request.answers), key=len, reverse=True)
        others.sort(key=lambda name: shared(name, longest), reverse=True)
        names = (longest, *others[:1])
        try:
            wanted = torch.stack([_plain_logprob(self._model, self._alone, name) for name in names])
        except CANNOT as error:
            if is_out_of_memory(error):
                raise
            raise NamesError(
                f"The class names cannot be scored as answers of {self._spec}, since it takes no "
                f"tokens behind a prompt in one forward pass ({first_line(error)})"
            ) from error
        inputs = self._batch if found.pads else self._alone
        differences: list[float] = []
        ways: tuple[Scoring, ...] = get_args(Scoring)
        if _has_windows(self._model.config.get_text_config()):
            ways = ways[1:]  # the mask of one pass knows none, which another prompt may exceed
        for scoring in ways:
            try:
                scored = self._read(inputs, layers=(0,), sites=(), answers=names, scoring=scoring)
            except CANNOT as error:
                if is_out_of_memory(error):
                    raise
                continue
            if scored.class_logprob is None:  # another part of the model generates
                continue
            off = float((scored.class_logprob[-1] - wanted).abs().max())
            differences.append(off)
            if off <= self._bound:
                request = replace(self._request, scoring=scoring)
                return replace(found, request=request, names=off)
        raise NamesError(
            f"The class names cannot be scored as answers of {self._spec}, since no way agrees "
            f"with a plain forward pass (off by {min(differences, default=float('nan')):.3g} nats)"
        )


def _has_windows(text: Any) -> bool:
    """Whether some layers see a part of what came before, of a prompt that is long enough."""
    kinds = set(getattr(text, "layer_types", None) or ())
    if any("sliding" in kind or "chunked" in kind for kind in kinds):
        return True
    window = None if kinds else getattr(text, "sliding_window", None)
    return window is not None and window < getattr(text, "max_position_embeddings", math.inf)


def another_image(picture: Image.Image) -> Image.Image:
    """An image of another content and another shape."""
    other = ImageOps.invert(picture).transpose(Image.Transpose.ROTATE_90)
    return other.resize((max(1, other.width // 2), other.height))


def difference(ours: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest difference of two vectors, relative to the length of the second."""
    gap = (ours.float() - wanted.float()).norm(dim=-1)
    return float((gap / wanted.float().norm(dim=-1).clamp_min(1e-12)).max())


def _head_cosine(model: Any, alone: dict[str, torch.Tensor], read: Captured) -> float | None:
    """Cosine between the logits after the prompt and those made from the last layer's vector."""
    head, stack, last = model.get_output_embeddings(), decoder_layers(model), read.resid_post[:, -1]
    behind = answer_layers(model)
    if behind is not None:
        if f"{DECODER_LAYERS}_{len(behind) - 1}" not in read.sites:  # layers are added to a store
            return None
        stack, last = behind, read.sites[f"{DECODER_LAYERS}_{len(behind) - 1}"]
    around = next((part for part in model.modules() if stack in part.children()), None)
    norm = next((getattr(around, name) for name in _FINAL_NORMS if hasattr(around, name)), None)
    if head is None or not isinstance(norm, nn.Module):
        return None
    (made,) = forced_logits(model, [()], **alone)
    ours = head(norm(last[:1].to(model.dtype)))[0].float()
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    if cap is not None:
        ours = cap * torch.tanh(ours / cap)
    made = made[0].float()
    told = made > torch.finfo(model.dtype).min / 2  # some mask the tokens that they may not write
    return float(nn.functional.cosine_similarity(ours[told], made[told], dim=0))


def _plain_logprob(model: Any, alone: dict[str, torch.Tensor], name: Sequence[int]) -> torch.Tensor:
    """The definition of a name's log-probability: one forward pass, no cache, no padding."""
    tokens = torch.tensor([name], device=alone["input_ids"].device)
    if is_encoder_decoder(model.config):
        start = tokens.new_full((1, 1), start_id(model))
        output = model(**alone, decoder_input_ids=torch.cat([start, tokens], dim=1))
    else:
        output = model(**followed_by(model, alone, tokens), use_cache=False)
    return name_logprob(output.logits[:, -len(name) - 1 :], name, end_ids(model))[0]
