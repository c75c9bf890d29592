"""A model's settings in provenance: JSON texts, compared setting by setting.

A record is the JSON text of an object; ``_file`` in it names the file that its settings come from,
``_made_by`` the versions of the libraries that read them. Two records of the same versions are
compared as they are. Of two of different versions only the settings that both know are: a newer
library has new settings, which the older one did not need.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

SETTINGS = (
    "model_config",
    "image_processor",
    "processor",
    "chat_template",
    "tokenizer",
    "tokenizer_config",
    "generation_config",
)
"""The provenance keys that hold such records."""

Values = Mapping[str, Any]


def knows_settings(provenance: Values) -> bool:
    """Whether a store's provenance holds the model's settings; version 0.1 did not record them."""
    return SETTINGS[0] in provenance


def comparable(provenances: Sequence[Values]) -> list[dict[str, Any]]:
    """Provenances with what can be compared of their settings, one entry a setting.

    Args:
        provenances: of stores or runs.

    Returns:
        Each with its records replaced by entries such as ``image_mean in processor_config.json``.
        What one of them does not record is left out of all.
    """
    found = [{k: v for k, v in one.items() if k not in SETTINGS} for one in provenances]
    for key in SETTINGS:
        if not provenances or not all(key in one for one in provenances):
            continue
        records = [_parsed(one[key]) for one in provenances]
        if not all("_file" in record for record in records):  # none that we know: as it stands
            records = [{"content": one[key]} for one in provenances]
        file = records[-1].get("_file", key)
        flat = [dict(_flat(record)) for record in records]
        if len({str(record.get("_made_by")) for record in records}) > 1:
            common = set.intersection(*(set(one) for one in flat))
            flat = [{k: v for k, v in one.items() if k in common} for one in flat]
        for values, settings in zip(found, flat, strict=True):
            values.update({f"{name} in {file}": value for name, value in settings.items()})
    return found


def summary_of_settings(record: Any) -> str:
    """One line on a record: how many settings, of which file, read by what."""
    parsed = _parsed(record)
    count = sum(1 for _ in _flat(parsed))
    return f"{count:,} settings of {parsed.get('_file')}, read by {parsed.get('_made_by')}"


def _parsed(record: Any) -> dict[str, Any]:
    try:
        parsed = json.loads(record)
    except (TypeError, ValueError, RecursionError):
        parsed = None
    return parsed if isinstance(parsed, dict) else {}


def _flat(values: Values, place: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if key.startswith("_"):
            continue
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{place}{key}.")
        else:
            yield f"{place}{key}", value
