"""Provenance: how a store's vectors came about, as readable attributes, and the guard over them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from signbridge.errors import StoreError
from signbridge.runtime.files import canonical_json, sha256_text
from signbridge.runtime.words import some
from signbridge.store.schema import RESERVED_ATTRIBUTES
from signbridge.store.settings import comparable, knows_settings

Provenance = dict[str, Any]
# What a person sets, in the order in which a message names it.
_OPTIONS = (
    "model",
    "weights",
    "weights_seed",
    "image_source",
    "classes",
    "per_class",
    "seed",
    "groups",
    "quantization",
    "compute_dtype",
    "position",
    "prompt",
    "max_new_tokens",
    "forced_choice",
    "store_dtype",
    "layers",
)
# What follows from that, and says nothing to a person.
_CONSEQUENCES = frozenset(
    {
        "model_kind",
        "model_class",
        "model_revision",
        "weights_sha256",
        "config_sha256",
        "processor_class",
        "image_processor_class",
        "quantized_modules",
        "quantization_skipped",
        "image_fingerprint",
    }
)
# Hashes of content: where nothing else differs, the content has changed under the same name.
_CONTENT = {
    "image_fingerprint": ("from other images, though they too are called {}", "image_source"),
    "weights_sha256": ("with other weights, though their model too is called {}", "model"),
    "group (SHA-256)": ("with other groups of the same images", ""),
    "image_sha256 (SHA-256)": ("from other images under the same names", ""),
    "sample_id (SHA-256)": ("from images with other names", ""),
}
# Names of a model, which say nothing where its weights and settings are recorded and equal.
_NAMES = ("model", "model_kind", "model_revision", "config_sha256")
_WEIGHTS = ("weights", "weights_sha256", "weights_seed", "weights_initialiser")
# Recorded for the reader alone: what follows from it, labels and groups, is compared.
_REMARKS = ("layout", "signers", "forced_choice_left_out")
_MAX_ATTRIBUTE_BYTES = 60_000  # an HDF5 attribute holds less than 64 KiB


def plain(value: Any) -> Any:
    """Turn NumPy scalars, arrays and tuples into plain Python values."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    return value


def checked_provenance(provenance: Mapping[str, Any]) -> Provenance:
    """Return provenance as plain values, sorted by key; ``None`` counts as absent.

    Raises:
        StoreError: If a key is reserved or a value is no scalar, text or list of one kind of these.
    """
    checked: Provenance = {}
    for key in sorted(provenance):
        value = plain(provenance[key])
        if value is None:
            continue
        if not key or key in RESERVED_ATTRIBUTES or key.startswith("_"):
            raise StoreError(f"The provenance key '{key}' is reserved for the store itself.")
        if not _is_flat(value):
            raise StoreError(
                f"The provenance value of '{key}' must be a text, a finite number, a truth value "
                f"or a short list of one kind of these, not {value!r:.100}."
            )
        checked[key] = value
    return checked


def _is_flat(value: Any) -> bool:
    if isinstance(value, list):
        kinds = {type(v) for v in value}
        size = 16 * len(value)
        return (
            len(kinds) <= 1
            and kinds <= {str, int, float}
            and size < _MAX_ATTRIBUTE_BYTES
            and all(_is_flat(v) for v in value)
        )
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return False
        return "\0" not in value
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, bool):
        return True
    return isinstance(value, int) and -(2**63) <= value < 2**63


def provenance_sha256(provenance: Mapping[str, Any]) -> str:
    """The fingerprint of guarded provenance: SHA-256 of its canonical JSON."""
    return sha256_text(canonical_json(plain(provenance)))


