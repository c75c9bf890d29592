"""Figures, the HTML report and the terminal table of a results folder.

Importing this package is light: matplotlib, UMAP and the rest are loaded by the function that needs
them. Each figure is a function in the module of its name, for example
``from signbridge.report.figures.layer_curve import layer_curve``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from signbridge.report.html import write_report as write_report
    from signbridge.report.terminal import print_table as print_table
    from signbridge.results.results import Results as Results
    from signbridge.results.results import load_results as load_results

_HOMES = {
    "Results": "signbridge.results.results",
    "load_results": "signbridge.results.results",
    "print_table": "signbridge.report.terminal",
    "write_report": "signbridge.report.html",
}

__all__ = ["Results", "load_results", "print_table", "write_report"]


def __getattr__(name: str) -> Any:
    """Import a function on first use."""
    if name in {"Results", "load_results"}:
        import_module("signbridge.report.html")  # a notebook shows results by their first figure
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'signbridge.report' has no attribute {name!r}")
