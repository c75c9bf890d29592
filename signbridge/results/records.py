"""Dataclasses to JSON and back: what is read is checked against the annotations, once."""

from __future__ import annotations

import math
import reprlib
import types
import typing
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

import numpy as np

__all__ = ["from_json", "to_json"]

T = TypeVar("T")

_WORDS: Mapping[object, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    tuple: "a list",
}


def to_json(value: Any) -> Any:
    """Plain JSON of dataclasses, mappings, sequences and NumPy's values; NaN and infinity as null.

    Args:
        value: what to convert; what JSON does not know becomes its text.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return to_json(value.tolist())
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def from_json(
    kind: type[T], content: object, name: str = "", left_out: list[str] | None = None
) -> T:
    """A dataclass from what JSON holds.

    Keys that the dataclass does not know are left out. A key that is absent or null takes the
    field's default; a null among numbers is NaN.

    Args:
        kind: a dataclass whose fields are numbers, texts, other dataclasses, ``Any``, and tuples,
            mappings and unions of these.
        content: the value that was read.
        name: the key that holds it, for messages.
        left_out: where given, a field of ``kind`` itself that has a default takes it where the key
            does not hold what it should, and the message is added here instead of raised.

    Raises:
        ValueError: a key is missing or holds something else; the message is a clause whose subject
            is the file: ``lacks 'protocol.split'``.
    """
    if not isinstance(content, Mapping):
        raise _wrong(content, name, "an object")
    values = {}
    for field, hint in _fields(typing.cast("Any", kind)):
        key = f"{name}.{field.name}" if name else field.name
        required = field.default is MISSING and field.default_factory is MISSING
        if (given := content.get(field.name)) is not None:
            try:
                values[field.name] = _value(hint, given, key)
            except ValueError as error:
                if required or left_out is None:
                    raise
                left_out.append(str(error))
        elif required:
            raise ValueError(f"lacks {key!r}")
    return kind(**values)


@cache
def _fields(kind: Any) -> list[tuple[Field[Any], Any]]:
    hints = typing.get_type_hints(kind)
    return [(field, hints[field.name]) for field in fields(kind)]


def _value(hint: Any, value: object, name: str) -> Any:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if is_dataclass(hint):
        return from_json(typing.cast("type[Any]", hint), value, name)
    if origin in (typing.Union, types.UnionType):
        return _one_of(inner, value, name)
    if origin is tuple:
        if not isinstance(value, list) or (inner[-1] is not ... and len(value) != len(inner)):
            raise _wrong(value, name, "a list" if inner[-1] is ... else f"a list of {len(inner)}")
        return tuple(_value(inner[0], item, f"{name}[{i}]") for i, item in enumerate(value))
    if origin is not None:  # a mapping; JSON keeps its keys as text
        if not isinstance(value, Mapping):
            raise _wrong(value, name, "an object")
        number = inner[0] is int
        if number and not all(str(key).isdecimal() for key in value):
            raise _wrong(value, name, "an object whose keys are whole numbers")
        return {
            (int(key) if number else key): _value(inner[1], item, f"{name}.{key}")
            for key, item in value.items()
        }
    if hint is float:
        if value is None:
            return math.nan
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            with suppress(OverflowError):
                as_float = float(value)
                if not math.isinf(as_float):
                    return as_float
    elif isinstance(value, hint) and isinstance(value, bool) == (hint is bool):
        return value
    raise _wrong(value, name, _WORDS[hint])


def _one_of(hints: tuple[Any, ...], value: object, name: str) -> Any:
    if value is None and type(None) in hints:
        return None
    *others, last = (hint for hint in hints if hint is not type(None))
    for hint in others:
        try:
            return _value(hint, value, name)
        except ValueError:
            continue
    return _value(last, value, name)


def _wrong(value: object, name: str, expected: str) -> ValueError:
    return ValueError(f"gives {reprlib.repr(value)} as {name}, not {expected}")
