"""What decides a model's vectors and answers besides its weights, by content.

The settings are read from the loaded objects: what transformers fills in is among them, and two
files that say the same in different words give the same record. Each record is a JSON text; its
keys that begin with ``_`` say where the settings come from (:mod:`signbridge.store.settings`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any

from signbridge.model.files import template_file
from signbridge.runtime.files import canonical_json, sha256_text

# Of a configuration: where it was saved and by what, what the loaded objects' classes say (they
# are recorded by themselves), what is asked for anew in every forward pass, names of labels. The
# dtype of the forward pass is the run's own (compute_dtype), whatever the files say.
_SAYS_NOTHING = frozenset(
    {
        "architectures",
        "auto_map",
        "chunk_size_feed_forward",
        "device",
        "dtype",
        "feature_extractor_type",
        "finetuning_task",
        "id2label",
        "image_processor_type",
        "label2id",
        "name_or_path",
        "output_attentions",
        "output_hidden_states",
        "problem_type",
        "processor_class",
        "return_dict",
        "return_tensors",
        "task_specific_params",
        "tokenizer_class",
        "torch_dtype",
        "torchscript",
        "transformers_version",
        "use_cache",
    }
)
# Of a generation configuration: what greedy answers of a given length do not use.
_NOT_GREEDY = frozenset(
    {
        "do_sample",
        "early_stopping",
        "epsilon_cutoff",
        "eta_cutoff",
        "length_penalty",
        "max_length",
        "max_new_tokens",
        "min_p",
        "num_beams",
        "num_return_sequences",
        "output_logits",
        "output_scores",
        "pad_token_id",
        "return_dict_in_generate",
        "temperature",
        "top_h",
        "top_k",
        "top_p",
        "typical_p",
    }
)
_LONGEST_TEXT = 4000  # characters; a longer value is recorded as its SHA-256
_MOST_ENTRIES = 500


def config_record(config: Any, *, quantized: bool) -> str:
    """The record of a model's configuration.

    Args:
        config: the loaded configuration.
        quantized: whether the quantisation that it names is used; random weights have none.
    """
    values = _kept(config.to_dict())
    if not quantized:
        values.pop("quantization_config", None)
    return _record("config.json", values)


def generation_record(config: Any, folder: Path) -> str:
    """The record of what greedy answers are generated with.

    Args:
        config: the loaded generation configuration.
        folder: the model's folder.
    """
    file = "generation_config.json"
    values = {k: v for k, v in _kept(config.to_dict()).items() if k not in _NOT_GREEDY}
    return _record(file if (folder / file).is_file() else "config.json", values)


def processor_records(processor: Any, folder: Path) -> dict[str, str]:
    """The records of processor, image processor, tokenizer and chat template, by name.

    Args:
        processor: the loaded processor.
        folder: the model's folder.
    """
    own = {k: v for k, v in vars(processor).items() if k not in ("chat_template", "tokenizer")}
    for name, part in own.items():
        if callable(getattr(part, "get_vocab", None)):  # a second tokenizer, as InstructBLIP has
            own[name] = _sha256(_tokenizer_record(part, folder / name))
    image_file = "preprocessor_config.json"
    if not (folder / image_file).is_file():
        image_file = "processor_config.json"
    found = {
        "processor": _record("processor_config.json", _kept(own)),
        "image_processor": _record(image_file, _kept(vars(processor.image_processor))),
        "tokenizer": _tokenizer_record(processor.tokenizer, folder),
        "tokenizer_config": _record("tokenizer_config.json", _special(processor.tokenizer)),
    }
    if getattr(processor, "chat_template", None):
        file = template_file(folder)
        found["chat_template"] = _record(file.name, {"chat_template": processor.chat_template})
    return found


def _tokenizer_record(tokenizer: Any, folder: Path) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return _record("the tokenizer's files", {"vocab": _sha256(tokenizer.get_vocab())})
    values = json.loads(backend.to_str())
    for name in ("version", "truncation", "padding"):  # of the file, and of the last call
        values.pop(name, None)
    model = values.get("model") or {}
    if isinstance(model.get("merges"), list):  # pairs, or texts as older versions wrote them
        model["merges"] = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    for place, name in ((model, "vocab"), (model, "merges"), (values, "added_tokens")):
        if name in place:
            place[name] = _sha256(place[name])
    file = "tokenizer.json" if (folder / "tokenizer.json").is_file() else "the tokenizer's files"
    return _record(file, values, "tokenizers")


def _special(tokenizer: Any) -> dict[str, Any]:
    """What decides where texts begin and end, and how answers read."""
    names = ("bos_token", "eos_token", "unk_token", "clean_up_tokenization_spaces")
    return {name: getattr(tokenizer, name, None) for name in names}


def _record(file: str, values: Mapping[str, Any], *libraries: str) -> str:
    made_by = ", ".join(f"{name} {version(name)}" for name in ("transformers", *libraries))
    return canonical_json({**_shortened(_kept(values)), "_file": file, "_made_by": made_by})


class _NoSettingError(Exception):
    """A value that is no setting: a loaded part, a function."""


def _kept(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values under plain names, without those that say nothing; None counts as absent."""
    found = {}
    for key, value in values.items():
        name = str(key)
        if value is None or name in _SAYS_NOTHING or name.startswith("_"):
            continue
        try:
            found[name] = _plain(value)
        except _NoSettingError:
            continue
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return _plain(value.value)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):  # half of a surrogate pair cannot be stored
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, float):
        return value if abs(value) < float("inf") else str(value)
    if isinstance(value, Mapping):
        return _kept(value)
    if is_dataclass(value) and not isinstance(value, type):
        return _kept(asdict(value))
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(v) for v in value), key=str)
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if callable(getattr(value, "tolist", None)):
        return _plain(value.tolist())
    if type(value).__name__ == "dtype":
        return str(value).removeprefix("torch.")
    raise _NoSettingError


def _shortened(values: Mapping[str, Any]) -> dict[str, Any]:
    """Long values by their SHA-256, such as templates of many pages."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and len(value) <= _MOST_ENTRIES:
            found[key] = _shortened(value)
        else:
            text = value if isinstance(value, str) else canonical_json(value)
            found[key] = value if len(text) <= _LONGEST_TEXT else _sha256(value)
    return found


def _sha256(value: Any) -> str:
    return f"SHA-256 {sha256_text(canonical_json(value))}"
