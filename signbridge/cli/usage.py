"""What the command line says of arguments that it cannot take: one sentence each.

The parser, jsonargparse, reports in several lines and in its own terms (types, keys). Here its
report is read and said again in the user's terms: which option, which value, what is allowed.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser

from signbridge.cli.commands import COMMANDS, CONFIGS
from signbridge.errors import SignBridgeError

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
_LISTS = {
    int: "a list of whole numbers such as '[8,16]'",
    float: "a list of numbers such as '[0.01,0.1,1]'",
    str: "a list of names such as '[A,B]'",
}


class UsageError(SignBridgeError):
    """Arguments that the parser cannot take, in the parser's words."""


class Parser(ArgumentParser):
    """A parser that raises :class:`UsageError` instead of printing its usage and exiting."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # An abbreviation that is clear today is not when the next option comes.
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse texts that are empty, whatever the option: a path of no name is a slip."""
        parsed = super().parse_args(*args, **kwargs)
        for key, value in vars(parsed.as_flat()).items():
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str) and not text.strip():
                    raise SignBridgeError(
                        f"--{key.rpartition('.')[2]} is empty: give it a value, or leave it out."
                    )
        return parsed

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what the parser has to say."""
        raise UsageError(message) from ex


def options_of(command: str) -> dict[str, Any]:
    """Return the names of a command's options and their types."""
    function = CONFIGS.get(command, COMMANDS[command])
    hints = get_type_hints(function)
    return {name: hints[name] for name in inspect.signature(function).parameters}


def allowed(hint: Any) -> str:
    """Say which values a type takes: ``'all' or a list of whole numbers such as '[8,16]'``."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(allowed(one) for one in get_args(hint) if one is not type(None))
    if origin is Literal:
        values = [repr(value) for value in get_args(hint)]
        return values[0] if len(values) == 1 else f"one of {', '.join(values)}"
    if origin is list:
        return _LISTS[get_args(hint)[0]]
    return _WORDS.get(hint, "a value")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that was probably meant, or an empty string."""
    found = get_close_matches(word.replace("-", "_").lower(), list(known), n=1, cutoff=0.6)
    return found[0] if found else ""


def explain(error: UsageError, command: str | None, prog: str, given: Sequence[str]) -> str:
    """Say in one sentence what is wrong with the arguments and what would be right.

    Args:
        error: what the parser said.
        command: the command that the arguments are for, if one was given.
        prog: how the user called it: ``signbridge extract`` or ``extract.py``.
        given: the arguments.
    """
    message = str(error)
    if command is None:
        return _about_the_command(message)
    options = options_of(command)

    def wrong_value(found: tuple[str, ...], options: dict[str, Any]) -> str:
        return _wrong_value(found, options, given)

    about = (
        (r'Parser key "([\w.]+)":.*Given value: (.*)', wrong_value),
        (r'Parser key "([\w.]+)":.*Got value: (.*)', wrong_value),
        (r"argument --([\w+]+): expected one argument", _no_value),
        (
            r"Subcommand '\w+' does not accept option '(.*)'",
            lambda found, _: _unknown((f"--{found[0]}",), command),
        ),
        (r"unrecognized arguments: (.*)", lambda found, _: _unknown(found, command)),
        (r"the following arguments are required: (.*)", lambda found, _: _lacking(found, prog)),
    )
    for pattern, say in about:
        match = re.match(pattern, message, flags=re.DOTALL)
        if match:
            return say(match.groups(), options)
    return _flat(message)


def unknown_option(name: str, command: str, dashes: str = "--") -> str:
    """Say that a command has no such option, and what may have been meant: the end of a sentence.

    Args:
        name: the option, without dashes.
        command: the command.
        dashes: what is written before an option where it stands.
    """
    meant = nearest(name, options_of(command))
    if meant:
        return f"no option of {command}: did you mean {dashes}{meant}?"
    plain = name.replace("-", "_")
    others = [other for other in COMMANDS if plain in options_of(other)]
    if others:
        return f"no option of {command} but of {' and '.join(others)}."
    return f"no option of {command}: 'signbridge {command} --help' lists them."


def _about_the_command(message: str) -> str:
    listed = ", ".join(COMMANDS)
    match = re.search(r"invalid choice: '(.*?)'|unrecognized arguments: (\S+)", message)
    if not match:
        return f"Give a command, one of {listed}: 'signbridge --help' says what each does."
    word = match[1] or match[2]
    meant = nearest(word, COMMANDS)
    hint = f"did you mean {meant}?" if meant else f"there are {listed}."
    return f"{word!r} is no command: {hint}"


def _wrong_value(found: tuple[str, ...], options: dict[str, Any], given: Sequence[str]) -> str:
    name, value = found[0].rpartition(".")[2], _flat(found[1])
    hint = options.get(name, str)
    shown = value if value[:1] in ("[", "{") else "null" if value == "None" else repr(value)
    meant = nearest(value, _literals(hint))
    suggestion = f"; did you mean {meant!r}?" if meant else "."
    on_the_line = any(word.partition("=")[0] == f"--{name}" for word in given)
    where = "" if on_the_line or "--config" not in "".join(given) else " in the configuration"
    return f"--{name} is {shown}{where}: give {allowed(hint)}{suggestion}"


def _literals(hint: Any) -> list[str]:
    if get_origin(hint) is Literal:
        return [value for value in get_args(hint) if isinstance(value, str)]
    return [value for part in get_args(hint) for value in _literals(part)]


def _no_value(found: tuple[str, ...], options: dict[str, Any]) -> str:
    (name,) = found
    hint = options.get(name, str)
    what = ": the path of a YAML file" if name == "config" else ""
    if not what and hint not in (str, str | None):
        what = f": {allowed(hint)}"
    return f"--{name} needs a value{what}."


def _unknown(found: tuple[str, ...], command: str) -> str:
    words = found[0].split()
    option = next((word for word in words if word.startswith("-")), None)
    if option is None:
        return (
            f"{words[0]!r} is more than {command} takes: options are written --NAME VALUE, and "
            f"'signbridge {command} --help' lists them."
        )
    option = option.partition("=")[0]
    return f"{option} is {unknown_option(option.lstrip('-'), command)}"


def _lacking(found: tuple[str, ...], prog: str) -> str:
    names = [name.rpartition(".")[2] for name in found[0].split(", ")]
    several = prog.endswith((" merge", " compare"))
    usage = "A B -o C" if several else " ".join(name.upper() for name in names)
    return f"{' and '.join(names).upper()} is missing: {prog} {usage}."


def _flat(text: str) -> str:
    return " ".join(text.split())
