"""Configuration files with one section a command.

A protocol is one file: what to extract and how to probe it. Each command takes its own section,
``run`` takes both.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from signbridge.errors import SignBridgeError

SECTIONS = ("extract", "train_probes")


def arguments_with_sections(command: str, arguments: Sequence[str]) -> list[str]:
    """Replace ``--config FILE`` of a file with sections by the command's own settings.

    A file without sections, or one that cannot be read, is left to the parser, which reads it or
    says what is wrong with it.

    Args:
        command: the command that the arguments are for.
        arguments: the command's arguments.

    Raises:
        SignBridgeError: if the sections disagree about a setting and the command needs both.
    """
    result: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        if name != "--config" or not (equals or rest):
            result.append(argument)
            continue
        file = value if equals else rest.pop(0)
        settings = _sections(file, command)
        result += ["--config", file if settings is None else json.dumps(settings)]
    return result


def _sections(file: str, command: str) -> dict[str, Any] | None:
    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    if not isinstance(content, dict) or not content or not set(content) <= set(SECTIONS):
        return None
    parts = [content.get(name) or {} for name in (SECTIONS if command == "run" else (command,))]
    merged: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            if merged.setdefault(key, value) != value:
                raise SignBridgeError(
                    f"{file} sets {key} to {merged[key]!r} for extract and to {value!r} for "
                    "train_probes, which one 'run' cannot do: run the two commands."
                )
    return merged
