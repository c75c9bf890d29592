"""Run an extraction: images and a model in, an activation store out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from rich.console import Console

from signbridge.errors import ModelError, StoreError, first_line
from signbridge.extraction.arguments import check_answer_length, check_arguments, check_layers
from signbridge.extraction.batch_size import BatchLimit, BatchSize
from signbridge.extraction.data import ExtractionDataModule
from signbridge.extraction.module import ExtractionModule
from signbridge.extraction.output import StoreOutput, how_to_continue, layers_to_extract
from signbridge.extraction.progress import ExtractionProgress
from signbridge.images import ImageSet
from signbridge.model.answers import class_answers
from signbridge.model.capture import Position
from signbridge.model.description import ModelDescription
from signbridge.model.forward import CaptureRequest, cpu_threads_for
from signbridge.model.prompts import DEFAULT_TEMPLATE, prompt_for_processor, resolve_prompt
from signbridge.model.quantization import (
    ComputeDtype,
    Quantization,
    compute_dtype_for,
    quantized_parts,
    skipped_modules,
)
from signbridge.runtime.stopping import stoppable
from signbridge.runtime.terminal import quiet_lightning
from signbridge.store import SampleTable, StoreSpec

_RECORDED_VERSIONS = ("signbridge", "torch", "transformers", "bitsandbytes", "lightning", "pillow")


def extract_activations(
    images: ImageSet,
    description: ModelDescription,
    output: str | Path,
    *,
    layers: Literal["all"] | Sequence[int] = "all",
    quantization: Quantization = "nf4",
    compute_dtype: ComputeDtype = "auto",
    position: Position = "last_prompt",
    prompt: str = DEFAULT_TEMPLATE,
    max_new_tokens: int = 0,
    forced_choice: bool = False,
    store_dtype: Literal["float16", "float32"] = "float16",
    batch_size: BatchSize = "auto",
    num_workers: int | None = None,
    accelerator: str = "auto",
    devices: str | int = "auto",
    num_nodes: int = 1,
    strategy: Literal["auto", "ddp"] = "auto",
    keep_shards: bool = False,
    overwrite: bool = False,
    shard_size: int = 256,
    console: Console | None = None,
) -> Path:
    """Write the residual stream of every wanted decoder layer for every image to a store.

    Called again with the same arguments it continues where it was stopped, and returns at once
    when the store is complete.

    Args:
        images: the labelled images.
        description: the model, from :func:`~signbridge.model.description.describe_model`.
        output: the HDF5 file to make.
        layers: 0-based decoder layers, or ``all``.
        quantization: ``nf4`` or ``none``.
        compute_dtype: dtype of the forward pass; ``auto`` is float16 on a GPU, float32 on a CPU.
        position: the token whose vector is kept: ``last_prompt``, ``last_generated`` (needs an
            answer) or ``image_mean``.
        prompt: the question, a text with ``<image>`` once or the name of a bundled question.
        max_new_tokens: length of the greedy answer that is stored; 0 asks for none.
        forced_choice: store the log-probability of each class name as the answer.
        store_dtype: dtype of the stored vectors.
        batch_size: the most images of one forward pass; ``auto`` goes by the device's memory. When
            that runs out, the run goes on with half as many.
        num_workers: processes that decode and prepare images; None chooses.
        accelerator: as Lightning's Trainer takes it.
        devices: as Lightning's Trainer takes it.
        num_nodes: as Lightning's Trainer takes it.
        strategy: ``auto`` or ``ddp``: one copy of the model in every process.
        keep_shards: make a file of virtual datasets over the shards instead of one that holds all.
        overwrite: replace a finished or begun store.
        shard_size: images of a shard, the most that an interruption can cost each process.
        console: where to report; standard error by default.

    Returns:
        The path of the finished store.

    Raises:
        SignBridgeError: if an argument, the model or the disk does not allow it.
        Interrupted: on Ctrl-C or SIGTERM; finished shards are kept.
    """
    console = console or Console(stderr=True)
    output = Path(output)
    check_arguments(
        layers=layers,
        position=position,
        prompt=prompt,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        num_workers=num_workers,
        num_nodes=num_nodes,
        output=output,
    )
    check_answer_length(max_new_tokens, description.context_length)
    wanted = resolve_layers(layers, description.n_layers)
    prompt = resolve_prompt(prompt, description.processor)
    asked = prompt_for_processor(prompt, description.processor.image_token)
    answers = None
    if forced_choice:
        answers = class_answers(description.processor.tokenizer, asked, images.class_names)
    trainer = _trainer(accelerator, devices, num_nodes, strategy)
    device = trainer.strategy.root_device
    provenance = {
        **description.provenance(),
        **_quantization_record(description, quantization),
        **images.describe(),
        "compute_dtype": str(compute_dtype_for(compute_dtype, device)).removeprefix("torch."),
        "prompt": prompt,
        "site": "resid_post",
        "position": position,
        "max_new_tokens": max_new_tokens,
        # Only where asked for, so that stores without it are what they were.
        "forced_choice": True if forced_choice else None,
        "store_dtype": store_dtype,
    }
    samples = SampleTable(
        sample_id=images.sample_id,
        label=images.label,
        class_names=images.class_names,
        group=images.group,
        source_split=images.source_split,
        image_sha256=images.image_sha256,
    )
    missing, adding = layers_to_extract(output, wanted, provenance, samples, overwrite=overwrite)
    answers_are_there = adding and position != "last_generated"
    request = CaptureRequest(
        layers=missing,
        position=position,
        max_new_tokens=0 if answers_are_there else max_new_tokens,
        vision=description.vision_size is not None and not adding,
        answers=None if adding else answers,
    )
    spec = StoreSpec(layers=missing, hidden_size=description.hidden_size, store_dtype=store_dtype)
    if not adding:
        spec = _with_baselines_and_answers(spec, images, description, request)
    store = StoreOutput(
        output,
        images,
        samples,
        spec,
        provenance=provenance,
        info={
            "batch_size": batch_size,
            "device": device.type,
            "processes": trainer.world_size,
            **{f"version_{name}": _version(name) for name in _RECORDED_VERSIONS},
            "skipped_images": [f"{name}: {reason}" for name, reason in images.skipped],
            "notes": images.notes,
        },
        adding=adding,
        overwrite=overwrite,
        keep_shards=keep_shards,
        shard_size=shard_size,
        console=console,
    )
    limit = BatchLimit(batch_size, store.say if trainer.is_global_zero else None)
    module = ExtractionModule(
        description, request, limit, quantization=quantization, compute_dtype=compute_dtype
    )
    data = ExtractionDataModule(
        images, description.processor, asked, limit, store.begin, num_workers
    )
    trainer.callbacks += [ExtractionProgress(console), store]  # type: ignore[attr-defined]
    try:
        with stoppable(how_to_continue(output), lambda: trainer.received_sigterm):
            with quiet_lightning(), cpu_threads_for(description.hidden_size, device):
                trainer.predict(module, datamodule=data, return_predictions=False)
            trainer.strategy.barrier("all shards are written")
            if trainer.is_global_zero:
                store.finish({"batch_size": limit.images} if data.shards else {})
    except RuntimeError as error:
        raise _in_one_sentence(error, trainer, output) from error
    finally:
        module.free()
        store.close()
    return output


def resolve_layers(layers: Literal["all"] | Sequence[int], n_layers: int) -> tuple[int, ...]:
    """Return the wanted decoder layers in ascending order.

    Args:
        layers: 0-based indices, or ``all``.
        n_layers: how many the model has.

    Raises:
        ModelError: if a layer does not exist, occurs twice, or none is wanted.
    """
    check_layers(layers)
    if layers == "all":
        return tuple(range(n_layers))
    chosen = sorted(layers)
    wrong = [layer for layer in chosen if not 0 <= layer < n_layers]
    if wrong:
        raise ModelError(
            f"Layer {wrong[0]} does not exist: this model has decoder layers 0 to {n_layers - 1}."
        )
    return tuple(chosen)


def _in_one_sentence(error: RuntimeError, trainer: Trainer, output: Path) -> Exception:
    """Say what ended a helping process; any other error is a defect and stays as it is."""
    if "DataLoader worker" in str(error):
        return ModelError(
            "A process that prepares images was killed, as happens when memory or /dev/shm is "
            f"short: use --num_workers 0; the finished shards of {output} are kept."
        )
    if trainer.world_size > 1 and "onnection" in str(error):  # as gloo and NCCL say it
        return StoreError(
            f"Another process of this run has ended early; the finished shards of {output} are "
            "kept: run the same command to continue."
        )
    return error


def _trainer(accelerator: str, devices: str | int, num_nodes: int, strategy: str) -> Trainer:
    if strategy not in ("auto", "ddp"):
        raise ModelError(
            f"Strategy {strategy!r} cannot be used: give 'auto' or 'ddp', one copy of the model a "
            "process."
        )
    # Requeueing by Lightning would write a checkpoint of the model, which has nothing to save
    # here. Inside a SLURM job, torchrun's own ranks go first, as they do for Lightning.
    slurm = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    settings: dict[str, Any] = {
        "accelerator": accelerator,
        "devices": devices,
        "num_nodes": num_nodes,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "inference_mode": True,
        "plugins": SLURMEnvironment(auto_requeue=False) if slurm else None,
    }
    # A process that has done its share waits for the slowest, however long that takes.
    patient = DDPStrategy(timeout=timedelta(days=7))
    try:
        with quiet_lightning():
            trainer = Trainer(strategy=patient if strategy == "ddp" else "auto", **settings)
            if strategy == "auto" and isinstance(trainer.strategy, DDPStrategy):
                trainer = Trainer(strategy=patient, **settings)
            return trainer
    except Exception as error:
        # Lightning raises a dozen types here, all of them for a combination that cannot be had.
        raise ModelError(
            f"Accelerator {accelerator!r}, devices {devices!r}, strategy {strategy!r} cannot be "
            f"had on this machine: {first_line(error)}."
        ) from error


def _with_baselines_and_answers(
    spec: StoreSpec, images: ImageSet, description: ModelDescription, request: CaptureRequest
) -> StoreSpec:
    baselines: dict[str, tuple[int, str, dict[str, Any]]] = {
        "pixels": (
            images.pixels.shape[1],
            "uint8",
            {"long_name": "grey image, 28 rows of 28 pixels", "image_shape": [28, 28]},
        ),
        "projector": (
            spec.hidden_size,
            spec.store_dtype,
            {"long_name": "mean of the image tokens entering the decoder"},
        ),
    }
    if request.vision and description.vision_size is not None:
        baselines["vision"] = (
            description.vision_size,
            spec.store_dtype,
            {"long_name": "mean of the vision tower's patch features"},
        )
    return replace(
        spec,
        baselines=baselines,
        responses=request.max_new_tokens > 0,
        class_logprob=request.answers is not None,
    )


def _quantization_record(
    description: ModelDescription, quantization: Quantization
) -> dict[str, str | list[str]]:
    if quantization == "none":
        return {"quantization": "none"}
    skip = skipped_modules(description.skeleton)
    return {
        "quantization": quantization,
        "quantized_modules": quantized_parts(description.skeleton, skip),
        "quantization_skipped": skip,
    }


def _version(name: str) -> str:
    if name == "torch":  # with the build, which the metadata leaves out
        return str(torch.__version__)
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
