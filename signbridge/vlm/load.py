"""Load a described model's weights onto a device, quantised or not."""

from __future__ import annotations

from typing import Any

import psutil
import torch
from safetensors import SafetensorError

from signbridge.errors import ModelError, first_line
from signbridge.vlm.description import ModelDescription
from signbridge.vlm.quantization import (
    ComputeDtype,
    Quantization,
    compute_dtype_for,
    keep_compute_dtype,
    nf4_config,
    skipped_modules,
    weight_bytes,
)
from signbridge.vlm.quiet import quiet_transformers


def load_model(
    description: ModelDescription,
    device: torch.device | str,
    *,
    quantization: Quantization = "nf4",
    compute_dtype: ComputeDtype = "auto",
) -> Any:
    """Load the weights and return the model in evaluation mode on ``device``.

    Args:
        description: from :func:`~signbridge.vlm.description.describe_model`.
        device: where it runs.
        quantization: ``nf4`` (4-bit NormalFloat, double quantised) or ``none``.
        compute_dtype: dtype of the forward pass; ``auto`` goes by the device.

    Raises:
        ModelError: if bitsandbytes is missing, the memory does not suffice, or the weights are
            unreadable or do not fit the configuration.
    """
    from transformers import AutoModelForImageTextToText

    auto: Any = AutoModelForImageTextToText
    device = torch.device(device)
    dtype = compute_dtype_for(compute_dtype, device)
    skip = skipped_modules(description.skeleton)
    _check_memory(
        description, device, weight_bytes(description.skeleton, quantization, dtype, skip)
    )
    options: dict[str, Any] = {}
    try:
        with quiet_transformers():
            if quantization == "nf4":
                options["quantization_config"] = nf4_config(dtype, skip)
            model, report = auto.from_pretrained(
                description.folder,
                dtype=dtype,
                device_map={"": device},
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **options,
            )
    except torch.cuda.OutOfMemoryError as error:
        raise ModelError(f"{_too_large(description, device)}.") from error
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(
            f"The weights of {description.spec} cannot be loaded ({first_line(error)})."
        ) from error
    missing = sorted(report.get("missing_keys", ()))
    if missing:
        # transformers would fill them with random numbers and go on.
        raise ModelError(
            f"The weights of {description.spec} lack {len(missing)} tensors that its configuration "
            f"asks for, {missing[0]} among them: the folder is incomplete or of another model."
        )
    keep_compute_dtype(model, dtype)
    return model.eval()


def _check_memory(description: ModelDescription, device: torch.device, needed: int) -> None:
    if device.type == "cuda":
        available = torch.cuda.mem_get_info(device)[0]
    elif device.type == "cpu":
        available = psutil.virtual_memory().available
    else:
        return
    if needed > available:
        raise ModelError(
            f"{_too_large(description, device)}: its weights take {needed / 1e9:.1f} GB and "
            f"{available / 1e9:.1f} GB are free."
        )


def _too_large(description: ModelDescription, device: torch.device) -> str:
    return f"{description.spec} does not fit into the memory of {device} (try --quantization nf4)"
