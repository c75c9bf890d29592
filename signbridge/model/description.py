"""What a model is, known before its weights are loaded.

Resuming, refusing and planning need the model's sizes, its parts and the fingerprint of its
weights, not the weights: a finished store is recognised without loading them. (The fingerprint of a
local folder does read its files once; files in the hub's cache carry it in their names.)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from signbridge.errors import ModelError, SignBridgeError, first_line
from signbridge.model import Weights
from signbridge.model.families import decoder_layers, image_token_id
from signbridge.model.files import (
    check_model_folder,
    check_weights,
    local_files,
    stored_tensors,
    weights_sha256,
)
from signbridge.model.processor import load_processor, without_package
from signbridge.model.random_weights import initialiser, model_skeleton
from signbridge.model.settings import config_record, generation_record, processor_records
from signbridge.runtime.files import file_sha256
from signbridge.runtime.terminal import quiet_transformers

# Tensors of a model; the largest published ones have some tens of thousands.
_MOST_PARAMETERS = 200_000

TINY = "tiny"
TINY_FOLDER = Path(__file__).parents[1] / "assets" / "tiny"
"""The bundled stand-in, a model folder like any other; its README.md says what it is."""


@dataclass(frozen=True)
class ModelDescription:
    """A model's files, configuration, processor and shape, without its weights.

    Attributes:
        spec: the text that named it: ``tiny``, a hub id or a folder.
        kind: ``tiny``, ``hub`` or ``folder``.
        name: short name for file names.
        folder: where its files lie on this disk.
        revision: the hub's commit hash, or an empty string.
        config: its transformers configuration.
        generation_config: what its answers are generated with.
        processor: its transformers processor, see
            :func:`~signbridge.model.processor.load_processor`.
        skeleton: the model on the ``meta`` device: modules and shapes, no values.
        weights: ``pretrained``, those of its files, or ``random``.
        weights_seed: seed of random weights.
    """

    spec: str
    kind: str
    name: str
    folder: Path
    revision: str
    config: Any
    generation_config: Any
    processor: Any
    skeleton: PreTrainedModel
    weights: Weights = "pretrained"
    weights_seed: int = 0

    @property
    def n_layers(self) -> int:
        """Number of decoder layers."""
        return len(decoder_layers(self.skeleton))

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return int(self.config.get_text_config().hidden_size)

    @property
    def context_length(self) -> int | None:
        """The most tokens of prompt and answer together, or None where the model does not say."""
        length = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        return length if isinstance(length, int) else None

    @property
    def image_token_id(self) -> int:
        """Id of the token that stands for one image patch."""
        return image_token_id(self.config)

    @cached_property
    def weights_sha256(self) -> str:
        """One SHA-256 over the weight files; reads them once unless the hub's cache knows it."""
        return weights_sha256(self.folder)

    @cached_property
    def settings(self) -> dict[str, str]:
        """Records of what decides vectors and answers besides the weights, by content."""
        return {
            "model_config": config_record(self.config, quantized=self.weights == "pretrained"),
            **processor_records(self.processor, self.folder),
            "generation_config": generation_record(self.generation_config, self.folder),
        }

    def provenance(self) -> dict[str, Any]:
        """Return the attributes that say which model and processor made a store.

        Pretrained weights are not called so: stores made before there were others lack the word.
        """
        image_processor = getattr(self.processor, "image_processor", None)
        return {
            "model": self.spec,
            "model_kind": self.kind,
            "model_class": type(self.skeleton).__name__,
            "model_revision": self.revision,
            **self._weights_record(),
            "processor_class": type(self.processor).__name__,
            "image_processor_class": type(image_processor).__name__,
            # As it was loaded: a family without one for pillow would get another.
            "processor_backend": getattr(image_processor, "backend", "pil"),
            **self.settings,
        }

    def _weights_record(self) -> dict[str, Any]:
        if self.weights == "pretrained":
            return {"weights_sha256": self.weights_sha256}
        return {
            "weights": self.weights,
            "weights_seed": self.weights_seed,
            "weights_initialiser": initialiser(),
            "config_sha256": file_sha256(self.folder / "config.json"),
        }


def describe_model(
    spec: str, *, weights: Weights = "pretrained", weights_seed: int = 0
) -> ModelDescription:
    """Find a model and read everything about it but its weights.

    Args:
        spec: ``tiny``, a hub id (``owner/name`` or ``owner/name@revision``) or a local folder.
        weights: ``pretrained``, or ``random`` for the same architecture freshly initialised, which
            needs no weights on this disk.
        weights_seed: seed of random weights.

    Raises:
        ModelError: if it cannot be found, is not a vision-language model with a stack of decoder
            layers, or has no safetensors weights.
    """
    check_weights(weights, weights_seed)
    if spec == TINY:
        folder, revision = TINY_FOLDER, ""
        kind, name = "tiny", TINY
    else:
        folder, revision = local_files(spec, weights=weights == "pretrained")
        kind = "hub" if revision else "folder"
        name = spec.partition("@")[0].rpartition("/")[2] if revision else folder.resolve().name
    check_model_folder(folder, weights=weights == "pretrained")
    if weights == "random":
        name += "-random" + (str(weights_seed) if weights_seed else "")
    config = _config(spec, folder)
    most = _MOST_PARAMETERS
    if weights == "pretrained":  # some families split or join what is stored as one
        most = min(most, 1000 + 4 * stored_tensors(folder))
    skeleton = _skeleton(spec, folder, config, most)
    return ModelDescription(
        spec=spec,
        kind=kind,
        name=name.lower(),
        folder=folder,
        revision=revision,
        config=config,
        generation_config=_generation_config(spec, folder, config),
        processor=load_processor(spec, folder, config),
        skeleton=skeleton,
        weights=weights,
        weights_seed=weights_seed,
    )


def _config(spec: str, folder: Path) -> Any:
    from transformers import AutoConfig

    try:
        with quiet_transformers():
            return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except ImportError as error:
        raise without_package(spec, error) from error
    except Exception as error:
        # The constructors of a hundred families check and compute what they like.
        raise ModelError(
            f"{spec} has a config.json that this version of transformers cannot use "
            f"({first_line(error)}): code that ships with a model is never run here."
        ) from error


def _generation_config(spec: str, folder: Path, config: Any) -> Any:
    from transformers import GenerationConfig

    file = folder / "generation_config.json"
    try:
        if not file.is_file():
            return GenerationConfig.from_model_config(config)
        return GenerationConfig.from_pretrained(folder)
    except Exception as error:
        raise ModelError(
            f"{file} cannot be used ({first_line(error)}): fetch it again, or remove it, and "
            "config.json says what it would."
        ) from error


def _skeleton(spec: str, folder: Path, config: Any, most: int) -> PreTrainedModel:
    from transformers import AutoModelForImageTextToText

    known: Any = AutoModelForImageTextToText
    if type(config) not in known._model_mapping:
        raise ModelError(
            f"{spec} is a {config.model_type!r} model, which is no vision-language model: give one "
            "such as llava-hf/llava-1.5-7b-hf."
        )
    try:
        skeleton = model_skeleton(config, most)
        decoder_layers(skeleton)
        image_token_id(config)
    except SignBridgeError:
        raise
    except ImportError as error:
        raise without_package(spec, error) from error
    except Exception as error:
        raise ModelError(
            f"{folder / 'config.json'} describes no model that can be built ({first_line(error)}): "
            "fetch it again."
        ) from error
    return skeleton
