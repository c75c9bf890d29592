"""Several questions about one image: the image is run once, and each question continues from there.

In a decoder no token sees what follows it, so the image's vectors are the same whatever is asked
behind it. The model's own cache holds them, and its own ``generate`` continues from a copy.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from signbridge.errors import first_line
from signbridge.model.capture import ResidualCapture
from signbridge.model.certificate import CANNOT, another_image, difference, rounding
from signbridge.model.description import ModelDescription
from signbridge.model.families import PER_TOKEN, decoder_layers, followed_by, is_encoder_decoder
from signbridge.model.forward import (
    Captured,
    CaptureRequest,
    is_out_of_memory,
    run_batch,
    to_model,
)
from signbridge.model.processor import Pictures, as_list, prepare
from signbridge.model.sites import sites_of

Inputs = dict[str, torch.Tensor]
Endings = Sequence[tuple[int, ...]]
"""For each question the ids of its prompt's tokens after those that all prompts begin with."""


# What these hold is joined with what comes, in new memory.
_GROWS_BY_JOINING = (DynamicLayer, DynamicSlidingWindowLayer)


class NotSharedError(Exception):
    """The questions cannot continue from one pass over the image; it says why."""


@dataclass(frozen=True)
class _Prefix:
    """What the questions share, once it has been run.

    Attributes:
        text: its inputs that hold one value a token, shape (batch, tokens, ...).
        cache: keys and values, or whatever else the model keeps of it.
        image_mean: the vectors of position ``image_mean`` by layer, where asked for.
        sites: the vectors of each site that was asked for, shape (batch, width).
    """

    text: Inputs
    cache: Any
    image_mean: dict[int, torch.Tensor]
    sites: dict[str, torch.Tensor]


@torch.inference_mode()
def run_questions(
    model: Any,
    inputs: Inputs,
    image_token: int,
    endings: Endings,
    requests: Sequence[CaptureRequest | None],
) -> list[Captured | None]:
    """Run a batch of images once, and continue from there for each question.

    Args:
        model: a loaded model that :func:`shared_prefix` has tried.
        inputs: the processor's tensors of the images with the first question.
        image_token: the id of the image token.
        endings: as :func:`shared_prefix` found them.
        requests: what to read for each question; None for nothing.

    Returns:
        What each question gave.
    """
    prefix = _run_prefix(model, inputs, image_token, len(endings[0]), requests)
    return [
        None if request is None else _ask(model, prefix, image_token, ending, request)
        for ending, request in zip(endings, requests, strict=True)
    ]


