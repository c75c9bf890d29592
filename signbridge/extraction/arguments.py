"""Arguments of an extraction that can be judged without a model, before anything heavy is loaded.

:mod:`signbridge.cli.commands` looks at them first, so that a typing error is answered at once;
:func:`signbridge.extraction.extract.extract_activations` looks at them for every other caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from signbridge.errors import ModelError, StoreError
from signbridge.model.files import check_model_folder, local_files
from signbridge.model.prompts import check_prompt


def check_arguments(
    *,
    layers: Literal["all"] | Sequence[int],
    position: str,
    prompt: str,
    max_new_tokens: int,
    batch_size: int | Literal["auto"],
    num_workers: int | None,
    num_nodes: int,
    output: str | Path | None,
) -> None:
    """Refuse arguments that make no sense for any model.

    Args: as of :func:`~signbridge.extraction.extract.extract_activations`.

    Raises:
        ModelError: if one of them cannot be used.
        StoreError: if ``output`` names no file.
    """
    for name, value, least in (
        ("batch_size", 1 if batch_size == "auto" else batch_size, 1),
        ("max_new_tokens", max_new_tokens, 0),
        ("num_workers", num_workers or 0, 0),
        ("num_nodes", num_nodes, 1),
    ):
        if value < least:
            raise ModelError(f"--{name} is {value}: give at least {least}.")
    if position == "last_generated" and max_new_tokens == 0:
        raise ModelError(
            "Position last_generated needs an answer to be generated: give --max_new_tokens, for "
            "instance 20."
        )
    check_prompt(prompt)
    check_layers(layers)
    if output is not None:
        _check_output(str(output))


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


def check_answer_length(max_new_tokens: int, context_length: int | None) -> None:
    """Refuse an answer that does not fit into the model's context.

    Args:
        max_new_tokens: the most tokens of an answer.
        context_length: the most tokens that the model takes, or None where it does not say.

    Raises:
        ModelError: says how many it takes.
    """
    if context_length is not None and max_new_tokens >= context_length:
        raise ModelError(
            f"--max_new_tokens is {max_new_tokens}, but this model takes {context_length:,} tokens "
            "of prompt and answer together: give fewer."
        )


def check_layers(layers: Literal["all"] | Sequence[int]) -> None:
    """Refuse an empty choice of layers, or one that names a layer twice.

    Raises:
        ModelError: says what is allowed.
    """
    if layers == "all":
        return
    if isinstance(layers, str):
        raise ModelError(f"--layers is {layers!r}: give 'all' or a list such as '[8,16,24,31]'.")
    chosen = list(layers)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ModelError(f"--layers is {chosen}: give at least one layer, and each once.")


def _check_output(output: str) -> None:
    if not output.strip():
        raise StoreError(
            "--output is empty: give the name of a file for the store, or leave it out."
        )
    if Path(output).is_dir() or output.endswith("/"):
        raise StoreError(f"{output} is a folder: give the name of a file for the store.")
