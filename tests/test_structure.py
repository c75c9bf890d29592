"""The floors of the package: imports run downwards only, and in no circle.

Every import counts, also one inside a function and one for type checking alone.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

PACKAGE = Path(__file__).parents[1] / "signbridge"

BELOW = {"errors", "version", "runtime"}
FLOORS: dict[str, set[str]] = {
    "errors": set(),
    "version": set(),
    "assets": set(),
    "runtime": {"errors", "version"},
    "store": BELOW,
    "images": BELOW,
    "model": BELOW,
    "statistics": {"errors"},
    "extraction": BELOW | {"images", "model", "store"},
    "results": BELOW | {"statistics", "store"},
    "probes": BELOW | {"statistics", "store", "results"},
    "report": BELOW | {"statistics", "store", "results"},
    "demo": BELOW | {"images", "model", "store", "statistics", "results", "probes", "report"},
}
FLOORS["cli"] = set(FLOORS)
FLOORS["__main__"] = {"cli"}
FLOORS["__init__"] = {"version", "store", "runtime"}
"""What each folder, or file beside them, may import of the package besides itself."""

HEAVY = {"torch", "transformers", "lightning", "torchmetrics", "bitsandbytes"}
LIGHT = ("store", "images", "results", "report")
"""Floors that import none of these: who reads a store or a report has no need of a model."""

# What is not yet so; an entry that is no longer needed fails.
UPWARD: set[tuple[str, str]] = set()
CIRCLES: set[frozenset[str]] = set()
NOT_LIGHT: set[tuple[str, str]] = {
    ("signbridge.store.reader", "torch")  # for who asks for tensors, and only then
}


@cache
def modules() -> dict[str, Path]:
    """The package's files by the name that imports them."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path) -> Iterator[str]:
    """Full names of what a file imports, a module's name where that is what is imported."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by a relative name"
            name = str(node.module)
            for alias in node.names:
                whole = f"{name}.{alias.name}"
                if whole in modules():
                    yield whole
                elif name == "signbridge" and alias.name == "__version__":
                    yield "signbridge.version"
                else:
                    yield name


@cache
def imports() -> dict[str, set[str]]:
    """The imports of every file of the package, among its own files."""
    return {
        name: {other for other in imported(path) if other in modules()} - {name}
        for name, path in modules().items()
    }


def floor(name: str) -> str:
    """The folder of a module, or the file beside the folders."""
    return (name.split(".")[1:] or ["__init__"])[0]


def test_imports_run_downwards() -> None:
    found = {
        (name, other)
        for name, others in imports().items()
        for other in others
        if floor(other) not in {floor(name), *FLOORS[floor(name)]}
    }
    assert found == UPWARD


def test_floors_are_in_order() -> None:
    """The table itself names no circle, and every folder."""
    assert {floor(name) for name in modules()} == set(FLOORS)
    order: list[str] = []
    while len(order) < len(FLOORS):
        free = [k for k in FLOORS if k not in order and FLOORS[k] - {k} <= set(order)]
        assert free
        order += free


def test_no_imports_in_a_circle() -> None:
    names = list(imports())
    edges = [(names.index(a), names.index(b)) for a, others in imports().items() for b in others]
    rows, columns = np.array(edges).T
    graph = csr_array((np.ones(len(edges)), (rows, columns)), shape=(len(names), len(names)))
    count, component = connected_components(graph, connection="strong")
    circles = {
        frozenset(names[i] for i in np.flatnonzero(component == k))
        for k in range(count)
        if (component == k).sum() > 1
    }
    assert circles == CIRCLES


def test_a_store_and_a_report_are_read_without_torch() -> None:
    found = {
        (name, other.split(".")[0])
        for name, path in modules().items()
        if floor(name) in LIGHT
        for other in imported(path)
        if other.split(".")[0] in HEAVY
    }
    assert found == NOT_LIGHT


@pytest.mark.parametrize(
    "code",
    [
        "from signbridge.probes import Feature",
        "import signbridge.probes.sweep as sweep",
        "from signbridge import probes",
        "def f():\n    from signbridge.probes.sweep import run_sweep",
        "if TYPE_CHECKING:\n    from signbridge.probes.sweep import run_sweep",
    ],
)
def test_every_kind_of_import_is_seen(tmp_path: Path, code: str) -> None:
    (tmp_path / "file.py").write_text(code)
    assert {floor(name) for name in imported(tmp_path / "file.py")} == {"probes"}


def test_a_command_is_understood_before_anything_heavy_is_loaded() -> None:
    """Help and usage errors come at once, and Ctrl-C while libraries load ends in one line."""
    code = "import sys, signbridge.cli.main; print(sorted(set(sys.argv[1:]) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code, *HEAVY], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
