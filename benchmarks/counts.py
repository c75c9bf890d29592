"""Numbers that a benchmark takes on its command line: one sentence for those that it cannot use."""

from __future__ import annotations

import argparse
import math


def count(text: str) -> int:
    """A whole number of 1 or more: a type for argparse."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return number


def above_zero(text: str) -> float:
    """A finite number above 0: a type for argparse."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return number
