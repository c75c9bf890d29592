"""Provenance: how a store's vectors came about, as readable attributes, and the guard over them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from signbridge.errors import StoreError
from signbridge.store.schema import RESERVED_ATTRIBUTES

Provenance = dict[str, Any]
_MAX_ATTRIBUTE_BYTES = 60_000  # an HDF5 attribute holds less than 64 KiB


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and plain characters: equal values, equal text."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def sha256_text(text: str) -> str:
    """SHA-256 of a text's UTF-8 bytes, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


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


def differing_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Keys whose values differ, sorted; an absent key differs from a present one."""
    return [
        key
        for key in sorted({*old, *new})
        if key not in old or key not in new or canonical_json(old[key]) != canonical_json(new[key])
    ]


def shown(values: Mapping[str, Any], key: str) -> str:
    """A value as a message shows it, shortened."""
    if key not in values:
        return "nothing"
    text = values[key] if isinstance(values[key], str) else json.dumps(values[key])
    return repr(text if len(text) <= 80 else text[:77] + "...")


def refuse_difference(old: Mapping[str, Any], new: Mapping[str, Any], where: str) -> None:
    """Refuse to continue or join what was made differently.

    Raises:
        StoreError: Names the first differing key with both values, and the other keys.
    """
    keys = differing_keys(old, new)
    if not keys:
        return
    others = f" (also {', '.join(keys[1:])})" if len(keys) > 1 else ""
    raise StoreError(
        f"{where} was made with {keys[0]} = {shown(old, keys[0])}, but now {keys[0]} is "
        f"{shown(new, keys[0])}{others}: use the same settings, another output file, or "
        "--overwrite true."
    )
