"""What the command line says of arguments that it cannot take: one sentence each.

The parser, jsonargparse, reports in several lines and in its own terms (types, keys). Here its
report is read and said again in the user's terms: which option, which value, what is allowed.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from signbridge.cli.commands import COMMANDS, CONFIGS

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
_LISTS = {
    int: "a list of whole numbers such as '[8,16]'",
    float: "a list of numbers such as '[0.01,0.1,1]'",
    str: "a list of names such as '[A,B]'",
}


def options_of(command: str) -> dict[str, Any]:
    """Return the names of a command's options and their types; None where it is the default."""
    function = CONFIGS.get(command, COMMANDS[command])
    hints = get_type_hints(function)
    return {
        name: hints[name] | None if option.default is None else hints[name]
        for name, option in inspect.signature(function).parameters.items()
    }


def takes_names(name: str, command: str) -> bool:
    """Whether an option of a command takes a list of names."""
    hint = options_of(command).get(name)
    return list[str] in (hint, *get_args(hint))


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


def explain(message: str, command: str | None, prog: str, where: str = "") -> str:
    """Say in one sentence what is wrong with the arguments and what would be right.

    Args:
        message: what the parser says.
        command: the command that the arguments are for, if one was given.
        prog: the name of the program.
        where: where the arguments stand, if not on the command line.
    """
    if command is None or message.startswith("argument subcommand:"):
        return _about_the_command(message)
    if found := re.match(
        r'Parser key "(?:\w+\.)*(\w+)":.*(?:Given|Got) value: (.*)', message, re.DOTALL
    ):
        return wrong_value(found[1], _flat(found[2]), command, where)
    if found := re.match(r"argument --(\w+).*: expected one argument", message):
        return _no_value(found[1], command)
    if found := re.match(r"Subcommand '\w+' does not accept option '(.*)'", message):
        return f"{found[1]} is {unknown_option(found[1], command)}"
    if found := re.match(r"unrecognized arguments: (.*)", message, re.DOTALL):
        return _unknown(found[1].split(), command)
    if found := re.match(r"the following arguments are required: (?:\w+\.)?(.*)", message):
        name = found[1].upper()
        usage = "A B -o C" if command in ("merge", "compare") else name
        return f"{name} is missing: {prog} {command} {usage}."
    return _flat(message)


def _about_the_command(message: str) -> str:
    listed = ", ".join(COMMANDS)
    found = re.search(r"invalid choice: '(.*?)'|unrecognized arguments: (\S+)", message)
    if not found:
        return f"Give a command, one of {listed}: 'signbridge --help' says what each does."
    word = found[1] or found[2]
    meant = nearest(word, COMMANDS)
    hint = f"did you mean {meant}?" if meant else f"there are {listed}."
    return f"{word!r} is no command: {hint}"


def wrong_value(name: str, value: str, command: str, where: str) -> str:
    """Say that an option does not take a value, and which it takes."""
    hint = options_of(command).get(name, str)
    shown = value if value[:1] in ("[", "{") else "null" if value == "None" else repr(value)
    meant = nearest(value, _literals(hint))
    suggestion = f"; did you mean {meant!r}?" if meant else "."
    return f"--{name} is {shown}{where}: give {allowed(hint)}{suggestion}"


def unknown_option(word: str, command: str) -> str:
    """Say that a command has no such option, and what may have been meant: the end of a sentence.

    Args:
        word: the option as it was written, with its dashes where it has some.
        command: the command.
    """
    name = word.lstrip("-").replace("-", "_")
    if meant := nearest(name, options_of(command)):
        return (
            f"no option of {command}: did you mean {'--' if word.startswith('-') else ''}{meant}?"
        )
    others = [other for other in COMMANDS if name in options_of(other)]
    if others:
        return f"no option of {command} but of {' and '.join(others)}."
    return f"no option of {command}: 'signbridge {command} --help' lists them."


def _literals(hint: Any) -> list[str]:
    if get_origin(hint) is Literal:
        return [value for value in get_args(hint) if isinstance(value, str)]
    return [value for part in get_args(hint) for value in _literals(part)]


def _no_value(name: str, command: str) -> str:
    if name == "config":
        return "--config needs a value: the path of a YAML file."
    hint = options_of(command).get(name, str)
    return f"--{name} needs a value{'' if hint in (str, str | None) else f': {allowed(hint)}'}."


def _unknown(words: list[str], command: str) -> str:
    option = next((word for word in words if word.startswith("-")), None)
    if option is None:
        return (
            f"{words[0]!r} is more than {command} takes: options are written --NAME VALUE, and "
            f"'signbridge {command} --help' lists them."
        )
    option = option.partition("=")[0]
    return f"{option} is {unknown_option(option, command)}"


def _flat(text: str) -> str:
    return " ".join(text.split())
