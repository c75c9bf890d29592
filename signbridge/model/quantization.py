"""Quantisation: NF4 and int8 through bitsandbytes, and what the layers of any model are.

NF4 with double quantisation: Dettmers et al. 2023, "QLoRA", arXiv 2305.14314. LLM.int8: Dettmers et
al. 2022, arXiv 2208.07339.
"""

from __future__ import annotations

import copy
import inspect
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast, get_args

import torch
from torch import nn
from transformers import PreTrainedModel

from signbridge.errors import ModelError, first_line
from signbridge.model import ComputeDtype, Quantization
from signbridge.model.random_weights import model_skeleton
from signbridge.runtime.terminal import quiet_transformers

if TYPE_CHECKING:
    from signbridge.model.description import ModelDescription

# Where a model's own code takes the dtype of a part's weights, unless it looks whether that has a
# point (Gemma 4).
_ASKED_DTYPE = re.compile(r"self\.(\w+)\.weight\.dtype(?!\)\.is_floating_point)")
_BITS = {"nf4": 4.127, "fp4": 4.127}
COMPRESSED_TENSORS = "compressed-tensors"


@dataclass(frozen=True)
class Quantized:
    """What of a model is quantised: the record that goes into a store.

    Attributes:
        kinds: for each quantised layer how: ``nf4``, ``fp4``, ``int8``, ``compressed-tensors`` and
            its types of numbers, ``gptq int4``, ``awq int4``, or the class of another method's
            layers and their bits.
        plain: the linear layers that are not.
    """

    kinds: Mapping[str, str]
    plain: tuple[str, ...]

    @property
    def kind(self) -> str:
        """``none``, or the kind; of a model with several kinds all of them."""
        return ", ".join(sorted(set(self.kinds.values()))) or "none"

    def record(self) -> dict[str, Any]:
        """Attributes for a store's provenance."""
        if not self.kinds:
            return {"quantization": "none"}
        return {
            "quantization": self.kind,
            "quantized_modules": whole_parts(set(self.kinds), set(self.plain)),
            "quantization_skipped": whole_parts(set(self.plain), set(self.kinds)),
        }


def quantized(model: nn.Module, skeleton: nn.Module) -> Quantized:
    """Read what the layers of a model are.

    Args:
        model: a loaded model, or one on the ``meta`` device that is made ready for quantised
            weights.
        skeleton: the same architecture without quantisation.
    """
    linear = {n for n, module in skeleton.named_modules() if isinstance(module, nn.Linear)}
    found = ((n, _kind(module, n in linear)) for n, module in model.named_modules())
    kinds = {name: kind for name, kind in found if kind is not None}
    return Quantized(kinds, tuple(sorted(linear - set(kinds))))


def _kind(module: Any, is_linear: bool) -> str | None:
    """How a layer is quantised; None where it is not."""
    name = type(module).__name__
    weight = getattr(module, "weight", None)
    if name == "Linear4bit":
        state = getattr(weight, "quant_state", None)
        return str(getattr(weight if state is None else state, "quant_type", "4 bits"))
    if name == "Linear8bitLt":
        return "int8"
    scheme: Any = getattr(module, "quantization_scheme", None)
    if getattr(scheme, "weights", None) is not None:
        entering = getattr(scheme, "input_activations", None)
        rounded = "" if entering is None else f" on {_number_type(entering)} activations"
        return f"{COMPRESSED_TENSORS} {_number_type(scheme.weights)}{rounded}"
    if not is_linear:
        return None
    # gptqmodel's layers, for GPTQ and AWQ, are of another class on each kind of device.
    methods: Any = getattr(module, "SUPPORTS_METHODS", None) or ()
    bits = getattr(module, "bits", None)
    named = str(getattr(methods[0], "value", methods[0])) if len(methods) == 1 else name
    named += f" int{bits}" if isinstance(bits, int) else ""
    if not isinstance(weight, torch.Tensor):
        return named
    # Eight bits with a point are a float8, which needs its scales.
    of_a_library = type(weight.data) is not torch.Tensor or weight.dtype.itemsize == 1
    return named if of_a_library or not weight.is_floating_point() else None


def _number_type(arguments: Any) -> str:
    """The numbers of compressed-tensors' QuantizationArgs in a word, such as ``int4``."""
    return f"{getattr(arguments.type, 'value', arguments.type)}{arguments.num_bits}"


def unpack(model: Any) -> None:
    """Let compressed-tensors write out its packed weights now, not before the first forward pass.

    What it waits for is the whole model's ``forward``, and parts are called without it: a vision
    tower would compute with packed weights, or with weights that lack their scales.
    """
    compressor: Any = getattr(getattr(model, "hf_quantizer", None), "compressor", None)
    if hasattr(model, "ct_decompress_hook") and hasattr(compressor, "decompress_model"):
        with quiet_transformers():
            compressor.decompress_model(model)


