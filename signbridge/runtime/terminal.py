"""What leaves for a terminal: text that cannot steer it, and libraries' warnings as plain lines."""

from __future__ import annotations

import logging
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.text import Text

# Controls, format characters such as bidirectional overrides, lone surrogates, line separators.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Persian and Indic words and joined emoji are spelt with these two, and they steer nothing.
_SPELLING = frozenset("\u200c\u200d")
# They concern who writes code, not who runs it.
_FOR_DEVELOPERS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)


def visible(text: str) -> str:
    r"""Return a text with every character that would steer a terminal as a visible escape.

    Class names, paths and answers come from data sets, and with an escape code in one of them a
    terminal would hide, recolour or retype what it shows.

    >>> visible("a\x1b[2Jb\nc")
    'a\\x1b[2Jb\\nc'
    """
    if text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode()
        if unicodedata.category(char) in _UNSEEN and char not in _SPELLING
        else char
        for char in text
    )


def say(text: object, file: TextIO | None = None) -> None:
    """Print a line in which every character is visible.

    Args:
        text: the line.
        file: where to print; standard output by default.
    """
    print(visible(str(text)), file=file or sys.stdout)


def as_text(text: str, style: str = "") -> Text:
    """Return a text for rich: every character visible, and brackets no markup.

    Args:
        text: the text.
        style: rich's style of the whole of it.
    """
    from rich.text import Text

    return Text(visible(text), style)


@contextmanager
def plain_notices() -> Iterator[None]:
    """Show a Python warning as ``warning: SENTENCE``, each once, and matplotlib's chatter not.

    Matplotlib logs at its first import that it has built a font cache, or that the home folder
    cannot be written; neither changes a figure.
    """
    shown: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = " ".join(str(message).split())
        if issubclass(category, _FOR_DEVELOPERS) or text in shown:
            return
        shown.add(text)
        say(f"warning: {text}", file or sys.stderr)

    matplotlib = logging.getLogger("matplotlib")
    level = matplotlib.level
    matplotlib.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    finally:
        matplotlib.setLevel(level)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' and tqdm's bars, and notices of transformers and bitsandbytes."""
    from tqdm import tqdm  # type: ignore[import-untyped]
    from transformers.utils import logging as transformers_logging

    bar: Any = tqdm
    before, made = transformers_logging.get_verbosity(), bar.__init__
    bars = transformers_logging.is_progress_bar_enabled()
    # bitsandbytes tells at every load on a CPU that an optional kernel package is missing.
    bitsandbytes_logger = logging.getLogger("bitsandbytes")
    level = bitsandbytes_logger.level
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    bitsandbytes_logger.setLevel(logging.ERROR)
    # compressed-tensors draws a bar for each step of a loading, and offers no other way.
    bar.__init__ = lambda self, *args, **more: made(self, *args, **more | {"disable": True})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(before)
        bar.__init__ = made
        bitsandbytes_logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def quiet_lightning(every_warning: bool = False) -> Iterator[None]:
    """Silence Lightning's tips and its warnings about choices that are deliberate here.

    Args:
        every_warning: silence all that Lightning itself warns of, where its user chose none of it.
    """
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    loggers.append(logging.getLogger("lightning.pytorch.utilities.rank_zero"))
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message in (
                ".*does not have many workers.*",
                ".*Total length of .* across ranks is zero.*",
                ".*GPU available but not used.*",
                ".*LeafSpec.*is deprecated.*",
            ):
                warnings.filterwarnings("ignore", message)
            if every_warning:
                warnings.filterwarnings("ignore", module=r"lightning\..*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
