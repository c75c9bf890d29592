"""Where each family of vision-language models keeps the parts that SignBridge reads.

The parts are found by what transformers itself offers (``get_decoder()``, the processor's image
token, the configuration); what deviates stands in the small tables here. Whether all of it is right
for a model is tried when it is loaded (``signbridge/model/certificate.py``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from signbridge.errors import ModelError

# Vision towers that pack the patches of a batch's images into one row, or give maps of channels,
# whoever they belong to: their images' patches cannot be told apart by rows.
_NOT_BY_ROWS = {"pixtral", "florence_vision"}

PER_TOKEN = (
    "input_ids",
    "attention_mask",
    "token_type_ids",
    "mm_token_type_ids",
    "cross_attention_mask",
)
"""Inputs that hold one value, or one row, for each token of the prompt."""

# Token type of text that follows the prompt, where it is not 0: PaliGemma's prompt is 0, what
# follows it 1.
_FOLLOWING_TYPE = {"paligemma": 1}


def is_encoder_decoder(config: Any) -> bool:
    """Whether the text model has an encoder, which takes image and prompt, beside its decoder."""
    return bool(getattr(config.get_text_config(), "is_encoder_decoder", False))


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """Return the stack of layers that image and prompt run through, first to last.

    It is the decoder's, or, of an encoder-decoder, the encoder's: its decoder sees the answer
    alone.

    Raises:
        ModelError: if the model has no such stack where transformers keeps one.
    """
    config: Any = model.config
    text = config.get_text_config()
    parts: list[Any] = [model.get_decoder()]
    count = getattr(text, "num_hidden_layers", None)
    if is_encoder_decoder(config):
        parts = [model.get_encoder(), getattr(model, "language_model", None), *parts]
        count = getattr(text, "encoder_layers", getattr(text, "num_layers", count))
    for part in parts:
        for name, stack in part.named_modules() if part is not None else ():
            if (
                isinstance(stack, nn.ModuleList)
                and len(stack) == count
                and "vision" not in name
                and not (is_encoder_decoder(config) and name.startswith("decoder"))
            ):
                return stack
    raise ModelError(
        f"{type(model).__name__} keeps no stack of {count} layers under its text model, so its "
        "residual stream cannot be read: give another model."
    )


def projector(model: nn.Module) -> nn.Module | None:
    """Return the module that maps patch features into the decoder's space, or None.

    LLaVA and its relatives call it ``multi_modal_projector``. Its input is what the baseline
    ``vision`` averages; for a family that keeps it elsewhere that baseline is left out.
    """
    if not image_tokens_enter(model):
        return None
    named = model.named_modules()
    return next((part for name, part in named if name.endswith("multi_modal_projector")), None)


def image_tokens_enter(model: nn.Module) -> bool:
    """Whether the image's vectors stand among the tokens that enter the first layer.

    A family with cross-attention to the image (Mllama) has one token in the text for it, whose
    vector is the same for every image.
    """
    config: Any = getattr(model, "config", None)
    return getattr(config.get_text_config(), "cross_attention_layers", None) is None


def vision_size(model: nn.Module) -> int | None:
    """Return the length of the patch features entering the projector, or None without one."""
    found = projector(model)
    config: Any = getattr(model, "config", None)
    if found is None or config.vision_config.model_type in _NOT_BY_ROWS:
        return None
    linear = next((m for m in found.modules() if isinstance(m, nn.Linear)), None)
    return None if linear is None else int(linear.in_features)


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
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in inputs:
            longer[name] = nn.functional.pad(inputs[name], (0, new), value=following)
    if "cross_attention_mask" in inputs:
        mask = inputs["cross_attention_mask"]
        assert mask.shape[:2] == (batch, length)
        rest = mask[:, -1:].expand(-1, new, *mask.shape[2:])
        longer["cross_attention_mask"] = torch.cat([mask, rest], dim=1)
    return longer


def tiles_per_image(model: nn.Module, inputs: dict[str, torch.Tensor]) -> list[int] | None:
    """Return how many tiles each image of the batch was cut into, or None where not known.

    LLaVA-NeXT cuts an image into a grid of tiles that depends on its size.
    """
    config: Any = getattr(model, "config", None)
    pinpoints = getattr(config, "image_grid_pinpoints", None)
    if pinpoints is None or "image_sizes" not in inputs:
        return None
    from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

    return [
        int(image_size_to_num_patches(size, pinpoints, config.vision_config.image_size))
        for size in inputs["image_sizes"].tolist()
    ]
