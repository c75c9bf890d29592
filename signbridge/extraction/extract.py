"""Run an extraction: images and a model in, an activation store out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from signbridge.model.processor import answer_context, check_images
from signbridge.model.prompts import borrowed_form, prompt_for_processor, resolve_prompt
from signbridge.model.quantization import compute_dtype_of, planned_quantization
from signbridge.model.questions import NotSharedError
from signbridge.model.sites import site_widths, sites_of
from signbridge.model.words import words_of
from signbridge.runtime.processes import (
    PATIENCE,
    had_or_refused,
    is_first_process,
    plain_trainer,
    process_settings,
)
from signbridge.runtime.stopping import stoppable
from signbridge.runtime.terminal import as_text, quiet_lightning
from signbridge.runtime.words import listed
from signbridge.store import SampleTable, Shard, StoreSpec

_RECORDED_VERSIONS = ("signbridge", "torch", "transformers", "bitsandbytes", "lightning", "pillow")


def extract_activations(
    images: ImageSet,
    description: ModelDescription,
    output: str | Path,
    *,
    shard_size: int = 256,
    console: Console | None = None,
    **options: Any,
) -> Path | list[Path]:
    """As :func:`run_extraction`, with the options of :class:`CaptureConfig` as keywords.

    Args:
        images: the labelled images.
        description: the model, from :func:`~signbridge.model.description.describe_model`.
        output: the HDF5 file to make.
        shard_size: images of a shard, the most that an interruption can cost each process.
        console: where to report; standard error by default.
        **options: the other fields of :class:`~signbridge.extraction.config.CaptureConfig`.

    Returns:
        The path of the finished store; of a list of questions the path of each.

    Raises:
        SignBridgeError: if an option, the model or the disk does not allow it.
        Interrupted: on Ctrl-C or SIGTERM; finished shards are kept.
    """
    config = CaptureConfig(output=str(output), **options)
    paths = run_extraction(images, description, config, shard_size=shard_size, console=console)
    return paths[0] if isinstance(config.prompt, str) else paths


def run_extraction(
    images: ImageSet,
    description: ModelDescription,
    config: CaptureConfig,
    *,
    shard_size: int = 256,
    console: Console | None = None,
) -> list[Path]:
    """Write the residual stream of every wanted decoder layer for every image to a store.

    Of several questions each has a store of its own, and each image is run once where the model
    can continue from there. Called again with the same arguments it continues where it was
    stopped, and returns at once when the stores are complete.

    Args and errors are those of :func:`extract_activations`; a path is returned for each question.
    """
    console = console or Console(stderr=True)
    paths = config.outputs(f"activations/{description.name}-{images.name}.h5")
    questions = [
        _Question(replace(config, prompt=prompt, output=path))
        for prompt, path in zip(config.prompts, paths, strict=True)
    ]
    run = partial(_run, images, description, shard_size=shard_size, console=console)
    try:
        run(questions)
    except NotSharedError as error:
        if is_first_process():
            text = f"each question is run by itself, images and all: {error}"
            console.print(as_text(text), soft_wrap=True)
        for question in questions:
            run([question])
    return [Path(path) for path in paths]


@dataclass(frozen=True)
class _Question:
    """One question of a run.

    Attributes:
        config: with this question alone, and its output; questions differ in nothing else.
        left_out: why a forced choice is not made that would have been.
        without: of each baseline inside the model that is not read, why; None if not known yet.
    """

    config: CaptureConfig
    left_out: str | None = None
    without: Mapping[str, str] | None = None


@dataclass(frozen=True)
class _Planned:
    """A question as the processor takes it, what is read, and its store."""

    question: _Question
    prompt: str
    request: CaptureRequest
    store: StoreOutput


def _run(
    images: ImageSet,
    description: ModelDescription,
    questions: Sequence[_Question],
    *,
    shard_size: int,
    console: Console,
) -> None:
    """Run one question, or several that continue from one pass over each image.

    Raises:
        NotSharedError: if several cannot.
    """
    config = questions[0].config
    trainer = _trainer(config.accelerator, config.devices, config.num_nodes, config.strategy)
    planned = [
        _planned(images, description, question, trainer, shard_size, console, number)
        for number, question in enumerate(questions)
    ]
    prompts, stores = [one.prompt for one in planned], [one.store for one in planned]
    again = next((prompt for prompt in prompts if prompts.count(prompt) > 1), None)
    if again is not None:
        raise ModelError(f"Two questions of --prompt are one text, {again!r}: give each once.")
    limit = BatchLimit(config.batch_size, stores[0].say if trainer.is_global_zero else None)
    module = ExtractionModule(
        description,
        [one.request for one in planned],
        limit,
        quantization=config.quantization,
        compute_dtype=config.compute_dtype,
    )

    def begin(trainer: Trainer) -> list[list[Shard]]:
        shards, beside = [], 0
        for store in stores:
            shards.append(store.begin(trainer, beside))
            beside += store.needed
        return shards

    data = ExtractionDataModule(
        images,
        description.processor,
        prompts,
        limit,
        begin,
        config.num_workers,
        lambda: any(store.thumbnails for store in stores),
    )
    trainer.callbacks += [ExtractionProgress(console), *stores]  # type: ignore[attr-defined]
    outputs = listed([str(one.config.output) for one in questions])
    device = trainer.strategy.root_device
    questions = [one.question for one in planned]
    try:
        with stoppable(how_to_continue(outputs), lambda: trainer.received_sigterm):
            with quiet_lightning(), cpu_threads_for(description.hidden_size, device):
                trainer.predict(module, datamodule=data, return_predictions=False)
            trainer.strategy.barrier("all shards are written")
            if trainer.is_global_zero:
                for number, store in enumerate(stores):
                    store.finish(module.record(number) if data.shards else {})
    except NamesError as error:  # found when the loaded model was tried; nothing is stored yet
        if config.forced_choice != "auto" or trainer.world_size > 1:
            raise
        why = module.unscored or {0: error}
        questions = [
            _without_choice(one, f"forced choice is left out: {why[k].reason}") if k in why else one
            for k, one in enumerate(questions)
        ]
    except SiteError as error:
        if module.was_tried or trainer.world_size > 1:
            raise
        lacking = {error.site: error.reason}
        questions = [replace(one, without={**(one.without or {}), **lacking}) for one in questions]
    except RuntimeError as error:
        raise _in_one_sentence(error, trainer, outputs) from error
    else:
        return
    finally:
        module.free()
        for store in stores:
            store.close()
    _run(images, description, questions, shard_size=shard_size, console=console)


def _planned(
    images: ImageSet,
    description: ModelDescription,
    question: _Question,
    trainer: Trainer,
    shard_size: int,
    console: Console,
    number: int,
) -> _Planned:
    """Plan one question: refuse what cannot be had, and find what is still to be made."""
    config, left_out = question.config, question.left_out
    output = Path(str(config.output))
    widths = site_widths(description.skeleton)
    there = begun(output) if question.without is None and not config.overwrite else None
    without = question.without or {}
    if there is not None:  # what was left out then stays out
        lacking = [site for site in widths if site not in there.baselines]
        without = dict.fromkeys(lacking, "this store was begun without it")
        if config.forced_choice == "auto" and "forced_choice_left_out" in there.provenance:
            left_out = str(there.provenance["forced_choice_left_out"])
            config = _without_choice(question, left_out).config
    position, max_new_tokens = config.position, config.max_new_tokens
    _check_answer_length(max_new_tokens, description.context_length)
    encoder = is_encoder_decoder(description.config)
    if encoder and position == "last_generated":
        raise ModelError(
            f"Position last_generated cannot be had of {description.spec}: image and prompt are in "
            "its encoder, which sees no answer; give another --position."
        )
    wanted = resolve_layers(config.layers, description.n_layers)
    (text,) = config.prompts
    several = images.images_per_sample
    prompt = resolve_prompt(text, description.processor, description.config.model_type, several)
    asked = prompt_for_processor(prompt, description.processor)
    if several > 1:
        check_images(description.spec, description.processor, asked, several)
    words = None
    if config.answers is not None:
        selected = images.classes is not None
        words = words_of(config.answers, images.class_names, selected=selected)
    answers = None
    if config.forced_choice:
        names = words or images.class_names
        try:
            context = answer_context(description.processor, description.config, asked, several)
            answers = class_answers(description.processor.tokenizer, context, names)
        except NamesError as error:
            if config.forced_choice != "auto":
                raise
            left_out = f"forced choice is left out: {error.reason}"
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
    model_notes: list[str] = []
    if borrowed_form(text, description.processor, description.config.model_type):
        model_notes.append(
            f"{description.spec} has no chat template, and no form of its family "
            f"({description.config.model_type}) is known: it is asked in LLaVA-1.5's, unless "
            "--prompt gives another"
        )
    if not adding:
        model_notes += [f"the baseline {name} is left out: {why}" for name, why in without.items()]
    notes = [*([] if left_out is None else [left_out]), *model_notes]
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
            # What the report says of the model; forced_choice_left_out is in the provenance.
            "model_notes": model_notes or None,
        },
        adding=adding,
        overwrite=config.overwrite,
        keep_shards=config.keep_shards,
        shard_size=shard_size,
        console=console,
        question=number,
    )
    for note in notes if trainer.is_global_zero else ():
        store.say(note)
    return _Planned(_Question(config, left_out, without), asked, request, store)


def _without_choice(question: _Question, why: str) -> _Question:
    config = question.config
    kept = config.answers if config.max_new_tokens else None
    return replace(
        question, config=replace(config, forced_choice=False, answers=kept), left_out=why
    )


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


def _in_one_sentence(error: RuntimeError, trainer: Trainer, output: str) -> Exception:
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
    patient = DDPStrategy(timeout=PATIENCE)
    what = f"Accelerator {accelerator!r}, devices {devices!r}, strategy {strategy!r}"

    with had_or_refused(what, "this machine", ModelError):
        settings = process_settings(accelerator, devices, num_nodes)

        def made(strategy: str | DDPStrategy) -> Trainer:
            return plain_trainer(
                strategy=strategy, enable_checkpointing=False, inference_mode=True, **settings
            )

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
