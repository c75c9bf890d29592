"""What libraries warn of, as one plain line each on a command's standard error."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

# They concern who writes code, not who runs it.
_FOR_DEVELOPERS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)


@contextmanager
def plain_notices() -> Iterator[None]:
    """Show a Python warning as ``warning: SENTENCE``, each once, and matplotlib's chatter not.

    Matplotlib logs at its first import that it has built a font cache, or that the home folder
    cannot be written; neither changes a figure.
    """
    said: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = " ".join(str(message).split())
        if issubclass(category, _FOR_DEVELOPERS) or text in said:
            return
        said.add(text)
        print(f"warning: {text}", file=file or sys.stderr)

    matplotlib = logging.getLogger("matplotlib")
    level = matplotlib.level
    matplotlib.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    finally:
        matplotlib.setLevel(level)
