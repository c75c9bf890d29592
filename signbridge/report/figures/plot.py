"""A finished figure: its picture in two widths, the data behind it, and what the pointer shows."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from signbridge.runtime.files import replace_file

__all__ = ["Drawing", "Plot", "Spot"]


@dataclass(frozen=True)
class Spot:
    """An area of a picture that answers to the pointer.

    Attributes:
        x: Left edge, as a fraction of the picture's width.
        y: Top edge, as a fraction of the picture's height.
        width: Width, as a fraction of the picture's width; 0 with ``height`` 0 for a point.
        height: Height, as a fraction of the picture's height.
        text: What to show; lines are parted by line breaks.
        thumbnail: Row of the image in the sheet of thumbnails, or None.
    """

    x: float
    y: float
    width: float
    height: float
    text: str
    thumbnail: int | None = None


@dataclass(frozen=True)
class Drawing:
    """A picture as PNG bytes with its size in pixels and its pointer areas."""

    png: bytes
    width: int
    height: int
    spots: tuple[Spot, ...] = ()


@dataclass(frozen=True)
class Plot:
    """A figure of the report.

    Attributes:
        name: File name without suffix.
        title: A heading in words.
        caption: How to read it, in one to three sentences.
        alt: What the picture shows, for those who do not see it.
        wide: The picture for a screen or paper.
        narrow: The picture for a phone.
        columns: Column names of the data behind it.
        rows: The data behind it.
    """

    name: str
    title: str
    caption: str
    alt: str
    wide: Drawing
    narrow: Drawing
    columns: tuple[str, ...]
    rows: tuple[Sequence[object], ...]

    def csv(self) -> str:
        """The data behind the figure as CSV text."""
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return buffer.getvalue()

    def save(self, folder: Path) -> Path:
        """Write ``NAME.png`` (the wide picture) and ``NAME.csv``.

        Args:
            folder: Where to; made if it does not exist.

        Returns:
            Path of the PNG.
        """
        folder.mkdir(parents=True, exist_ok=True)
        picture = folder / f"{self.name}.png"
        replace_file(picture, self.wide.png, durable=False)
        replace_file(folder / f"{self.name}.csv", self.csv().encode(), durable=False)
        return picture
