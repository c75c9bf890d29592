"""Find a model's files, on this disk or on the Hugging Face hub, and fingerprint its weights."""

from __future__ import annotations

import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, get_args

from signbridge.errors import ModelError, first_line
from signbridge.store.files import file_sha256

# Weights as safetensors only: a pickled checkpoint can run code when it is opened.
_FILES = ["model*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]
Weights = Literal["pretrained", "random"]
_SHA256 = re.compile(r"[0-9a-f]{64}")


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


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model folder that transformers loads, sorted by name.

    Raises:
        ModelError: if the folder holds none, or lacks one that its index names.
    """
    index = folder / "model.safetensors.index.json"
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
    try:
        return {str(name) for name in json.loads(index.read_text("utf-8"))["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{index} is damaged, so the weight files are not known: fetch it again."
        ) from error


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