def _run_prefix(
    model: Any,
    inputs: Inputs,
    image_token: int,
    ending: int,
    requests: Sequence[CaptureRequest | None],
) -> _Prefix:
    """Run all but the last tokens of the first question's prompts, as deep as a question goes."""
    text = {name: inputs[name][:, :-ending] for name in PER_TOKEN if name in inputs}
    asked = [request for request in requests if request is not None]
    stack, image_mask = decoder_layers(model), text["input_ids"] == image_token
    deepest = max(request.layers[-1] for request in asked)
    if any(request.max_new_tokens > 0 or request.answers is not None for request in asked):
        deepest = len(stack) - 1
    means = {k for request in asked if request.position == "image_mean" for k in request.layers}
    layers = sorted(means | {deepest})
    capture = ResidualCapture(
        stack,
        layers,
        position="image_mean" if means else "last_prompt",
        attention_mask=text["attention_mask"],
        image_mask=image_mask,
        stop_after_deepest=True,
    )
    sites = sites_of(model)
    names = dict.fromkeys(name for request in asked for name in request.sites)
    readings = {name: sites[name].read(model, inputs, image_mask) for name in names}
    caches: list[Any] = []

    def note(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        caches.append(kwargs.get("past_key_values"))

    with ExitStack() as hooks:
        hooks.callback(model.register_forward_pre_hook(note, with_kwargs=True).remove)
        for reading in readings.values():
            hooks.enter_context(reading)
        hooks.enter_context(capture)
        model.generate(
            **{**inputs, **text}, max_new_tokens=1, use_cache=True, do_sample=False, num_beams=1
        )
    if caches[:1] in ([], [None]):
        raise NotSharedError(f"{type(model).__name__} answers by a part of itself")
    return _Prefix(
        text=text,
        cache=caches[0],
        image_mean=dict(zip(layers, capture.vectors().unbind(1), strict=True)),
        sites={name: part.value for name, part in readings.items() if part.value is not None},
    )


def _ask(
    model: Any,
    prefix: _Prefix,
    image_token: int,
    ending: Sequence[int],
    request: CaptureRequest,
) -> Captured:
    """Put one question behind what has been run."""
    sites = {name: prefix.sites[name] for name in request.sites}
    means = None
    if request.position == "image_mean":  # what stands before a question does not depend on it
        means = torch.stack([prefix.image_mean[layer] for layer in request.layers], dim=1)
        if request.max_new_tokens == 0 and request.answers is None:
            return Captured(means, sites, None)
    batch = len(prefix.text["input_ids"])
    tokens = torch.tensor([list(ending)], device=model.device).expand(batch, -1)
    asked = followed_by(model, prefix.text, tokens)
    cache = _copied(prefix.cache)
    read = run_batch(model, asked, image_token, replace(request, sites=()), cache)
    return replace(read, sites=sites, resid_post=read.resid_post if means is None else means)


def _copied(cache: Any) -> Any:
    """A cache that can grow by itself; keys and values that are never written to are not copied."""
    layers = [layer for layer in cache.layers if type(layer) in _GROWS_BY_JOINING]
    kept = [tensor for layer in layers for tensor in (layer.keys, layer.values)]
    return copy.deepcopy(cache, {id(tensor): tensor for tensor in kept})


@torch.inference_mode()
def shared_prefix(
    model: Any,
    description: ModelDescription,
    prompts: Sequence[str],
    pictures: Pictures,
    requests: Sequence[CaptureRequest | None],
    *,
    pads: bool,
) -> tuple[Endings, float]:
    """Find what prompts share, and try whether the model continues from there as it runs a whole.

    Args:
        model: the loaded model.
        description: of that model.
        prompts: two or more, as :func:`~signbridge.model.prompts.prompt_for_processor` writes them.
        pictures: in mode RGB, those of one sample of the run.
        requests: what the run will read for each prompt; None for nothing.
        pads: whether a batch may be padded.

    Returns:
        The prompts' endings, and the largest difference from passes over whole prompts: relative,
        of vectors, or in nats, of names.

    Raises:
        NotSharedError: if nothing is shared, or the numbers are others.
    """
    name = type(model).__name__
    if is_encoder_decoder(model.config):
        raise NotSharedError(f"the encoder of {name} reads image and question together")
    if any(one and one.answers is not None and one.scoring == "forced" for one in requests):
        raise NotSharedError(f"{name} scores class names by the whole prompt alone")
    image_token, processor = description.image_token_id, description.processor
    several = as_list(pictures)
    samples = [several, [another_image(picture) for picture in several]][: 2 if pads else 1]
    whole = [
        to_model(prepare(processor, [prompt] * len(samples), samples), model) for prompt in prompts
    ]
    endings = _endings(whole, image_token)
    alone = to_model(prepare(processor, prompts[:1], [several]), model)
    if _sees_the_question(model, image_token, alone, endings):
        raise NotSharedError(f"what {name} makes of an image depends on the question behind it")
    try:
        off = _difference_from_whole(model, image_token, whole, endings, requests)
    except CANNOT as error:
        if is_out_of_memory(error):
            raise NotSharedError(f"the memory of {model.device} does not hold both ways") from error
        raise NotSharedError(f"{name} cannot continue from it ({first_line(error)})") from error
    if not off <= rounding(model):
        raise NotSharedError(
            f"{name} gives other numbers when it continues from an image's end (by {off:.2g})"
        )
    return endings, off


def _endings(whole: Sequence[Inputs], image_token: int) -> Endings:
    """What follows the longest beginning that all prompts share, a token each at least."""
    ids = [inputs["input_ids"] for inputs in whole]
    shortest = min(one.shape[1] for one in ids)
    same = torch.stack([one[:, :shortest] == ids[0][:, :shortest] for one in ids])
    shared = int(same.all(dim=0).all(dim=0).long().cumprod(0).sum())
    shared = min(shared, shortest - 1)
    if any((one[:, shared:] == image_token).any() for one in ids):
        raise NotSharedError("the prompts differ before the end of their image")
    for inputs in whole:  # all that is one value a token is the same for them too
        for name in PER_TOKEN:
            if name in inputs and not torch.equal(
                inputs[name][:, :shared], whole[0][name][:, :shared]
            ):
                raise NotSharedError(f"their inputs {name} differ before the end of their image")
    return [tuple(one[0, shared:].tolist()) for one in ids]


def _sees_the_question(model: Any, image_token: int, whole: Inputs, endings: Endings) -> bool:
    """Whether the image tokens' vectors change with the tokens behind them.

    Both passes have the same shape, so a decoder gives the same bits: this tells rounding from an
    attention that goes both ways, in half precision too.
    """
    used = sorted({token for ending in endings for token in ending})
    following = dict(zip(used, [*used[1:], used[0]], strict=True))
    changed = whole["input_ids"].clone()
    other = [following[token] for token in endings[0]]
    changed[:, -len(other) :] = torch.tensor(other, device=changed.device)
    layers = tuple(range(len(decoder_layers(model))))
    request = CaptureRequest(layers, position="image_mean")
    one, two = (
        run_batch(model, {**whole, "input_ids": ids}, image_token, request).resid_post
        for ids in (whole["input_ids"], changed)
    )
    return difference(two, one) > rounding(model) / 20


def _difference_from_whole(
    model: Any,
    image_token: int,
    whole: Sequence[Inputs],
    endings: Endings,
    requests: Sequence[CaptureRequest | None],
) -> float:
    """The largest difference between questions that continue and prompts that are run whole."""
    # Two of them: the second shows that the first has left the image as it was.
    chosen = [k for k, request in enumerate(requests) if request is not None][:2]
    asked = [
        _with_two_tokens(request) if request is not None and k in chosen else None
        for k, request in enumerate(requests)
    ]
    last, ours = chosen[-1], run_questions(model, whole[0], image_token, endings, asked)[chosen[-1]]
    request = asked[last]
    assert request is not None
    assert ours is not None
    wanted = run_batch(model, whole[last], image_token, request)
    # Only where rounding has not made another answer, whose second token reads otherwise.
    rows: Any = slice(None)
    if request.position == "last_generated":
        assert ours.answer_ids is not None
        assert wanted.answer_ids is not None
        rows = (ours.answer_ids[:, 0] == wanted.answer_ids[:, 0]).nonzero()[:, 0]
        if not len(rows):
            return math.inf
    off = difference(ours.resid_post[rows], wanted.resid_post[rows])
    off = max(off, *(difference(ours.sites[k], wanted.sites[k]) for k in ours.sites), 0.0)
    if ours.class_logprob is not None and wanted.class_logprob is not None:
        off = max(off, float((ours.class_logprob - wanted.class_logprob).abs().max()))
    return off


def _with_two_tokens(request: CaptureRequest) -> CaptureRequest:
    """Enough of an answer to see that its second token stands where it should."""
    if request.max_new_tokens == 0:
        return request
    position = "last_generated" if request.position == "last_prompt" else request.position
    return replace(request, max_new_tokens=min(2, request.max_new_tokens), position=position)