def rounds_activations(model: nn.Module) -> bool:
    """Whether some layers round what enters them to 8 bits or fewer.

    A change in the last digit may then become one of a 256th. LLM.int8 keeps some columns in half
    precision besides, chosen by all that is in a batch.
    """
    schemes = (getattr(module, "quantization_scheme", None) for module in model.modules())
    return any(type(module).__name__ == "Linear8bitLt" for module in model.modules()) or any(
        getattr(scheme, "input_activations", None) is not None for scheme in schemes
    )


def whole_parts(names: set[str], others: set[str]) -> list[str]:
    """Name layers by the largest parts of the model that hold none of ``others``.

    Args:
        names: names of layers, such as ``model.vision_tower.encoder.layers.0.fc1``.
        others: names of other layers.

    Returns:
        Names of parts, sorted, such as ``model.vision_tower``; of two components at the shortest.
    """
    prefixes = {".".join(other.split(".")[:n]) for other in others for n in range(1, 40)}
    found = set()
    for name in names:
        words = name.split(".")
        cuts = (".".join(words[:n]) for n in range(min(2, len(words)), len(words) + 1))
        found.add(next((part for part in cuts if part not in prefixes), name))
    return sorted(found)


def stored_quantization(description: ModelDescription) -> Any:
    """The quantisation that a checkpoint's configuration names, or None.

    Random weights are made anew, whatever the checkpoint is.
    """
    if description.weights == "random":
        return None
    config = description.config
    own = getattr(config, "quantization_config", None)
    return own or getattr(config.get_text_config(), "quantization_config", None)


def planned_quantization(
    description: ModelDescription,
    quantization: Quantization,
    device: torch.device | str,
) -> Quantized:
    """Say what will be quantised, and how, before any weights are loaded.

    Args:
        description: the model.
        quantization: ``nf4``, ``int8``, ``none``, or ``auto``: as the checkpoint is, NF4 where it
            is not quantised yet.
        device: where it will run.

    Raises:
        ModelError: what was asked for cannot be had of this checkpoint.
    """
    stored = stored_quantization(description)
    skeleton = description.skeleton
    if stored is None and quantization == "none":
        return quantized(skeleton, skeleton)
    if stored is None:  # transformers leaves alone what a family keeps in float32 as well
        settings = bitsandbytes_config(quantization, torch.float32, skipped_modules(skeleton))
        return quantized(_prepared(description, device, settings), skeleton)
    planned = quantized(_prepared(description, device), skeleton)
    if quantization not in ("auto", planned.kind):
        raise ModelError(
            f"{description.spec} is quantised already ({planned.kind}), so --quantization "
            f"{quantization} cannot be had: leave the option out, or give the model as it was "
            "before it was quantised."
        )
    return planned


def _prepared(
    description: ModelDescription, device: torch.device | str, settings: Any = None
) -> nn.Module:
    """The model on the ``meta`` device, its layers replaced as for loading its checkpoint.

    ``settings`` is a quantisation for a checkpoint that is not quantised.
    """
    from transformers.quantizers.auto import get_hf_quantizer

    config = copy.deepcopy(description.config)
    try:
        with quiet_transformers():
            model = model_skeleton(config)
            place = {"": torch.device(device)}
            quantizer, config, place = get_hf_quantizer(config, settings, place, None, {})
            if quantizer is not None:
                quantizer.preprocess_model(
                    model=model, dtype=model.dtype, device_map=place, checkpoint_files=[]
                )
    except ImportError as error:
        raise ModelError(
            f"{description.spec} is quantised already and needs a package to be loaded "
            f"({first_line(error)}): install it, or give the model as it was before it was "
            "quantised."
        ) from error
    except Exception as error:  # whatever a method of quantisation raises for what it lacks
        raise ModelError(
            f"{description.spec} cannot be quantised as asked for ({first_line(error)}): use "
            "--quantization none."
            if settings is not None
            else f"{description.spec} is quantised already, in a way that cannot be loaded here "
            f"({first_line(error)}): give the model as it was before it was quantised."
        ) from error
    return model