def in_common(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Two provenances as they are compared: by content, and by name where that is all there is.

    The settings of processor, tokenizer and model are compared one by one; a store that does not
    record them is compared without them. Where weights and settings are the same, the model's name
    and folder do not count.
    """
    found = comparable([old, new])
    same_weights = all(old.get(key) == new.get(key) for key in _WEIGHTS)
    by_content = same_weights and knows_settings(old) and knows_settings(new)
    left_out = _REMARKS + (_NAMES if by_content else ())
    return [{k: v for k, v in one.items() if k not in left_out} for one in found]


def not_compared(provenances: Mapping[str, Mapping[str, Any]]) -> str:
    """Say which of several stores cannot be compared in full; empty where all can be.

    Args:
        provenances: of what is there, under the words that name it.
    """
    lacking = [name for name, one in provenances.items() if not knows_settings(one)]
    if len(lacking) in (0, len(provenances)):
        return ""
    return (
        f"{some(lacking)} {'does' if len(lacking) == 1 else 'do'} not record the settings of "
        "model, processor and tokenizer, as version 0.1.0 did not: that they are the same is not "
        "checked"
    )


def differing_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Keys whose values differ: what a person sets first, then the others, sorted.

    An absent key differs from a present one; see :func:`in_common` for what is compared.
    """
    old, new = in_common(old, new)
    keys = [
        key
        for key in sorted({*old, *new})
        if key not in old or key not in new or not _equal(old[key], new[key])
    ]
    rank = {key: number for number, key in enumerate(_OPTIONS)}
    last = len(_OPTIONS)
    return sorted(keys, key=lambda key: (rank.get(key, last), key in _CONSEQUENCES))


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    return a == b if _is_number(a) and _is_number(b) else canonical_json(a) == canonical_json(b)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_SHOWN = 80


def shown(old: Mapping[str, Any], new: Mapping[str, Any], key: str) -> tuple[str, str]:
    """Two differing values as a message shows them: shortened to where they differ."""
    before, now = _text(old, key), _text(new, key)
    start = 0
    if before is not None and now is not None and max(len(before), len(now)) > _SHOWN:
        pairs = enumerate(zip(before, now, strict=False))
        same = next((i for i, (a, b) in pairs if a != b), min(len(before), len(now)))
        start = max(0, same - _SHOWN // 2)
    return _quoted(before, start), _quoted(now, start)


def _text(values: Mapping[str, Any], key: str) -> str | None:
    if key not in values:
        return None
    value = values[key]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _quoted(text: str | None, start: int) -> str:
    if text is None:
        return "nothing"
    part = text[start : start + _SHOWN]
    before, after = "..." if start else "", "..." if start + _SHOWN < len(text) else ""
    return repr(f"{before}{part}{after}")


def refuse_difference(old: Mapping[str, Any], new: Mapping[str, Any], where: str) -> None:
    """Refuse to continue or join what was made differently.

    Raises:
        StoreError: Names the first differing key with both values, and the other keys.
    """
    keys = differing_keys(old, new)
    if not keys:
        return
    old, new = in_common(old, new)
    key = keys[0]
    others = [other for other in keys[1:] if other not in _CONSEQUENCES]
    also = f" (also {some(others, 5)})" if others else ""
    before, now = shown(old, new, key)
    what = f"made with {key} = {before}, but now {key} is {now}"
    if key in _CONTENT:
        words, name = _CONTENT[key]
        words = words.format(_quoted(_text(new, name), 0))
        what = f"made {words} ({key} = {before}, now {now})"
    same = "give" if key in _CONTENT else "use the same settings,"
    raise StoreError(
        f"{where} was {what}{also}: {same} another output file (--output), or --overwrite true."
    )


@dataclass(frozen=True)
class Grouping:
    """How the images of a store are grouped.

    Attributes:
        kind: ``near_duplicates``, ``signers``, ``none``, ``given`` (a file) or ``unknown``.
        one: one group, with its article: "a group of near-duplicates".
        many: several: "groups of near-duplicates".
        detail: how they were found, with a leading space, or empty.
    """

    kind: str
    one: str
    many: str
    detail: str = ""


def grouping(provenance: Mapping[str, Any]) -> Grouping:
    """Read the ``groups`` entry of a store's provenance.

    Args:
        provenance: a store's provenance.

    Returns:
        Words for its groups; without an entry they are plain groups.
    """
    value = str(provenance.get("groups") or "").strip()
    kind, _, threshold = value.partition(" ")
    if kind == "near_duplicates":
        found = f" (pixels correlated {threshold} or more)" if threshold else ""
        return Grouping(
            "near_duplicates", "a group of near-duplicates", "groups of near-duplicates", found
        )
    if kind == "pattern":
        signers = "(?P<signer>" in value
        words = ("signers", "a signer", "signers") if signers else ("given", "a group", "groups")
        return Grouping(*words, f" (as {threshold} finds them)")
    if "signer" in re.split(r"[/{}]", value):
        return Grouping("signers", "a signer", "signers", f" (folders {value})")
    if value == "none":
        return Grouping("none", "an image", "images")
    if value:
        return Grouping("given", "a group", "groups", f" (as given in {value})")
    return Grouping("unknown", "a group", "groups")
