"""A model's files: found on this disk or on the Hugging Face hub, checked and fingerprinted.

Nothing heavy is imported: what is wrong with a folder is said before torch is loaded.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

from signbridge.errors import ModelError, first_line
from signbridge.model import Weights
from signbridge.runtime.files import file_sha256
from signbridge.runtime.reading import parse_json, read_text

# Weights as safetensors only: a pickled checkpoint can run code when it is opened.
_FILES = ["model*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]
_SHA256 = re.compile(r"[0-9a-f]{64}")
_POINTER = b"version https://git-lfs.github.com/spec/"
_POINTER_SIZE = 1024  # no pointer is larger
_TOKENIZERS = ("tokenizer.json", "*.model", "vocab*", "tekken.json", "*.tiktoken")
PROCESSORS = ("processor_config.json", "preprocessor_config.json")
_INDEX = "model.safetensors.index.json"
# They name words, merges or tensors and may be large; every other text has some pages.
_LISTS = (_INDEX, "tokenizer.json", "vocab.json", "added_tokens.json", "tekken.json")
_SETTINGS = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.json",
    *PROCESSORS,
)
_LARGEST_LIST = 1 << 27  # bytes
_LARGEST_SETTINGS = 1 << 24  # bytes
_LARGEST_TEMPLATE = 1 << 20
_DEEPEST = 64  # nested lists and objects; published files have up to ten
# What a configuration says how many there are of: transformers makes lists of that length, and
# modules. The largest published models have some hundreds.
_COUNTS = re.compile(r"(^|_)(layers?|depths?|blocks|stages|experts|heads?|labels)$")
_MOST = 10_000
_LENGTH = struct.Struct("<Q")
_LONGEST_HEADER = 100_000_000  # bytes, that of the safetensors library


def check_weights(weights: str, seed: int) -> None:
    """Refuse a choice of weights that makes no sense.

    Raises:
        ModelError: says what is allowed.
    """
    if weights not in get_args(Weights):
        raise ModelError(f"--weights is {weights!r}: give 'pretrained' or 'random'.")
    if not 0 <= seed < 2**32:
        raise ModelError(f"--weights_seed is {seed}: give a number from 0 to 4294967295.")
    if weights == "pretrained" and seed:
        raise ModelError(
            f"--weights_seed {seed} is the seed of random weights: give --weights random with it, "
            "or leave it out."
        )


def local_files(spec: str, *, weights: bool = True) -> tuple[Path, str]:
    """Return the folder that holds the files of a local folder or hub id, and its revision.

    A hub id is downloaded once, then read from the hub's cache, also offline. ``id@revision``
    asks for a branch, tag or commit.

    Args:
        spec: a folder or a hub id.
        weights: whether the weights are wanted; without them only the other files are fetched.

    Returns:
        The folder, and the commit hash of a hub model or an empty string.

    Raises:
        ModelError: if there is no such folder, or the hub has not what was asked for, or cannot be
            reached and the cache lacks it.
    """
    path = Path(spec).expanduser()
    if spec and path.is_dir():
        return path, ""
    if spec and path.exists():
        raise ModelError(
            f"{spec} is a file: give the folder that holds config.json and the weights."
        )
    if spec.startswith((".", "/", "~")) or spec.partition("@")[0].count("/") != 1:
        raise ModelError(
            f"There is no folder {spec}, and it is no hub id either: give 'tiny', a folder, or an "
            "id of the form owner/name such as llava-hf/llava-1.5-7b-hf."
        )
    folder = _from_hub(spec, _FILES if weights else _FILES[1:])
    return folder, folder.name


def _from_hub(spec: str, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name, _, revision = spec.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=patterns))
    except GatedRepoError as error:
        raise ModelError(
            f"{name} is gated: accept its licence on its hub page, then run 'hf auth login' or set "
            "HF_TOKEN to a token that may read it."
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{name} has no revision {revision!r} on the hub.") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"The hub has no model {name}, or it is private: check the id, or set HF_TOKEN to a "
            "token that may read it."
        ) from error
    except HFValidationError as error:
        raise ModelError(f"{spec!r} is no hub id: the form is owner/name.") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"{name} is not in the local hub cache and the hub cannot be reached "
            f"({first_line(error)}): connect once, or give a folder that holds the model."
        ) from error


def check_model(model: str, weights: str = "pretrained") -> None:
    """Refuse what names no model; of a hub id nothing is fetched yet.

    Args:
        model: ``tiny``, a hub id or a local folder.
        weights: ``pretrained`` or ``random``, for which the folder need hold none.

    Raises:
        ModelError: if it is no folder and no hub id, or the folder is not whole.
    """
    path = Path(model).expanduser()
    is_hub_id = not path.exists() and model.partition("@")[0].count("/") == 1
    if model == "tiny" or (is_hub_id and not model.startswith((".", "/", "~"))):
        return
    folder, _ = local_files(model)
    check_model_folder(folder, weights=weights == "pretrained")


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
        if file.suffix in (".json", ".safetensors", ".model", ".txt", ".jinja") and file.exists():
            _check_no_pointer(file)
    for file in _read_by_transformers(folder, (*_SETTINGS, *_LISTS)):
        content = parsed(file)
        if file.name == "config.json" and file.parent == folder:
            if "model_type" not in content:
                raise ModelError(
                    f"{file} names no model_type, so transformers cannot tell what it is: fetch "
                    "the file again."
                )
            _check_counts(file, content)
    for file in sorted([*folder.glob("*.jinja"), *folder.glob("*/*.jinja")]):
        _text(file, _LARGEST_TEMPLATE)
    if weights:
        for file in weight_files(folder):
            _check_safetensors(file)


def check_processor_files(folder: Path) -> None:
    """Refuse a folder that has nothing to make a processor of.

    Raises:
        ModelError: names the files.
    """
    if not any((folder / name).is_file() for name in PROCESSORS):
        raise ModelError(
            f"{folder} holds neither {' nor '.join(PROCESSORS)}, which say how images are "
            "prepared: fetch one of them, or save the model's processor there with "
            "save_pretrained."
        )
    if not any(True for pattern in _TOKENIZERS for _ in folder.glob(pattern)):
        raise ModelError(
            f"{folder} holds no tokenizer (tokenizer.json or tokenizer.model): fetch it, or save "
            "the model's processor there with save_pretrained."
        )


def template_file(folder: Path) -> Path:
    """The file of a model folder that transformers takes the chat template from."""
    names = ("chat_template.jinja", "chat_template.json")
    found = [folder / name for name in names if (folder / name).is_file()]
    return found[0] if found else folder / "tokenizer_config.json"


def _read_by_transformers(folder: Path, names: Sequence[str]) -> list[Path]:
    """The files of these names, of the model and of its further tokenizers."""
    places = [folder, *sorted(folder.glob("*tokenizer*/"))]
    return [place / name for place in places for name in names if (place / name).exists()]


def _check_no_pointer(file: Path) -> None:
    if not file.is_file():
        raise ModelError(f"{file} is no file: fetch it again.")
    if file.stat().st_size > _POINTER_SIZE:
        return
    with file.open("rb") as opened:
        if opened.read(len(_POINTER)) == _POINTER:
            raise ModelError(
                f"{file} is a Git LFS pointer, not the file itself: run 'git lfs pull' in "
                f"{file.parent}, or download the model with 'hf download'."
            )


def _text(file: Path, largest: int) -> str:
    try:
        return read_text(file, largest, encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{file} is damaged (it is no text): fetch it again.") from error
    except OSError as error:
        raise ModelError(
            f"{file} cannot be read ({error.strerror}): check its permissions, or fetch it again."
        ) from error


def parsed(file: Path) -> dict[str, Any]:
    """Return the object of a JSON file that is small enough, nests little and has no NaN.

    It is empty for a file that holds something else.

    Raises:
        ModelError: names the file and says what is wrong with it.
    """
    is_list = file.name in _LISTS
    text = _text(file, _LARGEST_LIST if is_list else _LARGEST_SETTINGS)
    try:
        content = parse_json(text)
        if not is_list:
            _check_values(content)
    except json.JSONDecodeError as error:
        raise ModelError(
            f"{file} is damaged (line {error.lineno}, column {error.colno}: {error.msg}): fetch "
            "it again."
        ) from error
    except ValueError as error:
        raise ModelError(f"{file} is damaged ({error}): fetch it again.") from error
    return content if isinstance(content, dict) else {}


def _check_values(content: Any) -> None:
    """Refuse what no settings hold.

    Raises:
        ValueError: says what it is.
    """
    level: list[tuple[object, Any]] = [("", content)]
    for _ in range(_DEEPEST):
        level = [
            (key if isinstance(value, dict) else outer, inner)
            for outer, value in level
            if isinstance(value, (dict, list))
            for key, inner in (value.items() if isinstance(value, dict) else enumerate(value))
        ]
        for key, value in level:
            if isinstance(value, float) and math.isnan(value):
                raise ValueError(f"{key!r} is NaN, which is no number")
        if not level:
            return
    raise ValueError("it nests too deep")


def _check_counts(file: Path, content: Any, key: str = "") -> None:
    """Refuse a configuration of more parts than any model has, before they are made."""
    if isinstance(content, dict):
        for name, value in content.items():
            _check_counts(file, value, name)
    elif isinstance(content, list):
        for value in content:
            _check_counts(file, value, key)
    elif isinstance(content, (int, float)) and content > _MOST and _COUNTS.search(key):
        raise ModelError(
            f"{file} asks for a {key} of {content:,}, and no model has more than {_MOST:,}: fetch "
            "the file again."
        )


def _check_safetensors(file: Path) -> None:
    """Compare the file's size with what its header says of it."""
    size = file.stat().st_size
    ends, length = _header(file)
    whole = _LENGTH.size + length + max(ends, default=0)
    if size != whole:
        raise ModelError(
            f"{file} has {size:,} bytes instead of {whole:,}, so it was not copied or downloaded "
            "to its end: fetch it again."
        )


