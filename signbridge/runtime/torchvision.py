"""A torchvision that does not load is as good as none.

Nothing here uses it, but Lightning, torchmetrics and transformers import it where it is installed.
Beside another build of torch it ends in a ``RuntimeError`` that none of them expects.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from typing import Any

from signbridge.errors import first_line

_NAME = "torchvision"
_USERS = {"lightning", "torchmetrics", "transformers"}

fault: str | None = None
"""Why the torchvision that is installed is not used, once one of those has been imported."""


class _NotThere:
    """What ``importlib.metadata`` is told of a package that is to count as not installed."""

    def __getattr__(self, name: str) -> Any:
        from importlib.metadata import PackageNotFoundError

        raise PackageNotFoundError(_NAME)


class _BeforeItsUsers:
    """Finds no module: it tries torchvision before the first of those that would is imported."""

    def find_spec(self, name: str, *_: Any) -> None:
        if name in _USERS and fault is None:
            sys.meta_path.remove(self)
            if importlib.util.find_spec(_NAME) is not None:
                self._try()

    def _try(self) -> None:
        global fault
        try:
            importlib.import_module(_NAME)
        except Exception as error:  # an operator, a symbol or a library that is not there
            fault = f"{_named(_NAME)} does not load beside {_named('torch')} ({first_line(error)})"
            for name in [name for name in sys.modules if name.startswith(f"{_NAME}.")]:
                del sys.modules[name]
            sys.modules[_NAME] = None  # type: ignore[assignment]  # Python's word for none
            sys.meta_path.insert(0, self)

    def find_distributions(self, context: Any) -> Iterator[_NotThere]:
        """Speak for torchvision, before the folder where it is installed, once it is hidden."""
        if fault is not None and context.name == _NAME:
            yield _NotThere()


def _named(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:  # a folder alone
        return package


def watch() -> None:
    """Try torchvision when the first library that would use it is imported, if none is yet."""
    if not _USERS & sys.modules.keys():
        sys.meta_path.insert(0, _BeforeItsUsers())
