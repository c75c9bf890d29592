from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from signbridge.images import open_images
from signbridge.images.sources.sample import pack_sample

# Of the published rows, taken from their CSV with numpy.loadtxt.
PIXELS_SHA256 = "6e104a1864d4415514fe0edfadc2bd993a35694ed6a19f0b8634c78e5b51a00b"
LABELS_SHA256 = "7eb06b65fc139b114b07f93d8b16466e2304dd713458e3ca3cce1e077a4f0cc9"


def test_the_bundled_rows_are_the_published_ones() -> None:
    images = open_images("sample")
    assert images.pixels.shape == (298, 784)
    assert hashlib.sha256(images.pixels.tobytes()).hexdigest() == PIXELS_SHA256
    numbers = ["ABCDEFGHIJKLMNOPQRSTUVWXYZ".index(images.class_names[i]) for i in images.label]
    assert hashlib.sha256(np.array(numbers, np.uint8).tobytes()).hexdigest() == LABELS_SHA256


def test_what_the_bundled_sample_is_called() -> None:
    images = open_images("sample")
    assert images.name == "sample"
    assert images.class_names == tuple("ABCDEFGHIKLMNOPQRSTUVWXY")
    assert images.sample_id[:2] == ["sample/0", "sample/1"]
    assert set(images.source_split) == {"train"}
    assert images.root is None


def test_a_folder_called_sample_is_reached_by_its_path(tree: Path) -> None:
    assert len(open_images(tree.rename(tree.parent / "sample"))) == 18


def test_the_bundled_files_are_small_and_tell_their_origin() -> None:
    folder = files("signbridge.assets") / "sample"
    sizes = {entry.name: len(entry.read_bytes()) for entry in folder.iterdir()}
    assert sorted(sizes) == ["README.txt", "labels.csv", "sheet.png"]
    assert sum(sizes.values()) < 250_000
    text = (folder / "README.txt").read_text(encoding="utf-8")
    assert "CC0" in text
    assert PIXELS_SHA256 in text


def test_packing_the_rows_makes_the_bundled_images(
    write_csv: Callable[..., Path], tmp_path: Path
) -> None:
    images = open_images("sample")
    numbers = ["ABCDEFGHIJKLMNOPQRSTUVWXYZ".index(images.class_names[i]) for i in images.label]
    pack_sample(write_csv(numbers, pixels=images.pixels), tmp_path / "packed")
    folder = files("signbridge.assets") / "sample"
    labels = (tmp_path / "packed" / "labels.csv").read_bytes()
    assert labels == (folder / "labels.csv").read_bytes()
    # Pixels, not bytes: the compressor differs between builds of Pillow.
    with (
        Image.open(tmp_path / "packed" / "sheet.png") as one,
        Image.open(str(folder / "sheet.png")) as other,
    ):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
