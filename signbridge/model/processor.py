"""A model's processor, put together from its parts, and how a prompt holds an image.

A processor of transformers loads every part that its class names, video and sound included. Stills
need the image processor and the tokenizers alone, so those are loaded and the rest is left out: a
video processor asks for torchvision, which nothing here does.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers.utils.hub import PushToHubMixin

from signbridge.errors import ModelError, NamesError, SignBridgeError, first_line
from signbridge.model.families import is_encoder_decoder
from signbridge.model.files import PROCESSORS, check_processor_files, parsed, template_file
from signbridge.runtime import torchvision
from signbridge.runtime.bounded import FailedError, bounded
from signbridge.runtime.terminal import quiet_transformers
from signbridge.runtime.words import listed

Inputs = dict[str, Any]

# What a template or a processor may take for one small image, at most.
_SECONDS = 10
_MEMORY = 4 << 30

_NAMING = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")


class _LeftOut(PushToHubMixin):  # what a processor's own to_dict asks of its parts
    """Stands where a processor keeps a part that stills do not need."""

    def to_dict(self) -> dict[str, Any]:
        return {}

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):  # what Python itself looks for
            raise AttributeError(name)


def load_processor(spec: str, folder: Path, config: Any) -> Any:
    """Load the image processor (with the pillow backend) and the tokenizers of a model folder.

    Args:
        spec: what named the model, for messages.
        folder: the model folder.
        config: the model's configuration.

    Returns:
        An object of the model's processor class, which pads on the left, or on the right for an
        encoder-decoder.

    Raises:
        ModelError: if the folder lacks a part, or this version of transformers cannot load it.
    """
    check_processor_files(folder)
    try:
        with quiet_transformers():
            processor = _assembled(spec, folder, config)
    except ImportError as error:
        raise without_package(f"The processor of {spec}", error) from error
    if processor.tokenizer.pad_token is None:
        if processor.tokenizer.eos_token is None:
            raise ModelError(
                f"The tokenizer of {spec} has no padding token: its folder needs "
                "tokenizer_config.json, which names it."
            )
        processor.tokenizer.pad_token = processor.tokenizer.eos_token  # the mask hides it
    # An encoder counts the padding before a text as positions; a decoder goes by the mask.
    processor.tokenizer.padding_side = "right" if is_encoder_decoder(config) else "left"
    _check(folder, processor)
    return processor


def without_package(what: str, error: ImportError) -> ModelError:
    """Say which package ``what`` needs: one that is not there, or does not fit the others."""
    package = _package(error)
    why = torchvision.fault if package == "torchvision" else None
    return ModelError(
        f"{what} needs a package that is missing or does not fit ({why or first_line(error)}): "
        f"install {package or 'it'} in the version that goes with the others."
    )


def _package(error: ImportError) -> str:
    if error.name is None and "torchvision" in str(error).lower():  # as transformers says it
        return "torchvision"
    return (error.name or "").partition(".")[0]


@contextmanager
def _loading(what: str, files: str, folder: Path) -> Iterator[None]:
    """Say which files a part cannot be made of, whatever the libraries raise."""
    try:
        yield
    except (SignBridgeError, ImportError):
        raise
    except BaseException as error:
        # A panic of the tokenizers' library is a BaseException, and no name of it is public.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ModelError(
            f"{folder} has no {what} that transformers can load ({first_line(error)}): fetch "
            f"{files} again, or give another model."
        ) from error


def _check(folder: Path, processor: Any) -> None:
    """Try the processor on a small image: values of a wrong type are only met in use."""
    files = " and ".join(name for name in PROCESSORS if (folder / name).is_file())

    def tried() -> bool:
        inputs = prepare(processor, [f"{marks}?"], [_black()])
        return all(
            bool(one.isfinite().all()) for one in inputs.values() if hasattr(one, "isfinite")
        )

    with _loading("processor", files, folder):
        marks = image_text(processor)
    try:
        finite = bounded(tried, _SECONDS, _MEMORY)
    except FailedError as error:
        absent = [name for name, value in vars(processor).items() if value is None]
        absent = [name for name in absent if name != "chat_template"]
        lacking = f"; there is no {listed(absent)}" if absent else ""
        raise ModelError(
            f"{folder} has a processor that cannot prepare an image ({error}{lacking}): fetch "
            f"{files} again, which says how, or give another model."
        ) from error
    if not finite:
        raise ModelError(
            f"{folder} has a processor that makes pixels which are no finite numbers: fetch "
            f"{files} again, which says how, or give another model."
        )


def _assembled(spec: str, folder: Path, config: Any) -> Any:
    from transformers import AutoImageProcessor, AutoTokenizer

    cls = _processor_class(spec, folder, config)
    if not {"image_processor", "tokenizer"} <= set(cls.get_attributes()):
        raise ModelError(f"{spec} has no processor for images and text together.")
    images: Any = AutoImageProcessor
    words: Any = AutoTokenizer
    parts: list[Any] = []
    for name in cls.get_attributes():
        if name == "image_processor":
            # Without a pinned backend, pixels would depend on whether torchvision is installed.
            with _loading("image processor", " or ".join(PROCESSORS), folder):
                parts.append(images.from_pretrained(folder, backend="pil", trust_remote_code=False))
        elif "tokenizer" in name:
            place = folder if name == "tokenizer" else folder / name
            with _loading("tokenizer", "tokenizer_config.json and the tokenizer's files", place):
                parts.append(words.from_pretrained(place, trust_remote_code=False))
        else:
            parts.append(_LeftOut())
    if any(isinstance(part, _LeftOut) for part in parts):
        cls = _without_check(cls)
    with _loading("processor", " or ".join(PROCESSORS), folder):
        settings, unused = cls.get_processor_dict(folder)
        return cls.from_args_and_dict(parts, settings, **unused)


def _without_check(cls: Any) -> Any:
    """The class, with no objection to a part that is left out."""

    def check(self: Any, name: str, part: Any) -> Any:
        if not isinstance(part, _LeftOut):
            return cls.check_argument_for_proper_class(self, name, part)
        return None

    def reduce(self: Any) -> Any:  # for the processes that prepare images
        return _rebuilt, (cls, self.__dict__)

    members = {
        "check_argument_for_proper_class": check,
        "__module__": cls.__module__,
        "__reduce__": reduce,
    }
    return type(cls.__name__, (cls,), members)


def _rebuilt(cls: Any, state: dict[str, Any]) -> Any:
    made = object.__new__(_without_check(cls))
    made.__dict__.update(state)
    return made


def _processor_class(spec: str, folder: Path, config: Any) -> Any:
    """The class that the folder names, or else that of the model's type."""
    package: Any = importlib.import_module("transformers")
    auto: Any = importlib.import_module("transformers.models.auto.processing_auto")
    named = [_named_class(folder / file) for file in _NAMING]
    name = next(filter(None, named), None) or auto.PROCESSOR_MAPPING_NAMES.get(config.model_type)
    if isinstance(name, (tuple, list)):
        name = name[0]
    # From its own module: the package itself hands out a stand-in for some classes where
    # torchvision is missing, although their stills need none.
    home = package._class_to_module.get(name)
    if name is not None and home is not None:
        return getattr(_imported(f"transformers.{home}"), name)
    raise ModelError(
        f"{spec} names {name or 'no processor class'}, which this version of transformers does "
        "not have: fetch its processor_config.json again, or give another model."
    )


