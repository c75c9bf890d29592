"""Example pictures from the bundled sample, and whether probes were trained on them.

The bundled model and probes were not, nor on near-duplicates of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from signbridge.errors import SignBridgeError
from signbridge.images import ImageSet, open_images
from signbridge.images.groups import DEFAULT_THRESHOLD
from signbridge.report.inputs import open_inputs
from signbridge.results.results import load_results

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
    for row in _known_rows(images, class_names):
        path = folder / f"{images.class_names[int(images.label[row])]}.png"
        images.load(row).save(path)
        paths.append(path)
    return paths


def examples_label(probes: str | Path | None, class_names: Sequence[str]) -> str:
    """What the examples are called: whether the probes were trained on them, or on near-duplicates.

    Args:
        probes: a results folder, or None for the bundled probes.
        class_names: the classes that the probes know.
    """
    if probes is None:
        return "Examples (no model or probe here was trained on them)"
    images = open_images("sample", groups="none")
    rows = _known_rows(images, class_names)
    seen = _trained_on(
        Path(probes), images.pixels[rows], [images.image_sha256[row] for row in rows]
    )
    if seen is None:
        return "Examples (whether the probes were trained on them is not known)"
    number = int(seen.sum())
    if number == 0:
        return "Examples (the probes were trained on none of them)"
    those = "all of them" if number == len(rows) else f"{number} of these {len(rows)}"
    return f"Examples (the probes were trained on {those}, or on near-duplicates)"


def training_rows(images: ImageSet) -> list[int]:
    """Rows of the sample that the bundled probes were trained on: no example, nor near-duplicates.

    Args:
        images: the sample.
    """
    alike = _correlation(images.pixels[example_rows(images)], images.pixels) >= DEFAULT_THRESHOLD
    return [int(row) for row in np.flatnonzero(~alike.any(axis=0))]


def _known_rows(images: ImageSet, class_names: Sequence[str]) -> list[int]:
    rows = example_rows(images)
    return [row for row in rows if images.class_names[int(images.label[row])] in class_names]


def _trained_on(
    folder: Path, pixels: NDArray[np.uint8], hashes: Sequence[str]
) -> NDArray[np.bool_] | None:
    """Which examples the probes of a results folder were trained on, as its store tells.

    Args:
        folder: the results.
        pixels: of the examples, shape (examples, 784).
        hashes: SHA-256 of the same.

    Returns:
        A value for each example; None if the store is not there or does not tell.
    """
    try:
        results = load_results(folder)
        with open_inputs(results, None) as inputs:
            if inputs.store is None or inputs.pixels is None:
                return None
            stored, known = inputs.pixels, inputs.store.image_sha256
    except SignBridgeError:
        return None
    if stored.shape[1] != pixels.shape[1]:
        return None
    same = np.array(hashes)[:, None] == np.array(known)[None]
    alike = same | (_correlation(pixels, stored) >= DEFAULT_THRESHOLD)
    # The probes are fitted to all that was trained on or scored. A file of folds can leave images
    # out, which look like its training part in the results.
    used = np.full(len(stored), True)
    if results.protocol.split == "file":
        used = results.predictions.fold >= 0
    seen: NDArray[np.bool_] = alike[:, used].any(axis=1)
    return None if (alike[:, ~used].any(axis=1) & ~seen).any() else seen


def _correlation(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Pearson correlations of the rows of two sets; 0 where a row is constant."""

    def normal(rows: NDArray[np.uint8]) -> NDArray[np.float64]:
        centred = rows - rows.mean(axis=1, keepdims=True)
        length = np.linalg.norm(centred, axis=1, keepdims=True)
        return np.asarray(centred / np.where(length > 0, length, 1))

    return np.asarray(normal(a) @ normal(b).T)
