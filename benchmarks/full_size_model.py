"""The models that ``full_size.py`` runs, their images, and what a forward pass has to compute."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from signbridge.images import ImageSet
from signbridge.model.description import TINY_FOLDER

CONFIGS: dict[str, dict[str, Any]] = {
    # llava-hf/llava-1.5-7b-hf: Vicuna 7B behind CLIP ViT-L/14 at 336 pixels.
    "full": {
        "text": {
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "head_dim": 128,
            "vocab_size": 32064,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
        },
        "vision": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 336,
            "patch_size": 14,
            "projection_dim": 768,
        },
        "batch_sizes": [1, 8, 16, 32, 64, 128],
        "deepest": [8, 16, 24, 31],
        "images": 4096,
    },
    "small": {
        "text": {
            "hidden_size": 256,
            "intermediate_size": 704,
            "num_hidden_layers": 8,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "head_dim": 64,
        },
        "vision": {
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 3,
            "image_size": 56,
            "patch_size": 14,
        },
        "batch_sizes": [1, 8],
        "deepest": [3, 7],
        "images": 32,
    },
}


def write_model_folder(folder: Path, config: dict[str, Any]) -> None:
    """Write configuration and processor of a LLaVA, and no weights."""
    from transformers import AutoProcessor, LlavaConfig

    shutil.copytree(
        TINY_FOLDER,
        folder,
        ignore=shutil.ignore_patterns("*.safetensors", "*.md"),
        dirs_exist_ok=True,
    )
    llava: Any = LlavaConfig.from_pretrained(folder)
    for part, values in (
        (llava.text_config, config["text"]),
        (llava.vision_config, config["vision"]),
    ):
        for name, value in values.items():
            setattr(part, name, value)
    side, patch = llava.vision_config.image_size, llava.vision_config.patch_size
    llava.image_seq_length = (side // patch) ** 2
    llava.save_pretrained(folder)
    processor: Any = AutoProcessor.from_pretrained(TINY_FOLDER, backend="pil")
    processor.patch_size = patch
    processor.image_processor.size = {"shortest_edge": side}
    processor.image_processor.crop_size = {"height": side, "width": side}
    processor.save_pretrained(folder)


def repeated(images: ImageSet, n_images: int) -> ImageSet:
    """A set of so many images, those of another again and again."""
    rows = [k % len(images) for k in range(n_images)]
    return replace(
        images,
        sample_id=[f"{images.sample_id[row]}#{k}" for k, row in enumerate(rows)],
        label=images.label[rows],
        source_split=[images.source_split[row] for row in rows],
        image_sha256=[images.image_sha256[row] for row in rows],
        pixels=images.pixels[rows],
        group=np.arange(n_images) % len(images),
    )


def multiply_adds(model: nn.Module, run: Callable[[], object]) -> int:
    """Floating-point operations of a forward pass, two for each multiplication with a weight.

    Counted where they are: at every linear layer, convolution and self-attention that runs. Norms,
    activations and softmax are left out, a few in a thousand.
    """
    total = 0

    def linear(layer: Any, inputs: tuple[torch.Tensor, ...], _output: object) -> None:
        nonlocal total
        total += 2 * inputs[0].numel() * layer.out_features

    def convolution(layer: Any, _inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        total += 2 * output.numel() * layer.weight[0].numel()

    def attention(
        layer: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any], _out: object
    ) -> None:
        nonlocal total
        hidden = inputs[0] if inputs else kwargs["hidden_states"]
        batch, tokens, _ = hidden.shape
        width = layer.q_proj.out_features
        # Queries with keys, then weights with values; a causal mask needs half of both.
        total += 4 * batch * tokens * tokens * width // (2 if layer.is_causal else 1)

    handles: list[Any] = []
    for part in model.modules():
        if isinstance(part, nn.Linear):
            handles.append(part.register_forward_hook(linear))
        elif isinstance(part, nn.Conv2d):
            handles.append(part.register_forward_hook(convolution))
        elif hasattr(part, "q_proj") and hasattr(part, "is_causal"):
            handles.append(part.register_forward_hook(attention, with_kwargs=True))
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return total