def _header(file: Path) -> tuple[list[int], int]:
    """Where each tensor of a safetensors file ends, and the length of the JSON that says so."""
    try:
        with file.open("rb") as opened:
            (length,) = _LENGTH.unpack(opened.read(_LENGTH.size))
            if length > min(file.stat().st_size, _LONGEST_HEADER):
                raise ValueError
            header = parse_json(opened.read(length).decode())
        ends = [int(one["data_offsets"][1]) for key, one in header.items() if key[0] != "_"]
    except OSError as error:
        raise ModelError(
            f"{file} cannot be read ({error.strerror}): check its permissions."
        ) from error
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelError(
            f"{file} is no safetensors file, or its beginning is damaged: fetch it again."
        ) from error
    return ends, length


def stored_tensors(folder: Path) -> int:
    """Return how many tensors a model's weight files hold.

    Raises:
        ModelError: names the file that is absent or damaged.
    """
    return sum(len(_header(file)[0]) for file in weight_files(folder))


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model folder that transformers loads, sorted by name.

    Raises:
        ModelError: if the folder holds none, or lacks one that its index names.
    """
    index = folder / _INDEX
    if index.is_file():
        files = sorted(folder / name for name in _indexed(index))
    elif (folder / "model.safetensors").is_file():
        files = [folder / "model.safetensors"]
    else:
        files = []
    if not files:
        raise ModelError(
            f"{folder} holds no model.safetensors weights: SignBridge opens no pickled "
            "checkpoints; convert the model with save_pretrained, or take a revision that has them."
        )
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise ModelError(f"{folder} lacks {absent[0]}, which its index names: fetch it again.")
    return files


def _indexed(index: Path) -> set[str]:
    names = parsed(index).get("weight_map")
    if not isinstance(names, dict):
        raise ModelError(f"{index} is damaged, so the weight files are not known: fetch it again.")
    for name in names.values():
        if not isinstance(name, str) or Path(name).name != name or len(name) > 255:
            raise ModelError(
                f"{index} names {str(name)[:80]!r}, which is no file of its folder: fetch it again."
            )
    return set(names.values())


def weights_sha256(folder: Path) -> str:
    """Return one SHA-256 over the names and contents of a model's weight files.

    The hub's cache names a file by its own SHA-256, which saves reading it.
    """
    files = weight_files(folder)
    total = hashlib.sha256()
    with ThreadPoolExecutor(max_workers=4) as pool:  # hashing leaves Python's lock alone
        for file, digest in zip(files, pool.map(_digest, files), strict=True):
            total.update(f"{file.name}\0{digest}\n".encode())
    return total.hexdigest()


def _digest(file: Path) -> str:
    blob = file.resolve().name
    return blob if _SHA256.fullmatch(blob) else file_sha256(file)
