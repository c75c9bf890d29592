"""Run an extraction: images and a model in, an activation store out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from rich.console import Console

from signbridge.errors import ModelError, NamesError, SiteError, StoreError
from signbridge.extraction.batch_size import BatchLimit
from signbridge.extraction.config import CaptureConfig, ExtractConfig
from signbridge.extraction.data import ExtractionDataModule
from signbridge.extraction.module import ExtractionModule
from signbridge.extraction.output import StoreOutput, begun, how_to_continue, layers_to_extract
from signbridge.extraction.progress import ExtractionProgress
from signbridge.images import ImageSet
from signbridge.model.answers import class_answers
from signbridge.model.description import ModelDescription
from signbridge.model.families import is_encoder_decoder
from signbridge.model.forward import CaptureRequest, cpu_threads_for
from signbridge.model.processor import answer_context
from signbridge.model.prompts import prompt_for_processor, resolve_prompt
from signbridge.model.quantization import compute_dtype_of, planned_quantization
from signbridge.model.sites import site_widths, sites_of
from signbridge.model.words import words_of
from signbridge.runtime.processes import (
    PATIENCE,
    had_or_refused,
    plain_trainer,
    process_settings,
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
    shard_size: int = 256,
    console: Console | None = None,
    **options: Any,
) -> Path:
    """As :func:`run_extraction`, with the options of :class:`CaptureConfig` as keywords.

    Args:
        images: the labelled images.
        description: the model, from :func:`~signbridge.model.description.describe_model`.
        output: the HDF5 file to make.
        shard_size: images of a shard, the most that an interruption can cost each process.
        console: where to report; standard error by default.
        **options: the other fields of :class:`~signbridge.extraction.config.CaptureConfig`.

    Returns:
        The path of the finished store.

    Raises:
        SignBridgeError: if an option, the model or the disk does not allow it.
        Interrupted: on Ctrl-C or SIGTERM; finished shards are kept.
    """
    config = CaptureConfig(output=str(output), **options)
    return run_extraction(images, description, config, shard_size=shard_size, console=console)


def run_extraction(
    images: ImageSet,
    description: ModelDescription,
    config: CaptureConfig,
    *,
    shard_size: int = 256,
    console: Console | None = None,
    left_out: str | None = None,
    without: Mapping[str, str] | None = None,
) -> Path:
    """Write the residual stream of every wanted decoder layer for every image to a store.

    Called again with the same arguments it continues where it was stopped, and returns at once
    when the store is complete.

    Args, returned value and errors are those of :func:`extract_activations`; ``left_out`` says why
    a forced choice was not made that would have been, ``without`` of each baseline inside the model
    why it is not read.
    """
    console = console or Console(stderr=True)
    output = Path(config.output or f"activations/{description.name}-{images.name}.h5")
    widths = site_widths(description.skeleton)
    there = begun(output) if without is None and not config.overwrite else None
    without = without or {}
    if there is not None:  # what was left out then stays out
        lacking = [site for site in widths if site not in there.baselines]
        without = dict.fromkeys(lacking, "this store was begun without it")
        if config.forced_choice == "auto" and "forced_choice_left_out" in there.provenance:
            left_out = str(there.provenance["forced_choice_left_out"])
            config = _without_choice(config)
    position, max_new_tokens = config.position, config.max_new_tokens
    _check_answer_length(max_new_tokens, description.context_length)
    encoder = is_encoder_decoder(description.config)
    if encoder and position == "last_generated":
        raise ModelError(
            f"Position last_generated cannot be had of {description.spec}: image and prompt are in "
            "its encoder, which sees no answer; give another --position."
        )
    wanted = resolve_layers(config.layers, description.n_layers)
    prompt = resolve_prompt(config.prompt, description.processor, description.config.model_type)
    asked = prompt_for_processor(prompt, description.processor)
    words = None
    if config.answers is not None:
        selected = images.classes is not None
        words = words_of(config.answers, images.class_names, selected=selected)
    answers = None
    if config.forced_choice:
        context = answer_context(description.processor, description.config, asked)
        names = words or images.class_names
        try:
            answers = class_answers(description.processor.tokenizer, context, names)
        except NamesError as error:
            if config.forced_choice != "auto":
                raise
            left_out = f"forced choice is left out: {error.reason}"
    trainer = _trainer(config.accelerator, config.devices, config.num_nodes, config.strategy)
    device = trainer.strategy.root_device
    planned = planned_quantization(description, config.quantization, device)
    compute_dtype = compute_dtype_of(description, config.compute_dtype, device)
    provenance = {
        **description.provenance(),
        **planned.record(),
        **images.describe(),
        "compute_dtype": str(compute_dtype).removeprefix("torch."),
        "prompt": prompt,
        "site": "resid_post",
        # Only of an encoder-decoder, whose encoder takes image and prompt.
        "stack": "encoder" if encoder else None,
        "position": position,
        "max_new_tokens": max_new_tokens,
        # Only where asked for, so that stores without it are what they were.
        "forced_choice": True if answers is not None else None,
        "forced_choice_left_out": left_out,
        "answers": words,
        "store_dtype": config.store_dtype,
    }
    samples = SampleTable(
        sample_id=images.sample_id,
        label=images.label,
        class_names=images.class_names,
        group=images.group,
        source_split=images.source_split,
        image_sha256=images.image_sha256,
        group_names=images.group_names,
    )
    missing, adding = layers_to_extract(
        output, wanted, provenance, samples, overwrite=config.overwrite
    )
    answers_are_there = adding and position != "last_generated"
    request = CaptureRequest(
        layers=missing,
        position=position,
        max_new_tokens=0 if answers_are_there else max_new_tokens,
        sites=() if adding else tuple(site for site in widths if site not in without),
        answers=None if adding else answers,
    )
    spec = StoreSpec(
        layers=missing, hidden_size=description.hidden_size, store_dtype=config.store_dtype
    )
    if not adding:
        spec = _with_baselines_and_answers(
            spec, images, description, request, thumbnails=config.thumbnails
        )
    notes = [] if left_out is None else [left_out]
    if not adding:
        notes += [f"the baseline {name} is left out: {why}" for name, why in without.items()]
    store = StoreOutput(
        output,
        images,
        samples,
        spec,
        provenance=provenance,
        info={
            "command": config.command if isinstance(config, ExtractConfig) else None,
            "batch_size": config.batch_size,
            "device": device.type,
            "processes": trainer.world_size,
            **{f"version_{name}": _version(name) for name in _RECORDED_VERSIONS},
            "skipped_images": [f"{name}: {reason}" for name, reason in images.skipped],
            "notes": [*images.notes, *notes],
        },
        adding=adding,
        overwrite=config.overwrite,
        keep_shards=config.keep_shards,
        shard_size=shard_size,
        console=console,
    )
    for note in notes if trainer.is_global_zero else ():
        store.say(note)
    limit = BatchLimit(config.batch_size, store.say if trainer.is_global_zero else None)
    module = ExtractionModule(
        description,
        request,
        limit,
        quantization=config.quantization,
        compute_dtype=config.compute_dtype,
    )
    data = ExtractionDataModule(
        images,
        description.processor,
        asked,
        limit,
        store.begin,
        config.num_workers,
        lambda: store.thumbnails,
    )
    trainer.callbacks += [ExtractionProgress(console), store]  # type: ignore[attr-defined]
    try:
        with stoppable(how_to_continue(output), lambda: trainer.received_sigterm):
            with quiet_lightning(), cpu_threads_for(description.hidden_size, device):
                trainer.predict(module, datamodule=data, return_predictions=False)
            trainer.strategy.barrier("all shards are written")
            if trainer.is_global_zero:
                found = {} if module.certificate is None else module.certificate.record()
                store.finish({"batch_size": limit.images, **found} if data.shards else {})
    except NamesError as error:  # found when the loaded model was tried; nothing is stored yet
        if config.forced_choice != "auto" or trainer.world_size > 1:
            raise
        left_out, config = f"forced choice is left out: {error.reason}", _without_choice(config)
    except SiteError as error:
        if module.certificate is not None or trainer.world_size > 1:
            raise
        without = {**without, error.site: error.reason}
    except RuntimeError as error:
        raise _in_one_sentence(error, trainer, output) from error
    else:
        return output
    finally:
        module.free()
        store.close()
    return run_extraction(
        images,
        description,
        config,
        shard_size=shard_size,
        console=console,
        left_out=left_out,
        without=without,
    )


def _without_choice(config: CaptureConfig) -> CaptureConfig:
    kept = config.answers if config.max_new_tokens else None
    return replace(config, forced_choice=False, answers=kept)


def resolve_layers(layers: Literal["all"] | Sequence[int], n_layers: int) -> tuple[int, ...]:
    """Return the wanted decoder layers in ascending order.

    Args:
        layers: 0-based indices, or ``all``.
        n_layers: how many the model has.

    Raises:
        ModelError: if a layer does not exist.
    """
    if layers == "all":
        return tuple(range(n_layers))
    chosen = sorted(layers)
    wrong = [layer for layer in chosen if not 0 <= layer < n_layers]
    if wrong:
        raise ModelError(
            f"Layer {wrong[0]} does not exist: this model has decoder layers 0 to {n_layers - 1}."
        )
    return tuple(chosen)


def _check_answer_length(max_new_tokens: int, context_length: int | None) -> None:
    """Refuse an answer that does not fit into the model's context; None where it does not say."""
    if context_length is not None and max_new_tokens >= context_length:
        raise ModelError(
            f"--max_new_tokens is {max_new_tokens}, but this model takes {context_length:,} tokens "
            "of prompt and answer together: give fewer."
        )


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
    settings = process_settings(accelerator, devices, num_nodes)
    patient = DDPStrategy(timeout=PATIENCE)
    what = f"Accelerator {accelerator!r}, devices {devices!r}, strategy {strategy!r}"

    def made(strategy: str | DDPStrategy) -> Trainer:
        return plain_trainer(
            strategy=strategy, enable_checkpointing=False, inference_mode=True, **settings
        )

    with had_or_refused(what, "this machine", ModelError):
        trainer = made(patient if strategy == "ddp" else "auto")
        if strategy == "auto" and isinstance(trainer.strategy, DDPStrategy):
            trainer = made(patient)
        return trainer


def _with_baselines_and_answers(
    spec: StoreSpec,
    images: ImageSet,
    description: ModelDescription,
    request: CaptureRequest,
    *,
    thumbnails: bool,
) -> StoreSpec:
    widths, sites = site_widths(description.skeleton), sites_of(description.skeleton)
    baselines: dict[str, tuple[int, str, dict[str, Any]]] = {
        "pixels": (
            images.pixels.shape[1],
            "uint8",
            {"long_name": "grey image, 28 rows of 28 pixels", "image_shape": [28, 28]},
        ),
        **{
            name: (widths[name], spec.store_dtype, {"long_name": sites[name].long_name})
            for name in request.sites
        },
    }
    return replace(
        spec,
        baselines=baselines,
        responses=request.max_new_tokens > 0,
        class_logprob=request.answers is not None,
        thumbnails=thumbnails,
    )


def _version(name: str) -> str:
    if name == "torch":  # with the build, which the metadata leaves out
        return str(torch.__version__)
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
