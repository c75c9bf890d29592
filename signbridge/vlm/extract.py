"""Run an extraction: images and a model in, an activation store out."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Trainer
from rich.console import Console

from signbridge.errors import Interrupted, ModelError
from signbridge.images import ImageSet
from signbridge.store import StoreSpec
from signbridge.vlm.adding import choose_target
from signbridge.vlm.batches import SpanDataModule
from signbridge.vlm.capture import Position
from signbridge.vlm.description import ModelDescription
from signbridge.vlm.forward import CaptureRequest
from signbridge.vlm.interrupt import StopOnSigterm
from signbridge.vlm.module import ExtractionModule
from signbridge.vlm.progress import ExtractionProgress
from signbridge.vlm.prompts import DEFAULT_PROMPT, prompt_for_processor
from signbridge.vlm.quantization import (
    ComputeDtype,
    Quantization,
    compute_dtype_for,
    quantized_parts,
    skipped_modules,
)
from signbridge.vlm.quiet import quiet_lightning
from signbridge.vlm.run import ExtractionRun
from signbridge.vlm.writer import ShardPredictionWriter

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
    prompt: str = DEFAULT_PROMPT,
    max_new_tokens: int = 0,
    store_dtype: Literal["float16", "float32"] = "float16",
    batch_size: int = 8,
    num_workers: int | None = None,
    accelerator: str = "auto",
    devices: str | int = "auto",
    num_nodes: int = 1,
    strategy: str = "auto",
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
        description: the model, from :func:`~signbridge.vlm.description.describe_model`.
        output: the HDF5 file to make.
        layers: 0-based decoder layers, or ``all``.
        quantization: ``nf4`` or ``none``.
        compute_dtype: dtype of the forward pass; ``auto`` is float16 on a GPU, float32 on a CPU.
        position: the token whose vector is kept: ``last_prompt``, ``last_generated`` (needs an
            answer) or ``image_mean``.
        prompt: the question, with ``<image>`` once.
        max_new_tokens: length of the greedy answer that is stored; 0 asks for none.
        store_dtype: dtype of the stored vectors.
        batch_size: the most images of one forward pass.
        num_workers: processes that decode and prepare images; None chooses.
        accelerator: as Lightning's Trainer takes it.
        devices: as Lightning's Trainer takes it.
        num_nodes: as Lightning's Trainer takes it.
        strategy: as Lightning's Trainer takes it.
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
    _check_numbers(batch_size=(batch_size, 1), max_new_tokens=(max_new_tokens, 0))
    _check_numbers(num_workers=(num_workers or 0, 0), num_nodes=(num_nodes, 1))
    if position == "last_generated" and max_new_tokens == 0:
        raise ModelError(
            "position last_generated needs an answer to be generated: give --max_new_tokens, for "
            "instance 20."
        )
    wanted = resolve_layers(layers, description.n_layers)
    asked = prompt_for_processor(prompt, description.processor.image_token)
    progress, writer = ExtractionProgress(console), ShardPredictionWriter(images.pixels)
    # The writer comes before the stop: a batch that completes a shard is not lost.
    callbacks = [progress, writer, StopOnSigterm(how_to_continue(output))]
    trainer = _trainer(accelerator, devices, num_nodes, strategy, callbacks)
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
        "store_dtype": store_dtype,
    }
    target = choose_target(output, wanted, provenance, overwrite=overwrite)
    request = CaptureRequest(
        layers=target.layers,
        position=position,
        max_new_tokens=max_new_tokens,
        vision=description.vision_size is not None and target.base is None,
    )
    spec = StoreSpec(
        layers=target.layers, hidden_size=description.hidden_size, store_dtype=store_dtype
    )
    if target.base is None:
        spec = _with_baselines_and_answers(spec, images, description, request)
    run = ExtractionRun(
        images,
        target.path,
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
        overwrite=overwrite,
        keep_shards=keep_shards,
        shard_size=shard_size,
        console=console,
    )

    def begin(trainer: Trainer) -> Sequence[Any]:
        shards = run.begin(trainer)
        progress.expect(sum(len(shard) for shard in shards))
        if run.writer is not None:
            writer.attach(run.writer, shards)
        return shards

    module = ExtractionModule(
        description, request, quantization=quantization, compute_dtype=compute_dtype
    )
    data = SpanDataModule(images, description.processor, asked, batch_size, begin, num_workers)
    try:
        with quiet_lightning():
            trainer.predict(module, datamodule=data, return_predictions=False)
        trainer.strategy.barrier("all shards are written")
        if trainer.is_global_zero:
            run.finish()
            target.join()
        trainer.strategy.barrier("the store is consolidated")
    except SystemExit as error:
        # Lightning ends the process on Ctrl-C; its caller may want to go on.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise Interrupted(how_to_continue(output), 128 + signal.SIGINT) from error
    finally:
        run.close()
    return output


def resolve_layers(layers: Literal["all"] | Sequence[int], n_layers: int) -> tuple[int, ...]:
    """Return the wanted decoder layers in ascending order.

    Args:
        layers: 0-based indices, or ``all``.
        n_layers: how many the model has.

    Raises:
        ModelError: if a layer does not exist, occurs twice, or none is wanted.
    """
    if layers == "all":
        return tuple(range(n_layers))
    if isinstance(layers, str):
        raise ModelError(f"layers is {layers!r}: give 'all' or a list such as [8,16,24,31].")
    chosen = sorted(layers)
    wrong = [layer for layer in chosen if not 0 <= layer < n_layers]
    if wrong:
        raise ModelError(
            f"layer {wrong[0]} does not exist: this model has decoder layers 0 to {n_layers - 1}."
        )
    if not chosen or len(set(chosen)) < len(chosen):
        raise ModelError(f"layers is {list(layers)}: give at least one layer, and each once.")
    return tuple(chosen)


def how_to_continue(output: Path) -> str:
    """Return the line that an interrupted run ends with."""
    return f"stopped; the finished shards of {output} are kept: run the same command to continue."


def _check_numbers(**limits: tuple[int, int]) -> None:
    for name, (value, least) in limits.items():
        if value < least:
            raise ModelError(f"{name} is {value}: give at least {least}.")


def _trainer(
    accelerator: str, devices: str | int, num_nodes: int, strategy: str, callbacks: list[Any]
) -> Trainer:
    try:
        with quiet_lightning():
            # Requeueing would write a checkpoint of the model, which has nothing to save here: a
            # job that SLURM starts again continues by the store's own shards.
            slurm: Any = SLURMEnvironment(auto_requeue=False) if SLURMEnvironment.detect() else None
            return Trainer(
                accelerator=accelerator,
                devices=devices,
                num_nodes=num_nodes,
                strategy=strategy,
                callbacks=callbacks,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
                inference_mode=True,
                plugins=slurm,
            )
    except Exception as error:
        # Lightning raises a dozen types here, all of them for a combination that cannot be had.
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"accelerator {accelerator!r}, devices {devices!r}, strategy {strategy!r} cannot be "
            f"had on this machine: {first}"
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
    return replace(spec, baselines=baselines, responses=request.max_new_tokens > 0)


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
