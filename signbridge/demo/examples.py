"""Example pictures from the bundled sample: none of them trained the bundled model or probes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from signbridge.images import ImageSet, open_images

CLASSES = ("A", "B", "C", "F", "I", "L", "O", "R", "U", "V", "W", "Y")


def example_rows(images: ImageSet) -> list[int]:
    """The rows of the sample that are examples: the first of each of :data:`CLASSES`."""
    labels = np.asarray(images.label)
    return [int(np.flatnonzero(labels == images.class_names.index(name))[0]) for name in CLASSES]


def write_examples(folder: Path, class_names: Sequence[str]) -> list[Path]:
    """Write the examples of the classes that the probes know as PNG files of 28 x 28 pixels.

    Args:
        folder: where to write.
        class_names: those classes.

    Returns:
        The files, named after their class.
    """
    images = open_images("sample", groups="none")
    paths = []
    for row in example_rows(images):
        name = images.class_names[int(images.label[row])]
        if name in class_names:
            path = folder / f"{name}.png"
            images.load(row).save(path)
            paths.append(path)
    return paths
