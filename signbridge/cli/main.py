"""The command line: ``signbridge COMMAND``, ``extract.py`` and ``train_probes.py``.

The parser is Lightning's own, jsonargparse, made from the signatures in
:mod:`signbridge.cli.commands`.
"""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import auto_cli

from signbridge import __version__
from signbridge.cli.commands import COMMANDS
from signbridge.cli.config_file import arguments_with_sections
from signbridge.cli.usage import Parser, UsageError, explain
from signbridge.errors import Interrupted, SignBridgeError, first_line
from signbridge.runtime.processes import is_first_process
from signbridge.runtime.stopping import advice, stoppable
from signbridge.runtime.terminal import plain_notices, say


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
    except UsageError as error:
        prog = Path(sys.argv[0]).name if command else f"signbridge {named}"
        say(f"error: {explain(error, named, prog, given)}", sys.stderr)
        return error.exit_status
    except SignBridgeError as error:
        say(f"error: {error}", sys.stderr)
        return error.exit_status
    except BrokenPipeError:  # whoever read standard output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        what = error.filename or "What was to be written"
        say(f"error: {what} finds no room ({error.strerror}): make some.", sys.stderr)
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
        words = arguments_with_sections(command, given)
        return auto_cli(COMMANDS[command], args=words, parser_class=Parser)
    if named is None:
        words = arguments_with_sections(None, given)
    else:
        words = given[1:]
        if named in ("merge", "compare"):
            words = _listed_arguments(words)
        words = [named, *arguments_with_sections(named, words)]
    return auto_cli(COMMANDS, args=words, prog="signbridge", parser_class=Parser)


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
