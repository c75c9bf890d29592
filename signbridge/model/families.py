"""Where each family of vision-language models keeps the parts that SignBridge reads.

The parts are found by what transformers itself offers (``get_decoder()``, the processor's image
token, the configuration); what deviates stands in the small tables here. Whether all of it is right
for a model is tried when it is loaded (``signbridge/model/certificate.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from signbridge.errors import ModelError

# Families whose projector takes features of several layers, or patches, joined.
_JOINED = {"vipllava", "internvl"}
# Families whose projector takes padding too, and a mask beside it.
_MASKED = {"aria"}

PER_TOKEN = (
    "input_ids",
    "attention_mask",
    "token_type_ids",
    "mm_token_type_ids",
    "moe_mm_token_type_ids",
    "cross_attention_mask",
)
"""Inputs that hold one value, or one row, for each token of the prompt."""

# Token type of text that follows the prompt, where it is not 0: PaliGemma's prompt is 0, what
# follows it 1.
_FOLLOWING_TYPE = {"paligemma": 1}


# What the two ends of an encoder-decoder call the number of their layers, T5 and BART among them.
_COUNTS = {
    "encoder": ("encoder_layers", "num_layers", "num_hidden_layers"),
    "decoder": ("decoder_layers", "num_decoder_layers", "num_hidden_layers"),
}


SHUT_AT_FIRST = ("cross_attn_attn_gate", "cross_attn_mlp_gate", "mm_input_projection_weight")
"""Parameters that let the image in, and that transformers initialises to 0, so that training opens
them (Mllama; Gemma 3 and T5Gemma 2)."""


def is_encoder_decoder(config: Any) -> bool:
    """Whether the text model has an encoder, which takes image and prompt, beside its decoder."""
    return any(
        getattr(one, "is_encoder_decoder", False) for one in (config, config.get_text_config())
    )


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """Return the stack of layers that image and prompt run through, first to last.

    It is the decoder's, or, of an encoder-decoder, the encoder's: its decoder sees the answer
    alone (:func:`answer_layers`).

    Raises:
        ModelError: if the model has no such stack where transformers keeps one.
    """
    if not is_encoder_decoder(model.config):
        count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
        return _stack(model, [model.get_decoder()], count)
    parts = [model.get_encoder(), getattr(model, "language_model", None), model.get_decoder()]
    return _stack(model, parts, _count(model, "encoder"), without="decoder")


def answer_layers(model: PreTrainedModel) -> nn.ModuleList | None:
    """Return an encoder-decoder's stack of decoder layers, first to last; None for other models.

    Raises:
        ModelError: as of :func:`decoder_layers`.
    """
    if not is_encoder_decoder(model.config):
        return None
    return _stack(model, [model.get_decoder()], _count(model, "decoder"), without="encoder")


def _count(model: PreTrainedModel, end: str) -> int | None:
    """How many layers an encoder-decoder has at one of its ends."""
    config: Any = model.config
    text = getattr(config, end, config).get_text_config()
    return next((count for name in _COUNTS[end] if (count := getattr(text, name, None))), None)


def _stack(
    model: PreTrainedModel, parts: Sequence[Any], count: int | None, without: str = "vision"
) -> nn.ModuleList:
    """The first list of so many layers in some parts of a model, none of the vision tower."""
    for part in parts:
        for name, stack in part.named_modules() if part is not None else ():
            if (
                isinstance(stack, nn.ModuleList)
                and len(stack) == count
                and "vision" not in name
                and not name.startswith(without)
            ):
                return stack
    raise ModelError(
        f"{type(model).__name__} keeps no stack of {count} layers under its text model, so its "
        "residual stream cannot be read: give another model."
    )


def projector(model: PreTrainedModel) -> nn.Module | None:
    """Return the module that LLaVA and its relatives map rows of patch features with, or None.

    They call it ``multi_modal_projector``, and which features of the tower enter it is theirs to
    choose. What enters is what the baseline ``vision`` averages; of any other family it is what its
    :func:`vision_tower` gives.
    """
    named = model.named_modules()
    found: nn.Module | None = next(
        (part for name, part in named if name.endswith("multi_modal_projector")), None
    )
    config: Any = model.config
    joined = config.model_type in _JOINED
    width = getattr(_vision_config(config), "hidden_size", None)
    if found is None or config.model_type in _MASKED:
        return None
    if not (joined or _width_in(found) == width):
        return None
    return found


def _vision_config(config: Any) -> Any:
    """The settings of the vision tower, or None; T5Gemma 2 keeps them with its encoder's."""
    return getattr(getattr(config, "encoder", config), "vision_config", None)


def _width_in(part: nn.Module) -> int | None:
    linear = next((inner for inner in part.modules() if isinstance(inner, nn.Linear)), None)
    return None if linear is None else int(linear.in_features)


