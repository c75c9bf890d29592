"""Configuration files with one section a command.

A protocol is one file: what to extract and how to probe it. Each command takes its own section,
``run`` takes both. A file may also hold the settings of one command without a section.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import yaml
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]

from signbridge.cli.usage import (
    nearest,
    options_of,
    takes_names,
    unknown_option,
    wrong_value,
)
from signbridge.errors import SignBridgeError, first_line
from signbridge.runtime.reading import read_text

SECTIONS = ("extract", "train_probes")
_LARGEST = 1_000_000
_DEEPEST = 8
_WHERE = " in the configuration"


class ConfigFile(ActionConfigFile):
    """``--config FILE``: the file is read here; the parser takes the command's settings of it."""

    @staticmethod
    def apply_config(parser: Any, cfg: Any, dest: str, value: str) -> None:
        """Apply a configuration.

        Raises:
            SignBridgeError: if the file cannot be read or sets what the command does not know, or
                the sections disagree about a setting and the command needs both.
        """
        settings = read_settings(value)
        if parser.subcommand is not None:
            settings = settings_of(parser.subcommand, settings, value)
        parser.where = _WHERE
        text = json.dumps(settings, default=str, ensure_ascii=False)
        # The parser reads it as YAML, whose quotes do not keep every character as it is.
        text = re.sub(r"[^ -~]", lambda one: f"\\U{ord(one[0]):08x}", text)
        ActionConfigFile.apply_config(parser, cfg, dest, text)
        parser.where = ""


def settings_of(command: str, content: dict[str, Any], file: str) -> dict[str, Any]:
    """Return what a configuration sets for a command; with sections, what these set."""
    with_sections = any(name in content for name in SECTIONS)
    settings = _of_sections(file, content, command) if with_sections else content
    known = options_of(command)
    for key, value in settings.items():
        if key not in known:
            raise SignBridgeError(
                f"{file} sets {key}, which is {unknown_option(str(key), command)}"
            )
        if value is None and type(None) not in get_args(known[key]):  # the parser would take it
            raise SignBridgeError(wrong_value(key, "None", command, _WHERE))
    return settings


def _of_sections(file: str, content: dict[str, Any], command: str) -> dict[str, Any]:
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
    if command != "run":
        return content.get(command) or {}
    settings = dict(content.get("extract") or {})
    for key, value in (content.get("train_probes") or {}).items():
        # run makes the store itself, and calls the place of the results otherwise.
        key = "results" if key == "output" else key
        if key != "store" and settings.setdefault(key, value) != value:
            raise SignBridgeError(
                f"{file} sets {key} to {settings[key]!r} for extract and to {value!r} for "
                "train_probes, which one 'run' cannot do: run the two commands."
            )
    return settings


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
        """Construct a mapping whose keys are all different; names stay as they are written."""
        seen = set()
        for key, value in node.value:
            if isinstance(value, yaml.SequenceNode) and any(
                takes_names(str(key.value), command) for command in SECTIONS
            ):
                for name in value.value:
                    if isinstance(name, yaml.ScalarNode):
                        name.tag = "tag:yaml.org,2002:str"
            if not isinstance(key.value, str):
                continue
            if key.value in seen:
                raise _refused(f"{key.value} is set twice: keep one", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _refused(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


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
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SignBridgeError(
            f"{file} holds no settings: write one a line, such as 'seed: 42', where wanted under "
            f"the headings {' and '.join(f'{name}:' for name in SECTIONS)}."
        )
    return content


def _text(file: str) -> str:
    try:
        return read_text(Path(file).expanduser(), _LARGEST, "utf-8")
    except FileNotFoundError as error:
        raise SignBridgeError(
            f"There is no configuration {file}: give --config the path of a YAML file."
        ) from error
    except OSError as error:
        raise SignBridgeError(
            f"The configuration {file} cannot be read ({error.strerror}): give the path of a YAML "
            "file."
        ) from error