def _imported(module: str) -> Any:
    """A processor's module; one that takes a helper from torchvision's file has pillow's."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package, found, name = module.rpartition(".processing_")
        if _package(error) != "torchvision" or not found:
            raise
        pillow = importlib.import_module(f"{package}.image_processing_pil_{name}")
        theirs = f"{package}.image_processing_{name}"
        sys.modules[theirs] = pillow
        try:
            return importlib.import_module(module)
        finally:
            del sys.modules[theirs]


def _named_class(file: Path) -> str | None:
    if not file.is_file():
        return None
    content = parsed(file)
    name = content.get("processor_class")
    return name if isinstance(name, str) else None


Pictures = Image.Image | Sequence[Image.Image]
"""What one prompt is about: a picture, or several in their order."""


def as_list(pictures: Pictures) -> list[Image.Image]:
    """Return the pictures of one prompt as a list."""
    return [pictures] if isinstance(pictures, Image.Image) else list(pictures)


def prepare(processor: Any, prompts: Sequence[str], pictures: Sequence[Pictures]) -> Inputs:
    """Make the tensors of a batch.

    Args:
        processor: the model's processor.
        prompts: as :func:`~signbridge.model.prompts.prompt_for_processor` writes them.
        pictures: those of each prompt, in mode RGB: as many as it has places for.

    Returns:
        ``input_ids`` and ``attention_mask``, shape (batch, tokens), ``pixel_values``, and whatever
        else the processor gives, but for the labels that some make for training.
    """
    of_prompts = [as_list(one) for one in pictures]
    options: dict[str, Any] = {"text": list(prompts), "padding": True, "return_tensors": "pt"}
    with quiet_transformers():
        try:
            # A flat list means one prompt's images to some processors.
            made = processor(images=of_prompts, **options)
        except ValueError:
            try:
                flat = [picture for several in of_prompts for picture in several]
                made = processor(images=flat, **options)  # the only form of some
            except Exception:  # what they object to is something else, as said before
                made = None
            if made is None:
                raise
    made = dict(made)
    made.pop("labels", None)
    return made


def check_images(spec: str, processor: Any, prompt: str, images: int) -> None:
    """Refuse a processor that does not take so many images in one prompt.

    Raises:
        ModelError: names the model, the number, and what the processor objects to.
    """
    try:
        prepare(processor, [prompt], [[_black()] * images])
    except Exception as error:  # processors object in every way
        raise takes_fewer(spec, images, first_line(error)) from error


def takes_fewer(spec: str, images: int, why: str) -> ModelError:
    """Say that a model does not take so many images in one prompt."""
    return ModelError(
        f"{spec} does not take {images} images in one prompt ({why}): give samples of one image, "
        "or a model of a family that takes several."
    )


def answer_context(processor: Any, config: Any, prompt: str, images: int = 1) -> str | None:
    """Return the text that an answer follows, as the model sees its end.

    Some processors write more behind the prompt (PaliGemma's a line feed).

    Args:
        processor: the model's processor.
        config: the model's configuration.
        prompt: as :func:`~signbridge.model.prompts.prompt_for_processor` writes it.
        images: how many it has places for.

    Returns:
        The prompt and what follows it; None for an encoder-decoder, whose answer is a text of its
        own.

    Raises:
        NamesError: if that ends the text, so that no answer follows.
    """
    if is_encoder_decoder(config):
        return None
    tokenizer = processor.tokenizer
    own = tokenizer(prompt, add_special_tokens=False)["input_ids"][-3:]
    seen = prepare(processor, [prompt], [[_black()] * images])["input_ids"][0].tolist()
    if seen[-1] == tokenizer.eos_token_id:
        raise NamesError(
            f"The prompt ends with {tokenizer.eos_token}, behind which no name is an answer (some "
            "tokenizers close every text)"
        )
    for more in range(1, 4):
        if seen[-len(own) :] != own and seen[-len(own) - more : -more] == own:
            return prompt + str(tokenizer.decode(seen[-more:]))
    return prompt


def image_text(processor: Any) -> str:
    """Return what a prompt holds for one image, in the words of the model's processor.

    It is what the chat template writes for an image, with the marks around it; without a template
    it is the image token, or nothing where the processor puts the image before the text itself.
    """
    token = str(getattr(processor, "boi_token", None) or processor.image_token)
    if not getattr(processor, "chat_template", None):
        return "" if _puts_the_image_itself(processor) else token
    question = {"type": "text", "text": "?"}
    with_image, without = (
        [{"role": "user", "content": content}]
        for content in ([{"type": "image"}, question], [question])
    )
    whole, bare = rendered(processor, with_image, without)
    start = next((k for k, (a, b) in enumerate(zip(whole, bare, strict=False)) if a != b), 0)
    written = whole[start : start + len(whole) - len(bare)]
    if whole != bare[:start] + written + bare[start:]:
        return token
    return str(written.strip()) or token


def rendered(processor: Any, *conversations: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the processor's chat template writes for conversations and an answer's begin.

    Args:
        processor: the model's processor.
        conversations: turns as chat templates take them.

    Raises:
        ModelError: if the template cannot be used, or takes too long or too much memory.
    """

    def write() -> list[str]:
        return [
            str(
                processor.apply_chat_template(
                    list(turns), tokenize=False, add_generation_prompt=True
                )
            )
            for turns in conversations
        ]

    try:
        return bounded(write, _SECONDS, _MEMORY)
    except FailedError as error:
        folder = Path(str(getattr(processor.tokenizer, "name_or_path", "")))
        raise ModelError(
            f"The chat template in {template_file(folder)} cannot be used ({error}): fetch the "
            "file again."
        ) from error


def _puts_the_image_itself(processor: Any) -> bool:
    def ids() -> list[int]:
        found: list[int] = prepare(processor, ["?"], [_black()])["input_ids"].flatten().tolist()
        return found

    try:
        seen = bounded(ids, _SECONDS, _MEMORY)
    except FailedError:
        return False
    return processor.tokenizer.convert_tokens_to_ids(str(processor.image_token)) in seen


def _black() -> Image.Image:
    return Image.fromarray(np.zeros((32, 32, 3), dtype=np.uint8))
