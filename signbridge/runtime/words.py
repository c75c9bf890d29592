"""Numbers and lists as people write them: counts with their noun, sizes, durations, names."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def composed(name: str) -> str:
    """Return a name in Unicode's composed form (NFC), in which equal names are equal texts."""
    return unicodedata.normalize("NFC", name)


def listed(names: Sequence[str], conjunction: str = "and") -> str:
    """Return names as a sentence lists them: ``a``, ``a and b``, ``a, b and c``.

    Args:
        names: any number.
        conjunction: what stands before the last.
    """
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} {conjunction} {names[-1]}"


def some(names: Sequence[str], most: int = 3) -> str:
    """Return the first of many names and how many more there are: ``a, b, c and 23 more``."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: ``1 image``, ``1,204 images``.

    Args:
        number: how many.
        noun: of what, one of them.
        plural: the noun's plural, where it does not just take an s.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def size(n_bytes: float) -> str:
    """Return a number of bytes in a unit that suits it: ``870 bytes``, ``52 kB``, ``1.3 GB``."""
    if n_bytes < 1000:
        return counted(round(n_bytes), "byte")
    units = ("kB", "MB", "GB", "TB")
    power = next((k for k in range(1, 4) if n_bytes < 999.5 * 1000**k), 4)
    value = n_bytes / 1000**power
    return f"{value:.1f} {units[power - 1]}" if value < 9.95 else f"{value:,.0f} {units[power - 1]}"


def duration(seconds: float) -> str:
    """Return a time in a unit that suits it: ``0.4 s``, ``45 s``, ``12 min``, ``3.5 h``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 5970:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"
