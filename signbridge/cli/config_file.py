"""Configuration files with one section a command.

A protocol is one file: what to extract and how to probe it. Each command takes its own section,
``run`` takes both. A file may also hold the settings of one command without a section.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from signbridge.cli.usage import nearest, options_of, unknown_option
from signbridge.errors import SignBridgeError

SECTIONS = ("extract", "train_probes")


def arguments_with_sections(command: str, arguments: Sequence[str]) -> list[str]:
    """Replace ``--config FILE`` of a file with sections by the command's own settings.

    A file without sections is checked and left to the parser.

    Args:
        command: the command that the arguments are for.
        arguments: the command's arguments.

    Raises:
        SignBridgeError: if the file cannot be read or sets what the command does not know, or the
            sections disagree about a setting and the command needs both.
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
        result += ["--config", _settings(file, command)]
    return result


def _settings(file: str, command: str) -> str:
    """Return the file itself, or the settings of its sections as JSON."""
    content = _read(file)
    used = [name for name in SECTIONS if name in content]
    settings = _merged(file, content, command) if used else content
    known = options_of(command)
    for key in settings:
        if key not in known:
            what = unknown_option(str(key), command, dashes="")
            raise SignBridgeError(f"{file} sets {key}, which is {what}")
    return json.dumps(settings, default=str) if used or not content else file


def _read(file: str) -> dict[str, Any]:
    try:
        inline = file.lstrip().startswith("{")  # the settings themselves, not their file
        text = file if inline else Path(file).expanduser().read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise SignBridgeError(
            f"{file} is no YAML file that can be read ({where}{error.problem})."
        ) from error
    except (ValueError, yaml.YAMLError) as error:  # bytes that are no text
        raise SignBridgeError(f"{file} is no YAML file: it is not plain text.") from error
    except FileNotFoundError as error:
        raise SignBridgeError(
            f"There is no configuration {file}: give --config the path of a YAML file."
        ) from error
    except OSError as error:
        raise SignBridgeError(
            f"The configuration {file} cannot be read ({error.strerror}): give the path of a YAML "
            "file."
        ) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SignBridgeError(
            f"{file} holds no settings: write one a line, such as 'seed: 42', where wanted under "
            f"the headings {' and '.join(f'{name}:' for name in SECTIONS)}."
        )
    return content


def _merged(file: str, content: dict[str, Any], command: str) -> dict[str, Any]:
    for name, part in content.items():
        if name not in SECTIONS:
            meant = nearest(str(name), SECTIONS)
            hint = f"did you mean {meant}?" if meant else "put it into one of them."
            raise SignBridgeError(
                f"{file} has sections ({', '.join(SECTIONS)}) and {name} outside of them: {hint}"
            )
        if not isinstance(part, dict) and part is not None:
            raise SignBridgeError(
                f"The section {name} of {file} holds no settings: write one a line, indented, such "
                "as 'seed: 42'."
            )
    merged: dict[str, Any] = {}
    for name in SECTIONS if command == "run" else (command,):
        for key, value in (content.get(name) or {}).items():
            # 'run' makes a store and results, so it calls the place of the latter otherwise.
            if command == "run" and name == "train_probes":
                if key == "store":
                    continue
                key = "results" if key == "output" else key
            if merged.setdefault(key, value) != value:
                raise SignBridgeError(
                    f"{file} sets {key} to {merged[key]!r} for extract and to {value!r} for "
                    "train_probes, which one 'run' cannot do: run the two commands."
                )
    return merged
