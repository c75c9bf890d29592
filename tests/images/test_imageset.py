from __future__ import annotations

import dataclasses
import multiprocessing
import pickle
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from signbridge.errors import ImagesError
from signbridge.images import ImageSet, open_images


def test_rows_load_as_the_grey_square_in_rgb() -> None:
    images = open_images("sample")
    image = images.load(17)
    assert image.mode == "RGB"
    for channel in range(3):
        square = np.asarray(image)[..., channel]
        np.testing.assert_array_equal(square, images.pixels[17].reshape(28, 28))


def test_files_load_upright_at_their_own_size(tree: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.new("RGB", (30, 20))
    stored.putpixel((0, 0), (255, 0, 0))
    stored.save(tree / "a" / "turned.png", exif=exif)
    images = open_images(tree)
    upright = images.load(images.sample_id.index("a/turned.png"))
    assert upright.size == (20, 30)
    assert upright.getpixel((19, 0)) == (255, 0, 0)


def pool(kind: str) -> Executor:
    if kind == "threads":
        return ThreadPoolExecutor(4)
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


@pytest.mark.parametrize("kind", ["threads", "spawn"])
def test_loading_in_workers_gives_the_same(kind: str, tree: Path) -> None:
    images = open_images(tree)
    expected = [images.load(i).tobytes() for i in range(len(images))]
    with pool(kind) as workers:
        loaded = [image.tobytes() for image in workers.map(images.load, range(len(images)))]
    assert loaded == expected


def test_pickling_keeps_everything(tree: Path) -> None:
    images = open_images(tree, per_class=3)
    copy = pickle.loads(pickle.dumps(images))
    for field in dataclasses.fields(ImageSet):
        np.testing.assert_equal(getattr(copy, field.name), getattr(images, field.name))


def test_a_file_changed_or_gone_is_named(tree: Path) -> None:
    images = open_images(tree)
    (tree / "a" / "0.png").write_bytes((tree / "a" / "1.png").read_bytes())
    (tree / "a" / "2.png").unlink()
    with pytest.raises(ImagesError, match=r"a/0\.png has changed since it was listed"):
        images.load(0)
    with pytest.raises(ImagesError, match=r"a/2\.png cannot be read \(No such file"):
        images.load(2)
    images.load(1)


def test_fingerprint_covers_content_order_and_labels(tree: Path) -> None:
    images = open_images(tree)
    assert open_images(tree).fingerprint == images.fingerprint
    changes: list[dict[str, object]] = [
        {"class_names": ("a", "b", "x")},
        {"sample_id": images.sample_id[::-1]},
        {"label": images.label[::-1]},
        {"image_sha256": images.image_sha256[::-1]},
    ]
    prints = {dataclasses.replace(images, **change).fingerprint for change in changes}  # type: ignore[arg-type]
    assert len(prints | {images.fingerprint}) == 5


def test_fingerprint_does_not_depend_on_the_place(tree: Path, tmp_path: Path) -> None:
    before = open_images(tree).describe()
    (tmp_path / "elsewhere").mkdir()
    moved = tree.rename(tmp_path / "elsewhere" / "hands")
    assert open_images(moved).describe() == before


def test_describe_names_what_was_asked_for() -> None:
    images = open_images("sample", classes=["B", "A"], per_class=5, seed=7)
    assert images.describe() == {
        "image_source": "sample",
        "image_fingerprint": images.fingerprint,
        "seed": 7,
        "classes": ["A", "B"],
        "per_class": 5,
        "groups": "near_duplicates 0.95",
    }
    everything = open_images("sample", groups="none").describe()
    assert (everything["classes"], everything["per_class"]) == ("all", "all")
    assert open_images("sample", classes=20, groups="none").describe()["classes"] == 20
