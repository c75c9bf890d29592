import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script():
    """Import a benchmark by its name, as they import one another when they are run."""
    before = sys.path[:]
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module
    finally:
        sys.path[:] = before
        for path in FOLDER.glob("*.py"):
            sys.modules.pop(path.stem, None)
