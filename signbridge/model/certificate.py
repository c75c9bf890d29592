"""What is tried on a model when it is loaded, before anything is stored.

nnterp and nnbench (ndif-team, 2026) do the like for text models: a family is taken because its
numbers agree with its own plain forward pass, not because its name is known. What does not agree is
done another way, left out and said, or refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from PIL import Image, ImageOps
from torch import nn

from signbridge.errors import ModelError, NamesError, SignBridgeError, first_line
from signbridge.model.answers import Scoring, end_ids, name_logprob
from signbridge.model.description import ModelDescription
from signbridge.model.families import decoder_layers, followed_by, is_encoder_decoder
from signbridge.model.forward import Captured, CaptureRequest, run_batch, to_model
from signbridge.model.processor import prepare

# What rounding may do: measured as 1e-6 to 1e-5 in float32 on tiny models of 23 families.
_ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-3}
_HALF_ROUNDING = 0.1
_FINAL_NORMS = ("norm", "final_layer_norm", "final_layernorm", "ln_f", "final_norm")
# What a family answers to a way of scoring that it does not allow.
_NOT_SO = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError)


@dataclass(frozen=True)
class Certificate:
    """What a model was found to do.

    Attributes:
        request: what to read, scored in the fastest way that is right.
        padding: largest relative difference between the vectors of an image in a padded batch and
            those of the image alone.
        image: largest relative difference between the vectors of two images.
        head: cosine between the model's logits and those made from the last layer's vector by the
            final norm and the unembedding; None where these have no standard place.
        names: largest difference between a name's log-probability and that of a plain forward pass
            of prompt and name, in nats; None without forced choice.
        pads: whether a batch may be padded.
    """

    request: CaptureRequest
    padding: float
    image: float
    head: float | None
    names: float | None
    pads: bool

    def record(self) -> dict[str, Any]:
        """Return the numbers as the store keeps them."""
        found = {
            "check_padding": self.padding,
            "check_image": self.image,
            "check_head": self.head,
            "check_names": self.names,
            "forced_choice_by": None if self.names is None else self.request.scoring,
        }
        return {name: value for name, value in found.items() if value is not None}


@torch.inference_mode()
def certify(
    model: Any,
    description: ModelDescription,
    prompt: str,
    picture: Image.Image,
    request: CaptureRequest,
) -> Certificate:
    """Try a loaded model on one real image and on that image turned and inverted.

    Args:
        model: the loaded model.
        description: of that model.
        prompt: as :func:`~signbridge.model.prompts.prompt_for_processor` writes it.
        picture: in mode RGB, an image of the run.
        request: what the run will read.

    Raises:
        ModelError: if the stored vectors would not be what they are called: they do not lead to
            the model's logits, or do not depend on the image; or if the names cannot be scored;
            or if the model does not run, since its files are not of one model.
    """
    try:
        return _certified(model, description, prompt, picture, request)
    except (SignBridgeError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        if "alloc" in str(error).lower():  # memory, in the words of the CPU, cuBLAS and cuDNN
            raise
        # That files do not fit each other shows where the model stumbles over it.
        raise ModelError(
            f"{description.spec} does not run on one image ({first_line(error)}): its config.json, "
            "generation_config.json and processor's files do not fit each other, or this version "
            "of transformers."
        ) from error


def _certified(
    model: Any,
    description: ModelDescription,
    prompt: str,
    picture: Image.Image,
    request: CaptureRequest,
) -> Certificate:
    spec, processor, image_token = (
        description.spec,
        description.processor,
        description.image_token_id,
    )
    other = ImageOps.invert(picture).transpose(Image.Transpose.ROTATE_90)
    half = other.resize((max(1, other.width // 2), other.height))
    bound = _ROUNDING.get(model.dtype, _HALF_ROUNDING)

    def inputs(prompts: Sequence[str], pictures: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        return to_model(prepare(processor, prompts, pictures), model)

    everything = replace(
        request,
        layers=tuple(range(len(decoder_layers(model)))),
        position="last_prompt",
        max_new_tokens=0,
        answers=None,
    )

    def read(batch: dict[str, torch.Tensor]) -> Captured:
        return run_batch(model, batch, image_token, everything)

    alone, longer = inputs([prompt], [picture]), prompt + " 1 2 3 4 5 6 7 8"
    batch = inputs([prompt, longer], [picture, half])
    first, second = read(alone), read(inputs([prompt], [half]))
    padded = read(batch)
    image = _difference(first.resid_post, second.resid_post)
    if image <= bound / 10:
        raise ModelError(
            f"{spec} gives the same vectors for different images, so nothing can be read of them: "
            "its weights or its processor's files are not those of this model."
        )
    for name in request.sites:
        if torch.equal(first.sites[name], second.sites[name]):
            raise ModelError(
                f"The {name!r} baseline of {spec} is the same for different images, so this family "
                "is not supported."
            )
    padding = max(
        _difference(first.resid_post, padded.resid_post[:1]),
        *(_difference(first.sites[name], padded.sites[name][:1]) for name in request.sites),
        0.0,
    )
    head = _head_cosine(model, alone, first.resid_post[0, -1])
    if head is not None and head < 0.99:
        raise ModelError(
            f"The last decoder layer of {spec} does not lead to its logits (cosine {head:.3f}), "
            "so its residual stream is not where it was looked for."
        )
    found = Certificate(request, padding, image, head, None, padding <= bound)
    if request.answers is None:
        return found
    # Two names, the longest among them; in a padded batch where one may be.
    names = tuple(sorted(set(request.answers), key=len, reverse=True)[:2])
    wanted = torch.stack([_plain_logprob(model, alone, name) for name in names])
    differences: list[float] = []
    ways: tuple[Scoring, ...] = get_args(Scoring)
    if "sliding_attention" in (getattr(model.config.get_text_config(), "layer_types", None) or ()):
        ways = ways[1:]  # the mask of one pass knows no window, which another prompt may exceed
    for scoring in ways:
        asked = replace(everything, layers=(0,), sites=(), answers=names, scoring=scoring)
        try:
            scored = run_batch(model, batch if found.pads else alone, image_token, asked)
        except torch.OutOfMemoryError:
            raise
        except _NOT_SO:
            continue
        if scored.class_logprob is None:  # another part of the model generates
            continue
        difference = float((scored.class_logprob[0] - wanted).abs().max())
        differences.append(difference)
        if difference <= bound:
            return replace(found, request=replace(request, scoring=scoring), names=difference)
    raise NamesError(
        f"The class names cannot be scored as answers of {spec}, since no way agrees with a plain "
        f"forward pass (off by {min(differences, default=float('nan')):.3g} nats)"
    )


def _difference(ours: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest difference of two vectors, relative to the length of the second."""
    gap = (ours.float() - wanted.float()).norm(dim=-1)
    return float((gap / wanted.float().norm(dim=-1).clamp_min(1e-12)).max())


