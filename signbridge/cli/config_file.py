"""Configuration files with one section a command.

A protocol is one file: what to extract and how to probe it. Each command takes its own section,
``run`` takes both. A file may also hold the settings of one command without a section.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from signbridge.cli.usage import nearest, options_of, unknown_option
from signbridge.errors import SignBridgeError, first_line

SECTIONS = ("extract", "train_probes")
_LARGEST = 1_000_000
_DEEPEST = 8


def arguments_with_sections(command: str | None, arguments: Sequence[str]) -> list[str]:
    """Replace ``--config FILE`` of a file with sections by the command's own settings.

    A file without sections is checked and left to the parser.

    Args:
        command: the command that the arguments are for; without one, files are looked at only.
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
        if command is None:
            read_settings(file)
        result += ["--config", file if command is None else _settings(file, command)]
    return result


def _settings(file: str, command: str) -> str:
    """Return the file itself, or the settings of its sections as JSON."""
    content = read_settings(file)
    used = [name for name in SECTIONS if name in content]
    settings = _merged(file, content, command) if used else content
    known = options_of(command)
    for key in settings:
        if key not in known:
            what = unknown_option(str(key), command, dashes="")
            raise SignBridgeError(f"{file} sets {key}, which is {what}")
    return json.dumps(settings, default=str) if used or not content else file


class _Loader(yaml.SafeLoader):
    """YAML as far as settings need it: no aliases, no deep nesting, no key twice."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node, unless it repeats another or lies too deep."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            raise _refused("an alias stands for another part: write that out", mark)
        self.depth += 1
        if self.depth > _DEEPEST:
            raise _refused("it nests deeper than settings do", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Construct a mapping whose keys are all different."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key.value, str):
                continue
            if key.value in seen:
                raise _refused(f"{key.value} is set twice: keep one", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _refused(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _text(file: str) -> str:
    path = Path(file).expanduser()
    found = path.stat()
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
        raise SignBridgeError(
            f"The configuration {file} is a pipe or a device: give the path of a YAML file."
        )
    if found.st_size > _LARGEST:
        raise SignBridgeError(
            f"The configuration {file} has {found.st_size:,} bytes, too many for settings: give "
            "the path of a YAML file."
        )
    return path.read_text(encoding="utf-8")


def read_settings(file: str) -> dict[str, Any]:
    """Read a configuration.

    Args:
        file: its path, or the settings themselves in braces.

    Raises:
        SignBridgeError: it cannot be read, or is more than a few settings.
    """
    try:
        inline = file.lstrip().startswith("{")  # the settings themselves, not their file
        content = yaml.load(file if inline else _text(file), _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise SignBridgeError(
            f"{file} is no YAML file that can be read ({where}{error.problem})."
        ) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:  # bytes that are no text
        raise SignBridgeError(f"{file} is no YAML file: it is not plain text.") from error
    except ValueError as error:  # such as a date that there is not
        raise SignBridgeError(
            f"{file!r} cannot be read as YAML ({first_line(error)}): correct it."
        ) from error
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
