"""The command line: ``signbridge COMMAND``, ``extract.py`` and ``train_probes.py``.

The parser is Lightning's own, jsonargparse, made from the signatures in
:mod:`signbridge.commands`.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import sys
from collections.abc import Sequence

from jsonargparse import auto_cli

from signbridge import __version__
from signbridge.commands import COMMANDS
from signbridge.config import arguments_with_sections
from signbridge.errors import Interrupted, SignBridgeError


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
    if command is None and given in (["--version"], ["-V"]):
        print(f"signbridge {__version__}")
        return 0
    # Figures go to files alone; a notebook's setting need not even be installed here.
    os.environ["MPLBACKEND"] = "Agg"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack the characters of a table
            stream.reconfigure(errors="replace")
    try:
        if command is not None:
            status = auto_cli(COMMANDS[command], args=arguments_with_sections(command, given))
        else:
            if given and given[0] in COMMANDS:
                given[1:] = arguments_with_sections(given[0], given[1:])
            if given and given[0] == "merge":
                given[1:] = _merge_arguments(given[1:])
            status = auto_cli(COMMANDS, args=given, prog="signbridge")
    except Interrupted as error:
        if int(os.environ.get("LOCAL_RANK", "0")) == 0:
            print(error, file=sys.stderr)
        return error.exit_status
    except SignBridgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return status if isinstance(status, int) else 0


def _merge_arguments(arguments: list[str]) -> list[str]:
    """Turn ``A B -o C`` into what the parser takes: one list, then the output."""
    stores = list(itertools.takewhile(lambda word: not word.startswith("-"), arguments))
    rest = ["--output" if word == "-o" else word for word in arguments[len(stores) :]]
    listed = stores if len(stores) == 1 and stores[0].startswith("[") else [json.dumps(stores)]
    return [*(listed if stores else []), *rest]
