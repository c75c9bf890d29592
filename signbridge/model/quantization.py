"""4-bit NormalFloat quantisation through bitsandbytes, and the record of what it covers.

NF4 with double quantisation: Dettmers et al. 2023, "QLoRA", arXiv 2305.14314.
"""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import nn
from transformers import PreTrainedModel

from signbridge.errors import ModelError
from signbridge.model import ComputeDtype, Quantization


def compute_dtype_for(choice: ComputeDtype, device: torch.device | str) -> torch.dtype:
    """Return the dtype that the forward pass computes in.

    ``auto`` is float16 on a GPU, as the original study ran, and float32 on a CPU, where float16
    is slower and less exact.

    Raises:
        ModelError: if ``choice`` is not one of the names of :data:`ComputeDtype`.
    """
    if choice not in get_args(ComputeDtype):
        raise ModelError(
            f"Compute dtype {choice!r} is not one of {', '.join(get_args(ComputeDtype))}."
        )
    if choice == "auto":
        choice = "float32" if torch.device(device).type == "cpu" else "float16"
    dtype = getattr(torch, choice)
    assert isinstance(dtype, torch.dtype)
    return dtype


def skipped_modules(skeleton: PreTrainedModel) -> list[str]:
    """Return the names of the modules that NF4 leaves alone: the output embedding.

    This is what ``load_in_4bit=True`` does by default, so the model measured is the model that
    people run in 4 bits: the vision tower and the projector are quantised with the decoder.
    """
    output = skeleton.get_output_embeddings()
    return [name for name, module in skeleton.named_modules() if module is output]


def quantized_parts(skeleton: nn.Module, skip: list[str]) -> list[str]:
    """Return the model's parts whose linear layers NF4 covers, such as ``model.vision_tower``."""
    names = [
        name
        for name, module in skeleton.named_modules()
        if isinstance(module, nn.Linear) and name not in skip
    ]
    return sorted({".".join(name.split(".")[:2]) for name in names})


def nf4_config(compute_dtype: torch.dtype, skip: list[str]) -> Any:
    """Return transformers' configuration of NF4 with double quantisation.

    Raises:
        ModelError: if bitsandbytes is not installed.
    """
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise ModelError(
            f"--quantization nf4 needs bitsandbytes, which cannot be imported ({error}): "
            "install it with 'pip install bitsandbytes', or pass --quantization none."
        ) from error
    from transformers import BitsAndBytesConfig

    settings: Any = BitsAndBytesConfig
    return settings(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        llm_int8_skip_modules=skip,
    )


def keep_compute_dtype(model: nn.Module, compute_dtype: torch.dtype) -> None:
    """Make 4-bit layers on a CPU compute in the dtype that the store will name.

    On a processor with AVX512-BF16, bitsandbytes (0.50) computes them in bfloat16 whatever dtype
    was asked for, so the vectors would depend on the processor (by about 1 %, see docs/method.md).
    """
    if compute_dtype == torch.bfloat16:
        return
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def weight_bytes(
    skeleton: PreTrainedModel,
    quantization: Quantization,
    compute_dtype: torch.dtype,
    skip: list[str],
) -> int:
    """Estimate the memory of the loaded weights in bytes.

    An NF4 weight takes 4 bits and, double quantised in blocks of 64, 0.127 bits of scales
    (QLoRA, section 3).
    """
    quantized = {
        f"{name}.weight"
        for name, module in skeleton.named_modules()
        if quantization == "nf4" and isinstance(module, nn.Linear) and name not in skip
    }
    bits = {
        name: 4.127 if name in quantized else 8 * compute_dtype.itemsize
        for name, _ in skeleton.named_parameters()
    }
    return int(sum(p.numel() * bits[name] / 8 for name, p in skeleton.named_parameters()))
