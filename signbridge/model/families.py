"""Where each family of vision-language models keeps the parts that SignBridge reads.

Checked against transformers 5: ``get_decoder()`` leads to the stack of decoder layers for LLaVA,
LLaVA-NeXT and the other ``*ForConditionalGeneration`` families with one text decoder.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from signbridge.errors import ModelError

# Vision towers that pack the patches of a batch's images into one row, whoever they belong to.
_PACKED_VISION = {"pixtral"}


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """Return the decoder layers of ``model``, first to last.

    Raises:
        ModelError: if the model has no stack of decoder layers where transformers keeps one.
    """
    decoder = model.get_decoder()
    for name in ("layers", "block"):
        layers = getattr(decoder, name, None)
        if isinstance(layers, nn.ModuleList) and len(layers) > 0:
            return layers
    raise ModelError(
        f"{type(model).__name__} keeps no stack of decoder layers under its text decoder: "
        "give a model of the LLaVA family."
    )


def projector(model: nn.Module) -> nn.Module | None:
    """Return the module that maps patch features into the decoder's space, or None.

    LLaVA and its relatives call it ``multi_modal_projector``. Its input is what the baseline
    ``vision`` averages; for a family that keeps it elsewhere that baseline is left out.
    """
    named = model.named_modules()
    return next((part for name, part in named if name.endswith("multi_modal_projector")), None)


def vision_size(model: nn.Module) -> int | None:
    """Return the length of the patch features entering the projector, or None without one."""
    found = projector(model)
    config: Any = getattr(model, "config", None)
    if found is None or config.vision_config.model_type in _PACKED_VISION:
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
        f"The configuration of this {config.model_type!r} model names no image token: "
        "give a model of the LLaVA family."
    )


def position_ids(model: nn.Module, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the ``position_ids`` argument that numbers the real tokens from 0 in every row.

    With left padding the forward pass would otherwise number the padding too, which generation
    does not do. Families with multi-axis rotary positions number their tokens themselves.

    Args:
        model: the model that will run.
        attention_mask: shape (batch, tokens), 1 for a real token.
    """
    inner = getattr(model, "model", model)
    if hasattr(inner, "get_rope_index"):
        return {}
    return {"position_ids": (attention_mask.long().cumsum(-1) - 1).clamp_min(0)}


def tiles_per_image(model: nn.Module, inputs: dict[str, torch.Tensor]) -> list[int] | None:
    """Return how many tiles each image of the batch was cut into, or None for one each.

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