def compute_dtype_of(
    description: ModelDescription, choice: ComputeDtype, device: torch.device | str
) -> torch.dtype:
    """Return the dtype that a model's forward pass computes in.

    ``auto`` is the dtype that an already quantised checkpoint names for its 4-bit layers, else it
    goes by the device as for :func:`compute_dtype_for`.

    Raises:
        ModelError: as of :func:`compute_dtype_for`.
    """
    stored = stored_quantization(description)
    if choice == "auto" and stored is not None:
        settings = stored if isinstance(stored, dict) else stored.to_dict()
        name = str(settings.get("bnb_4bit_compute_dtype")).removeprefix("torch.")
        if settings.get("load_in_4bit") and name in get_args(ComputeDtype):
            choice = cast("ComputeDtype", name)
    return compute_dtype_for(choice, device)


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
    """Return the names of the modules that stay as they are, above all the output embedding.

    That is what ``load_in_4bit=True`` and ``load_in_8bit=True`` do by default, so the model that is
    measured is the one that people run in 4 or 8 bits: the vision tower and the projector are
    quantised with the decoder. Layers to whose weights' dtype a model casts what enters them (the
    patch embedding of SigLIP 2 and ERNIE) stay too: in 4 or 8 bits that would round the pixels to
    whole numbers.
    """
    output = skeleton.get_output_embeddings()
    casting = {
        f"{name}.{part}".lstrip(".")
        for name, module in skeleton.named_modules()
        for part in _parts_whose_dtype_is_asked(type(module))  # type: ignore[arg-type]
        if isinstance(getattr(module, part, None), nn.Linear)
    }
    return [n for n, module in skeleton.named_modules() if module is output or n in casting]


@cache
def _parts_whose_dtype_is_asked(kind: Any) -> frozenset[str]:
    try:
        source = inspect.getsource(kind.forward)
    except (OSError, TypeError):  # no file holds it
        return frozenset()
    return frozenset(re.findall(_ASKED_DTYPE, source))


def bitsandbytes_config(
    quantization: Quantization, compute_dtype: torch.dtype, skip: list[str]
) -> Any:
    """Return transformers' configuration of LLM.int8, or else of NF4 with double quantisation.

    Raises:
        ModelError: if bitsandbytes is not installed.
    """
    kind = "nf4" if quantization == "auto" else quantization
    try:
        with quiet_transformers():  # it tells of kernels that it does without
            import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise ModelError(
            f"--quantization {kind} needs bitsandbytes, which cannot be imported ({error}): "
            "install it with 'pip install bitsandbytes', or pass --quantization none."
        ) from error
    from transformers import BitsAndBytesConfig

    settings: Any = BitsAndBytesConfig
    if kind == "int8":
        return settings(load_in_8bit=True, llm_int8_skip_modules=skip)
    return settings(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        llm_int8_skip_modules=skip,
    )


def set_compute_dtype(model: nn.Module, compute_dtype: torch.dtype, *, everywhere: bool) -> None:
    """Make a model compute in the dtype that the store will name.

    The 4-bit layers of a checkpoint may name another one. On a processor with AVX512-BF16,
    bitsandbytes (0.50) computes them in bfloat16 whatever dtype was asked for, so the vectors would
    depend on the processor (by about 1 %, see docs/method.md).

    Args:
        model: a loaded model.
        compute_dtype: what it is to compute in.
        everywhere: whether its other weights may be of another dtype, as transformers (5.23) leaves
            some of those of a checkpoint that is quantised already.
    """
    module: Any
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.compute_dtype, module.compute_type_is_set = compute_dtype, True
        if compute_dtype != torch.bfloat16 and hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
        if type(module).__name__ == "Linear8bitLt":  # it says at every call that it rounds
            logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    if not everywhere:
        return
    kept = {
        word
        for name in ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict")
        for word in getattr(model, name, None) or ()
    }
    for name, value in model.named_parameters():
        if value.is_floating_point() and not kept.intersection(name.split(".")):
            value.data = value.data.to(compute_dtype)


def _bits(kind: str) -> float:
    number = re.search(r" int([2-7])$", kind)
    return float(number[1]) + 0.5 if number else _BITS.get(kind, 8.0)


def weight_bytes(skeleton: PreTrainedModel, planned: Quantized, dtype: torch.dtype) -> int:
    """Estimate the memory of the loaded weights in bytes.

    A 4-bit weight takes 4 bits and, double quantised in blocks of 64, 0.127 bits of scales
    (QLoRA, section 3); an int8 weight 8 bits, fewer bits of other methods at most half a bit of
    scales more. What compressed-tensors packs is written out.

    Args:
        skeleton: the model without values.
        planned: what is quantised, from :func:`planned_quantization`.
        dtype: dtype of the other weights.
    """
    plain = 8.0 * dtype.itemsize
    bits = {
        f"{name}.weight": plain if COMPRESSED_TENSORS in kind else _bits(kind)
        for name, kind in planned.kinds.items()
    }
    parameters = skeleton.named_parameters()
    return int(sum(p.numel() * bits.get(name, plain) / 8 for name, p in parameters))