def vision_tower(model: PreTrainedModel) -> nn.Module | None:
    """Return the module that makes an image's patch features, or None where it is not known."""
    found: nn.Module | None = model.get_encoder(modality="image")
    if isinstance(found, PreTrainedModel) and found is model.get_encoder():
        found = found.get_encoder(modality="image")  # T5Gemma 2's encoder takes the image too
    return None if found is model else found


def image_tokens_enter(model: nn.Module) -> bool:
    """Whether the image's vectors stand among the tokens that enter the first layer.

    A family with cross-attention to the image (Mllama) has one token in the text for it, whose
    vector is the same for every image.
    """
    config: Any = getattr(model, "config", None)
    return getattr(config.get_text_config(), "cross_attention_layers", None) is None


def vision_size(model: PreTrainedModel) -> int | None:
    """Return the length of the patch features that are averaged, or None where it is not known."""
    entered = projector(model)
    if entered is not None:
        return _width_in(entered)
    config: Any = model.config
    vision = _vision_config(config)
    # What a tower gives, in the words of Mllama, of Qwen2-VL and (one width a stage) Florence-2,
    # and of the others.
    named = ("vision_output_dim", "embed_dim", "hidden_size")
    width = next((found for name in named if (found := getattr(vision, name, None))), None)
    width = width[-1] if isinstance(width, (list, tuple)) else width
    return width if isinstance(width, int) and vision_tower(model) is not None else None


def pixels_of(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the processor's tensor of pixels; some families name it after its kind."""
    return next(value for name, value in inputs.items() if name.startswith("pixel_values"))


def class_tokens(model: PreTrainedModel, inputs: dict[str, torch.Tensor], tokens: int) -> int:
    """Return how many of a vision tower's tokens of a tile come before those of its patches."""
    config: Any = model.config
    side, pixels = getattr(_vision_config(config), "patch_size", None), pixels_of(inputs)
    side = side[0] if isinstance(side, (list, tuple)) else side
    if not isinstance(side, int) or pixels.ndim < 4:
        return 0
    patches = (pixels.shape[-2] // side) * (pixels.shape[-1] // side)
    return max(0, tokens - patches)


def image_token_id(config: Any) -> int:
    """Return the id of the token that stands for one image patch in the prompt.

    Raises:
        ModelError: if the configuration names none, so the image's place cannot be found.
    """
    for name in ("image_token_id", "image_token_index"):
        value = getattr(config, name, None)
        if isinstance(value, int):
            return value
    raise ModelError(
        f"The configuration of this {config.model_type!r} model names no image token, so the "
        "image's place in the prompt cannot be found: give another model."
    )


def followed_by(
    model: nn.Module, inputs: dict[str, torch.Tensor], tokens: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return the inputs of a prompt with tokens behind it.

    Args:
        model: the model that will run.
        inputs: the processor's tensors of a batch without padding on the right.
        tokens: ids, shape (batch, new).
    """
    config: Any = getattr(model, "config", None)
    batch, new = tokens.shape
    length = inputs["input_ids"].shape[1]
    longer = {
        **inputs,
        "input_ids": torch.cat([inputs["input_ids"], tokens], dim=1),
        "attention_mask": nn.functional.pad(inputs["attention_mask"], (0, new), value=1),
    }
    following = _FOLLOWING_TYPE.get(config.model_type, 0)
    for name in (name for name in PER_TOKEN if name.endswith("token_type_ids")):
        if name in inputs:
            longer[name] = nn.functional.pad(inputs[name], (0, new), value=following)
    if "cross_attention_mask" in inputs:
        mask = inputs["cross_attention_mask"]
        assert mask.shape[:2] == (batch, length)
        rest = mask[:, -1:].expand(-1, new, *mask.shape[2:])
        longer["cross_attention_mask"] = torch.cat([mask, rest], dim=1)
    return longer


def tiles_per_image(model: nn.Module, inputs: dict[str, torch.Tensor]) -> list[int] | None:
    """Return how many tiles the images of each prompt were cut into, or None where not known.

    LLaVA-NeXT cuts an image into a grid of tiles that depends on its size; its successor
    LLaVA-OneVision does so in prompts of one image.
    """
    config: Any = getattr(model, "config", None)
    pinpoints = getattr(config, "image_grid_pinpoints", None)
    if pinpoints is None or "image_sizes" not in inputs:
        return None
    from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

    sizes, batch = inputs["image_sizes"].tolist(), len(inputs["input_ids"])
    images = len(sizes) // batch
    if images > 1 and "batch_num_images" in inputs:
        return [images] * batch
    tiles = [
        int(image_size_to_num_patches(size, pinpoints, config.vision_config.image_size))
        for size in sizes
    ]
    return [sum(tiles[k : k + images]) for k in range(0, len(tiles), images)]
