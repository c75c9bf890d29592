"""The bundled sample: 298 rows of the training part of Sign Language MNIST (CC0).

They lie in ``signbridge/assets/sample``: a contact sheet that any viewer shows, the labels in a
CSV, and their provenance in a text file.
"""

from __future__ import annotations

import io
import math
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from signbridge.images.decode import GREY_SIDE
from signbridge.images.sources.kaggle import LETTERS, PIXELS, read_csv
from signbridge.images.sources.source import Asked, Candidates

NAME = "sample"
WHAT = f"{NAME!r}"
_SHEET, _LABELS = "sheet.png", "labels.csv"


def matches(spec: str, path: Path) -> bool:
    """Whether the bundled sample is asked for, by its name alone."""
    return spec == NAME


def read(path: Path = Path(NAME), asked: Asked | None = None) -> Candidates:
    """Return the bundled sample; ids are ``sample/0`` and so on, in the order of its rows."""
    folder = files("signbridge.assets") / "sample"
    letters = (folder / _LABELS).read_text(encoding="utf-8").split()[1:]
    with Image.open(io.BytesIO((folder / _SHEET).read_bytes())) as image:
        pixels = _rows(np.asarray(image), len(letters))
    return Candidates(
        name=NAME,
        sample_id=[f"{NAME}/{row}" for row in range(len(letters))],
        label=letters,
        source_split=["train"] * len(letters),
        pixels=pixels,
    )


def pack_sample(csv: Path | str, folder: Path | str) -> None:
    """Make the bundled sample from a CSV of the Kaggle layout.

    Args:
        csv: The rows to bundle.
        folder: Where ``sheet.png`` and ``labels.csv`` go; created if need be.
    """
    labels, pixels = read_csv(Path(csv))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_sheet(pixels)).save(folder / _SHEET, optimize=True)
    letters = "\n".join(["letter", *(LETTERS[number] for number in labels)]) + "\n"
    (folder / _LABELS).write_text(letters, encoding="utf-8", newline="\n")


def _sheet(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay images out from left to right, then down, on a sheet about as wide as high."""
    columns = math.ceil(math.sqrt(len(pixels)))
    rows = math.ceil(len(pixels) / columns)
    tiles = np.zeros((rows * columns, PIXELS), dtype=np.uint8)
    tiles[: len(pixels)] = pixels
    grid = tiles.reshape(rows, columns, GREY_SIDE, GREY_SIDE).swapaxes(1, 2)
    return np.ascontiguousarray(grid, dtype=np.uint8).reshape(rows * GREY_SIDE, -1)


def _rows(sheet: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    rows, columns = sheet.shape[0] // GREY_SIDE, sheet.shape[1] // GREY_SIDE
    grid = sheet.reshape(rows, GREY_SIDE, columns, GREY_SIDE)
    tiles = grid.swapaxes(1, 2).reshape(-1, PIXELS)[:count]
    return np.ascontiguousarray(tiles, dtype=np.uint8)
