"""Fonts for names in scripts that the default font lacks."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache

from signbridge.runtime.terminal import visible
from signbridge.runtime.words import some

__all__ = ["families", "find_for", "missing_characters", "missing_note"]

_DEFAULT = "DejaVu Sans"
_FIRST = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Hiragino Sans",
    "Yu Gothic",
    "Microsoft YaHei",
    "Noto Sans Devanagari",
    "Noto Sans Arabic",
    "Arial Unicode MS",
)
# They have a box for every character, or other signs in the places of letters.
_NEVER = re.compile(r"last ?resort|nonunicode|^cm[a-z]+\d+$", re.IGNORECASE)
_GLYPH = re.compile(r"Glyph (\d+) .*missing from")
_found: list[str] = []


def families() -> list[str]:
    """The default font, and those that were found for characters it lacks."""
    return [_DEFAULT, *_found]


def find_for(characters: Iterable[str]) -> bool:
    """Look among the installed fonts for characters that :func:`families` lack.

    Returns:
        Whether a font was found that was not among them.
    """
    before = len(_found)
    for character in characters:
        name = _family_with(character)
        if name is not None and name not in families():
            _found.append(name)
    return len(_found) > before


@lru_cache(maxsize=4096)
def _family_with(character: str) -> str | None:
    return next((name for name, held in _charmaps().items() if ord(character) in held), None)


@lru_cache(maxsize=1)
def _charmaps() -> dict[str, frozenset[int]]:
    """The characters of every installed family that can be drawn, preferred ones first."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    entries = [f for f in font_manager.fontManager.ttflist if not _NEVER.search(f.name)]
    rank = {name: place for place, name in enumerate(_FIRST)}
    entries.sort(key=lambda f: (rank.get(f.name, len(rank)), f.name, f.style != "normal", f.fname))
    found: dict[str, frozenset[int]] = {}
    for entry in entries:
        if entry.name in found:
            continue
        try:
            font = FT2Font(entry.fname)
            # Bitmaps of one size, as of coloured emoji, cannot be drawn.
            if font.scalable:
                found[entry.name] = frozenset(font.get_charmap())
        except (OSError, RuntimeError):
            continue
    return found


@contextmanager
def missing_characters() -> Iterator[set[str]]:
    """Gather the characters that no font had while something is drawn; they show as boxes."""
    missing: set[str] = set()
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", message=".*[Gg]lyph.*missing")
        yield missing
    for one in caught:
        if match := _GLYPH.match(str(one.message)):
            missing.add(chr(int(match[1])))
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def missing_note(characters: Iterable[str], names: Iterable[str]) -> str:
    """The sentence on characters that no installed font has; empty where there are none.

    Args:
        characters: those that figures show as boxes.
        names: where they may come from, such as names of classes.
    """
    missing = sorted(set(characters))
    if not missing:
        return ""
    whose = [visible(name) for name in dict.fromkeys(names) if set(name) & set(missing)]
    of = f" of {some(whose, 5)}" if whose else ""
    return (
        f"No installed font has the characters {some(missing, 10)}{of}, which figures show as "
        "boxes; page and CSV have them. Install a font that has them, such as Noto Sans CJK or "
        "Noto Emoji, and run signbridge report."
    )
