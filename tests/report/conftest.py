from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures.results import build_store


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[[Path], Path]:
    """Build the store of a results folder and note its place and fingerprint there."""

    def make(results: Path, **keywords: Any) -> Path:
        path = tmp_path / f"{results.name}-store.h5"
        fingerprint = build_store(path, results, **keywords)
        summary = json.loads((results / "summary.json").read_text())
        summary["store"] |= {"path": str(path), "fingerprint": fingerprint}
        (results / "summary.json").write_text(json.dumps(summary))
        return path

    return make
