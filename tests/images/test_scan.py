from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from signbridge.errors import ImagesError
from signbridge.images import open_images

Writer = Callable[..., Path]


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def test_a_bad_file_is_skipped_and_listed(tree: Path) -> None:
    spoil(tree / "a" / "3.png")
    images = open_images(tree)
    assert len(images) == 17
    ((name, reason),) = images.skipped
    assert name == "a/3.png"
    assert reason.startswith("is damaged (")
    assert "a/3.png" not in images.sample_id


def test_a_bad_file_is_replaced_by_the_next_of_its_class(tree: Path) -> None:
    before = open_images(tree, per_class=3)
    victim = before.sample_id[1]
    assert victim.startswith("a/")
    spoil(tree / victim)
    after = open_images(tree, per_class=3, max_bad_share=0.1)
    queue = list(range(8))
    random.Random(42).shuffle(queue)
    taken = [f"a/{number}.png" for number in queue if f"a/{number}.png" != victim][:3]
    assert after.sample_id[:3] == taken
    assert after.sample_id[3:] == before.sample_id[3:]
    assert [name for name, _ in after.skipped] == [victim]


def test_files_that_are_not_taken_are_not_read(tree: Path) -> None:
    chosen = set(open_images(tree, per_class=3).sample_id)
    for path in tree.rglob("*.png"):
        if path.relative_to(tree).as_posix() not in chosen:
            spoil(path)
    images = open_images(tree, per_class=3)
    assert set(images.sample_id) == chosen
    assert images.skipped == []


def test_too_many_bad_files_are_an_error(tree: Path) -> None:
    spoil(tree / "a" / "3.png")
    (tree / "b" / "1.png").write_text("not an image")
    with pytest.raises(ImagesError, match=r"2 of 18 image files .* share of 0\.05 .*a/3\.png is"):
        open_images(tree)
    images = open_images(tree, max_bad_share=0.12)
    assert dict(images.skipped)["b/1.png"] == "is not a JPEG, PNG, WebP, BMP, GIF or TIFF image"


def test_one_bad_file_is_too_many_when_none_is_allowed(tree: Path) -> None:
    spoil(tree / "a" / "3.png")
    with pytest.raises(ImagesError, match="1 of 18 image files"):
        open_images(tree, max_bad_share=0)


def test_formats_that_are_not_read_count_as_bad(tree: Path) -> None:
    Image.new("RGB", (4, 4)).save(tree / "a" / "x.tga")
    assert open_images(tree).skipped == [
        ("a/x.tga", "is a .tga file, and only JPEG, PNG, WebP, BMP, GIF and TIFF are read")
    ]
    Image.new("RGB", (4, 4)).save(tree / "b" / "x.tga")
    with pytest.raises(ImagesError, match="2 of 20 image files"):
        open_images(tree)


def test_a_class_without_a_good_file_is_named(tree: Path, write_image: Writer) -> None:
    spoil(write_image(tree / "d" / "only.png"))
    with pytest.raises(ImagesError, match=r"No image of the class d in .* can be used"):
        open_images(tree)
    assert len(open_images(tree, classes=["a", "b", "c"])) == 18


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_a_share(share: float, tree: Path) -> None:
    with pytest.raises(ImagesError, match="give a share from 0 to 1"):
        open_images(tree, max_bad_share=share)


def test_checksums_and_pixels_are_the_files(tree: Path) -> None:
    images = open_images(tree)
    for i, name in enumerate(images.sample_id):
        data = (tree / name).read_bytes()
        assert images.image_sha256[i] == hashlib.sha256(data).hexdigest()
        with Image.open(tree / name) as image:
            grey = image.convert("L").resize((28, 28), Image.Resampling.BOX)
        np.testing.assert_array_equal(images.pixels[i], np.asarray(grey).reshape(-1))


def test_progress_counts_every_file(tree: Path) -> None:
    calls: list[tuple[int, int]] = []
    open_images(tree, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(number, 18) for number in range(1, 19)]


@pytest.mark.filterwarnings("error")
def test_no_warning_reaches_the_user(tree: Path) -> None:
    palette = Image.new("P", (4, 4))
    palette.putpalette([1, 2, 3, 4, 5, 6])
    palette.save(tree / "a" / "palette.png", transparency=b"\x00\x80")
    assert len(open_images(tree)) == 19


def test_one_image_under_two_classes_is_left_out_or_refused(tree: Path) -> None:
    (tree / "c" / "copy.png").write_bytes((tree / "a" / "2.png").read_bytes())
    with pytest.raises(ImagesError, match=r"2 of 19 .*a/2\.png \(a\) is the same image as c/copy"):
        open_images(tree)
    images = open_images(tree, max_bad_share=0.2)
    assert len(images) == 17
    assert images.skipped == [
        ("a/2.png", "(a) is the same image as c/copy.png (c)"),
        ("c/copy.png", "(c) is the same image as a/2.png (a)"),
    ]


def test_an_image_under_two_classes_is_replaced_by_others_of_its_classes(tree: Path) -> None:
    for number in range(4):
        (tree / "b" / f"{number}.png").write_bytes((tree / "a" / f"{number}.png").read_bytes())
    images = open_images(tree, classes=["a", "b"], per_class=2, max_bad_share=0.9)
    names = set(images.sample_id)
    read = {name for name, _ in images.skipped} | names
    assert np.bincount(images.label).tolist() == [2, 2]
    assert len(images.skipped) % 2 == 0
    assert not any(f"a/{k}.png" in names and f"b/{k}.png" in read for k in range(4))
    assert not any(f"b/{k}.png" in names and f"a/{k}.png" in read for k in range(4))
