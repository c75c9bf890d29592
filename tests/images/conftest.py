"""Fixtures that write the sources which the tests read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HEADER = ",".join(["label", *(f"pixel{i}" for i in range(1, 785))])


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[..., Path]:
    """Write a CSV of the Kaggle layout; returns its path."""

    def write(
        labels: Sequence[int],
        name: str = "sign_mnist_train.csv",
        pixels: np.ndarray | None = None,
        lines: dict[int, str] | None = None,
        header: str = HEADER,
    ) -> Path:
        if pixels is None:
            pixels = np.random.default_rng(len(labels)).integers(0, 256, (len(labels), 784))
        text = [header]
        rows = np.column_stack([labels, pixels]) if len(labels) else []
        text += [",".join(map(str, row)) for row in np.asarray(rows).tolist()]
        for number, line in (lines or {}).items():
            text[number - 1] = line
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(text) + "\n")
        return path

    return write


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """Write a small image of random colours, different for every path; returns the path."""

    def write(path: Path, size: tuple[int, int] = (16, 12), **options: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(list(str(path).encode()))
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(
            path, **options
        )
        return path

    return write


@pytest.fixture
def tree(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    """Class folders a, b and c with 8, 6 and 4 PNG images."""
    root = tmp_path / "hands"
    for name, count in (("a", 8), ("b", 6), ("c", 4)):
        for number in range(count):
            write_image(root / name / f"{number}.png")
    return root
