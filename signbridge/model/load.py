"""Load a described model's weights onto a device, quantised or not."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psutil
import torch
from safetensors import SafetensorError
from torch import nn

from signbridge.errors import ModelError, first_line
from signbridge.model import ComputeDtype, Quantization
from signbridge.model.description import ModelDescription
from signbridge.model.families import decoder_layers
from signbridge.model.quantization import (
    Quantized,
    bitsandbytes_config,
    compute_dtype_of,
    planned_quantization,
    quantized,
    set_compute_dtype,
    skipped_modules,
    stored_quantization,
    unpack,
    weight_bytes,
)
from signbridge.model.random_weights import random_model
from signbridge.runtime.terminal import quiet_transformers

# Of a generation configuration: how tokens are computed, not which. Here a prompt is one pass and
# its cache is continued.
_MECHANICS = (
    "cache_config",
    "cache_implementation",
    "compile_config",
    "num_return_sequences",
    "prefill_chunk_size",
    "prompt_lookup_num_tokens",
)


def load_model(
    description: ModelDescription,
    device: torch.device | str,
    *,
    quantization: Quantization = "auto",
    compute_dtype: ComputeDtype = "auto",
) -> Any:
    """Load the weights and return the model in evaluation mode on ``device``.

    Args:
        description: from :func:`~signbridge.model.description.describe_model`.
        device: where it runs.
        quantization: ``nf4`` (4-bit NormalFloat, double quantised), ``int8`` (LLM.int8), ``none``,
            or ``auto``: as the checkpoint is, ``nf4`` where it is not quantised yet.
        compute_dtype: dtype of the forward pass; ``auto`` goes by the device.

    Raises:
        ModelError: if bitsandbytes is missing, the memory does not suffice, the weights are
            unreadable or do not fit the configuration, or are not quantised as it says.
    """
    device = torch.device(device)
    planned = planned_quantization(description, quantization, device)
    dtype = compute_dtype_of(description, compute_dtype, device)
    _check_memory(description, device, weight_bytes(description.skeleton, planned, dtype))
    options: dict[str, Any] = {"dtype": dtype, "device_map": {"": device}}
    try:
        with quiet_transformers():
            if planned.kinds and stored_quantization(description) is None:
                skip = skipped_modules(description.skeleton)
                options["quantization_config"] = bitsandbytes_config(quantization, dtype, skip)
            if description.weights == "random":
                model = _random(description, options)
            else:
                model = _pretrained(description, options)
    except torch.cuda.OutOfMemoryError as error:
        raise ModelError(f"{_too_large(description, device)}.") from error
    model.generation_config = copy.deepcopy(description.generation_config)
    for name in _MECHANICS:
        setattr(model.generation_config, name, None)
    unpack(model)
    set_compute_dtype(model, dtype, everywhere=stored_quantization(description) is not None)
    _check_quantization(description, model, planned, dtype)
    return model.eval()


def _check_quantization(
    description: ModelDescription, model: nn.Module, planned: Quantized, dtype: torch.dtype
) -> None:
    """Refuse a model whose layers are not what the store will say of them."""
    found = quantized(model, description.skeleton)
    names = [
        name
        for name in {**planned.kinds, **found.kinds}
        if planned.kinds.get(name) != found.kinds.get(name)
    ]
    if names:
        said, there = (one.kinds.get(names[0], "not quantised") for one in (planned, found))
        raise ModelError(
            f"{description.spec} is not quantised as its config.json says: {names[0]} is {there} "
            f"and not {said}{_more(names)}; the folder is of two models, or its config.json was "
            "edited."
        )
    if dtype not in {p.dtype for p in model.parameters()}:
        raise ModelError(
            f"{description.spec} does not load as {str(dtype).removeprefix('torch.')}: give "
            "another --compute_dtype."
        )


def _pretrained(description: ModelDescription, options: dict[str, Any]) -> Any:
    from transformers import AutoModelForImageTextToText

    auto: Any = AutoModelForImageTextToText
    try:
        model, report = auto.from_pretrained(
            description.folder,
            config=copy.deepcopy(description.config),  # what the store records
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported, and refused below with their names
            **options,
        )
    except torch.cuda.OutOfMemoryError:
        raise
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(
            f"The weights of {description.spec} cannot be loaded ({first_line(error)})."
        ) from error
    _check_fit(description, model, report)
    return model


def _random(description: ModelDescription, options: dict[str, Any]) -> Any:
    return random_model(
        description.config, description.weights_seed, description.skeleton, **options
    )


def _check_fit(description: ModelDescription, model: nn.Module, report: Mapping[str, Any]) -> None:
    """Refuse weights that are not the configuration's; transformers fills gaps at random."""
    advice = "the folder is incomplete, or its config.json is of another model"
    mismatched = sorted({*report.get("mismatched_keys", ()), *_other_shapes(description, model)})
    if mismatched:
        name, stored, wanted = mismatched[0]
        raise ModelError(
            f"The weights of {description.spec} do not fit its config.json: {name} has shape "
            f"{tuple(stored)} instead of {tuple(wanted)}{_more(mismatched)}; {advice}."
        )
    missing = sorted(report.get("missing_keys", ()))
    if missing:
        raise ModelError(
            f"The weights of {description.spec} lack {missing[0]}{_more(missing)}, which its "
            f"config.json asks for; {advice}."
        )
    layers = decoder_layers(description.skeleton)
    place = next(name for name, part in description.skeleton.named_modules() if part is layers)
    beyond = sorted(key for key in report.get("unexpected_keys", ()) if key.startswith(place))
    above = [key for key in beyond if _layer_number(key, place) >= len(layers)]
    if above:
        raise ModelError(
            f"The weights of {description.spec} have more decoder layers than the {len(layers)} "
            f"of its config.json, such as {above[0]}; {advice}."
        )


def _other_shapes(
    description: ModelDescription, model: nn.Module
) -> Iterator[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """Quantised weights of another shape, which transformers does not compare: name, is, should."""
    for name, value in model.named_parameters():
        state = getattr(value, "quant_state", None)
        if state is not None:
            shape, wanted = (
                tuple(state.shape),
                tuple(description.skeleton.get_parameter(name).shape),
            )
            if shape != wanted:
                yield name, shape, wanted


def _layer_number(key: str, place: str) -> int:
    number = key.removeprefix(f"{place}.").partition(".")[0]
    return int(number) if number.isdigit() else -1


def _more(keys: Sequence[Any]) -> str:
    return f" (and {len(keys) - 1:,} more)" if len(keys) > 1 else ""


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
