"""Several results folders on one curve, with paired differences where the images are the same."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from signbridge.report.compare.page import write_comparison as write_comparison

__all__ = ["write_comparison"]


def __getattr__(name: str) -> Any:
    """Import the function on first use: its page needs matplotlib and jinja."""
    if name == "write_comparison":
        return import_module("signbridge.report.compare.page").write_comparison
    raise AttributeError(f"module 'signbridge.report.compare' has no attribute {name!r}")
