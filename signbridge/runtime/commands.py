"""Options of a command as a line for a shell."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any


def command_line(name: str, options: Mapping[str, Any]) -> str:
    """A command with its options, as a shell takes it.

    >>> command_line("extract", {"layers": [8, 16], "keep_shards": True, "images": "my images"})
    "signbridge extract --layers '[8,16]' --keep_shards true --images 'my images'"

    Args:
        name: the command.
        options: values by option; those that are None are left out.
    """
    words = ["signbridge", name]
    for option, value in options.items():
        if value is None:
            continue
        text = str(value)
        if isinstance(value, (list, tuple)):
            text = json.dumps(list(value), ensure_ascii=False, separators=(",", ":"))
        elif isinstance(value, bool):
            text = text.lower()
        words += [f"--{option}", shlex.quote(text)]
    return " ".join(words)
