"""The command line: ``signbridge COMMAND``, ``extract.py`` and ``train_probes.py``.

The parser is Lightning's own, jsonargparse, made from the signatures in
:mod:`signbridge.cli.commands`.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, auto_cli

from signbridge import __version__
from signbridge.cli.commands import COMMANDS
from signbridge.cli.config_file import ConfigFile
from signbridge.cli.usage import explain, takes_names
from signbridge.errors import Interrupted, SignBridgeError, first_line, refuse_empty
from signbridge.runtime.files import error_number, refusal
from signbridge.runtime.processes import is_first_process
from signbridge.runtime.stopping import advice, stoppable
from signbridge.runtime.terminal import plain_notices, say


class Parser(ArgumentParser):
    """A parser that raises :class:`SignBridgeError` instead of printing its usage and exiting."""

    subcommand: str | None = None
    """The command whose arguments are read; None while the command is looked for."""
    where = ""
    """Where the arguments stand that are read now, if not on the command line."""

    def __init__(self, *args: Any, command: str | None = None, **kwargs: Any) -> None:
        # An abbreviation that is clear today is not when the next option comes.
        super().__init__(*args, allow_abbrev=False, **kwargs)
        self.subcommand = command

    def add_argument(self, *args: Any, **kwargs: Any) -> Any:
        """Add an option; a configuration is read in our way."""
        if args == ("--config",):
            kwargs["action"] = ConfigFile
        return super().add_argument(*args, **kwargs)

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse texts that are empty, whatever the option: a path of no name is a slip."""
        parsed = super().parse_args(*args, **kwargs)
        refuse_empty({key.rpartition(".")[2]: one for key, one in vars(parsed.as_flat()).items()})
        return parsed

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what is wrong in one sentence."""
        command = self.subcommand or next((word for word in self.args if word in COMMANDS), None)
        raise SignBridgeError(explain(message, command, self.prog, self.where)) from ex


def main(arguments: Sequence[str] | None = None, command: str | None = None) -> int:
    """Run one command and return the exit status.

    Args:
        arguments: the command line without the program's name; ``sys.argv`` by default.
        command: run this command, as the top-level scripts do, instead of the first argument's.

    Returns:
        0, or 1 where a check found something, or 2 for an error that the user can act on, or
        128 plus the signal that stopped the run.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given in (["--version"], ["-V"]):
        print(f"signbridge {__version__}")
        return 0
    # Figures go to files alone; a notebook's setting need not even be installed here.
    os.environ["MPLBACKEND"] = "Agg"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack the characters of a table
            stream.reconfigure(errors="replace")
    named = command or (given[0] if given and given[0] in COMMANDS else None)
    try:
        _check_current_folder()
        with stoppable(advice(named)), plain_notices():
            status = _run(given, command, named)
    except Interrupted as error:
        if is_first_process():
            say(error, sys.stderr)
        return error.exit_status
    except SignBridgeError as error:
        say(f"error: {error}", sys.stderr)
        return error.exit_status
    except BrokenPipeError:  # whoever read standard output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (OSError, RuntimeError) as error:
        # Not what is wrong in us, but what the system refused, told by it or by a library.
        if error_number(error) is None:
            raise
        say(f"error: {refusal(error)}.", sys.stderr)
        return SignBridgeError.exit_status
    except MemoryError as error:
        say(f"error: The memory does not suffice ({first_line(error)}).", sys.stderr)
        return SignBridgeError.exit_status
    return status if isinstance(status, int) else 0


def _check_current_folder() -> None:
    try:
        Path.cwd()
    except FileNotFoundError:
        raise SignBridgeError(
            "The current folder is there no longer: change into another and run the command again."
        ) from None


def _run(given: list[str], command: str | None, named: str | None) -> object:
    """Parse and run; what the command returns."""
    if command is not None:
        given = _names_as_written(given, command)
        return auto_cli(COMMANDS[command], args=given, parser_class=Parser, command=command)
    if named in ("merge", "compare"):
        given = [named, *_listed_arguments(given[1:])]
    else:  # a configuration may stand before the command
        word = next((word for word in given if word in COMMANDS), None)
        given = given if word is None else _names_as_written(given, word)
    return auto_cli(COMMANDS, args=given, prog="signbridge", parser_class=Parser)


def _names_as_written(arguments: list[str], command: str) -> list[str]:
    """Quote lists of names: to YAML ``[yes,no]`` are truth values, ``[0,1]`` numbers."""
    written: list[str] = []
    for word in arguments:
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        name = option if equals else written[-1] if written else ""
        if value.lstrip().startswith("[") and takes_names(name.removeprefix("--"), command):
            with suppress(yaml.YAMLError):  # the parser says what is wrong with it
                value = json.dumps(yaml.load(value, yaml.BaseLoader))  # of texts alone
            word = f"{option}{equals}{value}"
        written.append(word)
    return written


def _listed_arguments(arguments: list[str]) -> list[str]:
    """Turn ``A B -o C``, in any order, into what the parser takes: one list, then the options."""
    stores, options = [], []
    rest = iter(arguments)
    for word in rest:
        if not word.startswith("-"):
            stores.append(word)
            continue
        options.append("--output" if word == "-o" else word)
        if word not in ("-h", "--help") and "=" not in word:
            options += itertools.islice(rest, 1)
    listed = stores if len(stores) == 1 and stores[0].startswith("[") else [json.dumps(stores)]
    return [*(listed if stores else []), *options]
