"""Is a model's folder whole? Looked at before anything heavy is imported or computed."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from signbridge.errors import ModelError
from signbridge.model.weights import weight_files

_POINTER = b"version https://git-lfs.github.com/spec/"
_POINTER_SIZE = 1024  # no pointer is larger
_TOKENIZERS = ("tokenizer.json", "*.model", "vocab*", "tekken.json", "*.tiktoken")
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
_SETTINGS = (
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    *_PROCESSORS,
)
_LENGTH = struct.Struct("<Q")


def check_model_folder(folder: Path, *, weights: bool = True) -> None:
    """Refuse a folder that lacks a file, or holds a damaged one, before it costs any time.

    Args:
        folder: the folder of a model, on this disk.
        weights: whether the weights will be loaded.

    Raises:
        ModelError: names the file and says what to do.
    """
    if not (folder / "config.json").is_file():
        inner = sorted(path.parent for path in folder.glob("*/config.json"))
        hint = f"give {inner[0]}, which does" if inner else "give the folder that holds it"
        raise ModelError(
            f"{folder} holds no config.json, so it is no model folder of transformers: {hint}."
        )
    for file in sorted(folder.iterdir()):
        if file.suffix in (".json", ".safetensors", ".model", ".txt", ".jinja") and file.is_file():
            _check_no_pointer(file)
    for file in [folder / name for name in _SETTINGS if (folder / name).is_file()]:
        content = _parsed(file)
        if file.name == "config.json" and "model_type" not in content:
            raise ModelError(
                f"{file} names no model_type, so transformers cannot tell what it is: fetch the "
                "file again."
            )
    if weights:
        for file in weight_files(folder):
            _check_safetensors(file)


def check_processor_files(folder: Path) -> None:
    """Refuse a folder that has nothing to make a processor of.

    Raises:
        ModelError: names the files.
    """
    if not any((folder / name).is_file() for name in _PROCESSORS):
        raise ModelError(
            f"{folder} holds neither {' nor '.join(_PROCESSORS)}, which say how images are "
            "prepared: fetch one of them, or save the model's processor there with "
            "save_pretrained."
        )
    if not any(True for pattern in _TOKENIZERS for _ in folder.glob(pattern)):
        raise ModelError(
            f"{folder} holds no tokenizer (tokenizer.json or tokenizer.model): fetch it, or save "
            "the model's processor there with save_pretrained."
        )


def _check_no_pointer(file: Path) -> None:
    if file.stat().st_size > _POINTER_SIZE:
        return
    with file.open("rb") as opened:
        if opened.read(len(_POINTER)) == _POINTER:
            raise ModelError(
                f"{file} is a Git LFS pointer, not the file itself: run 'git lfs pull' in "
                f"{file.parent}, or download the model with 'hf download'."
            )


def _parsed(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ModelError(
            f"{file} is damaged (line {error.lineno}, column {error.colno}: {error.msg}): fetch "
            "it again."
        ) from error
    except ValueError as error:
        raise ModelError(f"{file} is damaged (it is no text): fetch it again.") from error
    except OSError as error:
        raise ModelError(
            f"{file} cannot be read ({error.strerror}): check its permissions."
        ) from error
    return content if isinstance(content, dict) else {}


def _check_safetensors(file: Path) -> None:
    """Compare the file's size with what its header, 8 bytes of length and JSON, says of it."""
    size = file.stat().st_size
    try:
        with file.open("rb") as opened:
            (length,) = _LENGTH.unpack(opened.read(_LENGTH.size))
            if length > size:
                raise ValueError
            header = json.loads(opened.read(length))
        ends = [int(one["data_offsets"][1]) for key, one in header.items() if key[0] != "_"]
        whole = _LENGTH.size + length + max(ends, default=0)
    except OSError as error:
        raise ModelError(
            f"{file} cannot be read ({error.strerror}): check its permissions."
        ) from error
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelError(
            f"{file} is no safetensors file, or its beginning is damaged: fetch it again."
        ) from error
    if size != whole:
        raise ModelError(
            f"{file} has {size:,} bytes instead of {whole:,}, so it was not copied or downloaded "
            "to its end: fetch it again."
        )
