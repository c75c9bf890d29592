"""Prose that names a file, a module, a function or an option names one that is there."""

from __future__ import annotations

import builtins
import contextlib
import importlib
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from signbridge.cli.commands import COMMANDS
from signbridge.cli.main import main

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "signbridge"
CODE = sorted(
    path
    for folder in ("signbridge", "benchmarks", "training", "tests")
    for path in (ROOT / folder).rglob("*.py")
)
# The changelog tells what was; it may name what is there no longer.
TEXTS = sorted(
    path
    for pattern in (
        "*.md",
        "docs/*.md",
        "[a-z]*/README.md",
        "configs/*.yaml",
        "signbridge/**/templates/*.html",
    )
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md" and path.is_file()
)

FOLDERS = "benchmarks|docs|tests|signbridge|training|configs"
PATH = re.compile(rf"(?<![\w./<-])(?:{FOLDERS})/[\w./-]*[\w/]")
ROLE = re.compile(r":(?:mod|func|class|meth|attr|data|exc):`~?([\w.]+)`")
DOTTED = re.compile(r"`((?:signbridge|benchmarks|training)(?:\.\w+)+)(?:\(\))?`")
WITHIN = re.compile(r"`((?:\w+/)+\w+\.(?:py|md))`")
OPTION = re.compile(r"(?<![\w-])--([A-Za-z]\w*(?:-\w+)*)")
ARGUMENT = re.compile(r"add_argument\(\s*\"--([\w-]+)\"")

# Options of pip, pytest, ruff, torchrun and sbatch that the documentation shows.
FOREIGN = frozenset(
    {"check", "cpus-per-task", "gpus-per-node", "nnodes", "node_rank", "nodes", "nproc_per_node"}
    | {"ntasks-per-node", "rdzv_backend", "rdzv_endpoint", "rdzv_id", "requeue", "signal", "time"}
)


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers and texts: a page's lines, or the docstrings and comments of code."""
    if path.suffix != ".py":
        yield from enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        return
    with path.open("rb") as file:
        before = tokenize.NEWLINE
        for token in tokenize.tokenize(file.readline):
            is_docstring = token.type == tokenize.STRING and before in (
                tokenize.NEWLINE,
                tokenize.INDENT,
                tokenize.ENCODING,
            )
            if token.type == tokenize.COMMENT or is_docstring:
                yield from enumerate(token.string.splitlines(), start=token.start[0])
            if token.type not in (tokenize.NL, tokenize.COMMENT):
                before = token.type


def found(pattern: re.Pattern[str], paths: list[Path]) -> list[tuple[Path, str, str]]:
    """File, place and text of each match in prose."""
    return [
        (path, f"{path.relative_to(ROOT)}:{number}", match[1] if match.groups() else match[0])
        for path in paths
        for number, line in prose(path)
        for match in pattern.finditer(line)
    ]


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def resolves(name: str, path: Path) -> bool:
    """Whether a dotted name is a module or what one holds, seen from a file."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        with contextlib.suppress(ImportError):
            held: object = importlib.import_module(".".join(parts[:cut]))
            return has(held, parts[cut:])
    if not path.is_relative_to(PACKAGE):  # a script: what it defines or imports stands in it
        code = path.read_text(encoding="utf-8") if path.suffix == ".py" else ""
        return (
            re.search(rf"(?:def|class|import|,) {parts[0]}\b|^{parts[0]} =", code, re.M) is not None
        )
    here = importlib.import_module(module_of(path))
    classes = [one for one in vars(here).values() if isinstance(one, type)]
    return any(has(place, parts) for place in (here, builtins, *classes))


def has(held: object, names: list[str]) -> bool:
    """Whether names can be followed from an object; a dataclass names its fields."""
    for name in names:
        fields = getattr(held, "__annotations__", {})
        if not hasattr(held, name):
            return name in fields
        held = getattr(held, name)
    return True


def test_files_are_there() -> None:
    dead = [
        f"{place}: {name}"
        for _, place, name in found(PATH, [*CODE, *TEXTS])
        if not any((ROOT / f"{name}{end}").exists() for end in ("", ".py"))
    ]
    assert dead == []


def test_files_named_from_within_are_there() -> None:
    """Such as controls/permutation.py in backticks, seen from the package or from beside it."""
    dead = [
        f"{place}: {name}"
        for path, place, name in found(WITHIN, [*CODE, *TEXTS])
        if not any((base / name).exists() for base in (ROOT, PACKAGE, path.parent))
    ]
    assert dead == []


def test_names_are_there() -> None:
    dead = [
        f"{place}: {name}"
        for pattern in (ROLE, DOTTED)
        for path, place, name in found(pattern, [*CODE, *TEXTS])
        if not resolves(name, path)
    ]
    assert dead == []


@pytest.fixture(scope="module")
def options() -> set[str]:
    """Every option that some command or script of this repository takes."""
    known = {"version"}
    for command in COMMANDS:
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
            main([command, "--help"])
        known.update(OPTION.findall(shown.getvalue()))
    for path in CODE:
        known.update(ARGUMENT.findall(path.read_text(encoding="utf-8")))
    return known


def test_options_are_there(options: set[str]) -> None:
    dead = [
        f"{place}: --{name}"
        for _, place, name in found(OPTION, [*CODE, *TEXTS])
        if name not in options | FOREIGN and name != "NAME"
    ]
    assert dead == []


def test_dead_references_are_found(options: set[str], tmp_path: Path) -> None:
    """The patterns and the look-up tell what is there from what is not."""
    assert PATH.findall("see benchmarks/none.py and docs/method.md.") == [
        "benchmarks/none.py",
        "docs/method.md",
    ]
    assert resolves("signbridge.store.open_store", PACKAGE / "errors.py")
    assert not resolves("signbridge.store.none", PACKAGE / "errors.py")
    assert resolves("first_line", PACKAGE / "errors.py")
    assert "per_class" in options
    assert "no_such_option" not in options
    page = tmp_path / "page.py"
    page.write_text('"""A docstring."""\nvalue = "a text"  # a comment\n')
    assert [text for _, text in prose(page)] == ['"""A docstring."""', "# a comment"]