def _head_cosine(model: Any, alone: dict[str, torch.Tensor], last: torch.Tensor) -> float | None:
    """Cosine between the logits after the prompt and those made from the last layer's vector."""
    head, stack = model.get_output_embeddings(), decoder_layers(model)
    around = next((part for part in model.modules() if stack in part.children()), None)
    norm = next((getattr(around, name) for name in _FINAL_NORMS if hasattr(around, name)), None)
    if is_encoder_decoder(model.config) or head is None or not isinstance(norm, nn.Module):
        return None
    made = model.generate(
        **alone,
        max_new_tokens=1,
        do_sample=False,
        num_beams=1,
        output_logits=True,
        return_dict_in_generate=True,
    ).logits[0][0]
    ours = head(norm(last.to(model.dtype)[None]))[0].float()
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    if cap is not None:
        ours = cap * torch.tanh(ours / cap)
    return float(nn.functional.cosine_similarity(ours, made.float(), dim=0))


def _plain_logprob(model: Any, alone: dict[str, torch.Tensor], name: Sequence[int]) -> torch.Tensor:
    """The definition of a name's log-probability: one forward pass, no cache, no padding."""
    tokens = torch.tensor([name], device=alone["input_ids"].device)
    if is_encoder_decoder(model.config):
        text = model.config.get_text_config()
        start = tokens.new_full((1, 1), text.decoder_start_token_id)
        output = model(**alone, decoder_input_ids=torch.cat([start, tokens], dim=1))
    else:
        output = model(**followed_by(model, alone, tokens), use_cache=False)
    return name_logprob(output.logits[:, -len(name) - 1 :], name, end_ids(model))[0]
