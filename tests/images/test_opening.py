from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from signbridge.errors import ImagesError
from signbridge.images import near_duplicate_groups, open_images

Writer = Callable[..., Path]


def test_groups_of_a_csv_do_not_depend_on_the_choice(write_csv: Writer) -> None:
    # A chain of one photograph: its ends are linked only through rows that are not chosen.
    rng = np.random.default_rng(5)
    start, end = rng.integers(0, 256, (2, 784))
    chain = [(start * (1 - t) + end * t).astype(int) for t in np.linspace(0, 1, 30)]
    pixels = np.stack([*chain, *rng.integers(0, 256, (30, 784))])
    path = write_csv([0] * 30 + [1] * 30, pixels=pixels)
    images = open_images(path, per_class=4)
    assert near_duplicate_groups(images.pixels).max() > 4
    assert images.group.tolist() == [0, 0, 0, 0, 1, 2, 3, 4]


def test_groups_of_a_folder_join_copies(tree: Path) -> None:
    (tree / "c" / "copy.png").write_bytes((tree / "a" / "2.png").read_bytes())
    images = open_images(tree)
    assert len(images) == 19
    group = dict(zip(images.sample_id, images.group.tolist(), strict=True))
    assert group["c/copy.png"] == group["a/2.png"] == 2
    assert len(set(group.values())) == 18
    assert any("19 images in 18 groups" in note for note in images.notes)


def test_every_image_its_own_group(tree: Path) -> None:
    (tree / "c" / "copy.png").write_bytes((tree / "a" / "2.png").read_bytes())
    assert open_images(tree, groups="none").group.tolist() == list(range(19))


def test_groups_from_a_file(tree: Path, tmp_path: Path) -> None:
    path = tmp_path / "signers.csv"
    ids = open_images(tree).sample_id
    lines = [f"{name},{'even' if i % 2 else 'odd'}" for i, name in enumerate(ids)]
    path.write_text("\n".join(["sample_id,group", *lines]))
    images = open_images(tree, groups=path)
    assert images.group.tolist() == [0, 1] * 9
    assert images.describe()["groups"] == "signers.csv"


def test_signers_of_a_csv_are_unknown(write_csv: Writer) -> None:
    with pytest.raises(ImagesError, match=r"groups is 'signer', but .* says nothing of signers"):
        open_images(write_csv([0, 1]), groups="signer")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"groups": "photos"},
            "groups is 'photos', which is neither a CSV file nor one of near_d",
        ),
        ({"duplicate_threshold": 0}, "duplicate_threshold is 0; give a correlation"),
        ({"duplicate_threshold": 1.01}, "duplicate_threshold is 1.01; give a correlation"),
        ({"classes": 25}, "classes is 25, but the images have 24 classes"),
        ({"classes": 0}, "classes is 0, but the images have 24 classes"),
        ({"classes": ["A", "J"]}, "no images of the class J; there are A, B, C"),
        ({"classes": "A"}, "Only 1 class is left (A)"),
        ({"per_class": 0}, "per_class is 0; give 1 or more"),
    ],
)
def test_wrong_arguments(options: dict[str, object], message: str) -> None:
    with pytest.raises(ImagesError, match=re.escape(message)):
        open_images("sample", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", ["", "nowhere", "nowhere/at/all.csv", "bad\0name", "x" * 5000])
def test_what_does_not_exist(spec: str) -> None:
    with pytest.raises(ImagesError, match=r"does not exist|cannot be looked up"):
        open_images(spec)


def test_an_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "archive.zip"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(ImagesError, match="is an archive; unpack it"):
        open_images(path)


def test_a_lone_image_is_no_source(tree: Path) -> None:
    with pytest.raises(ImagesError, match="is a single image; give the folder"):
        open_images(tree / "a" / "0.png")


def test_more_a_class_than_there_are_is_said() -> None:
    images = open_images("sample", per_class=16)
    counts = np.bincount(images.label)
    assert counts.max() == 16
    assert any("Fewer than 16 images a class: A (7)" in note for note in images.notes)


def test_a_class_with_a_single_image_is_said(tree: Path, write_image: Writer) -> None:
    write_image(tree / "d" / "only.png")
    images = open_images(tree)
    assert "d" in images.class_names
    assert any("A single image of the class d" in note for note in images.notes)


def test_a_relative_path_and_a_home_are_understood(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree.parent)
    monkeypatch.setenv("HOME", str(tree.parent))
    expected = open_images(tree).fingerprint
    assert open_images("hands").fingerprint == expected
    assert open_images("~/hands").fingerprint == expected
    monkeypatch.chdir(tree)
    here = open_images(".")
    assert here.fingerprint == expected
    assert here.name == "hands"


def test_importing_needs_no_torch_and_no_scipy() -> None:
    code = (
        "import sys, signbridge.images as images; images.open_images('sample', groups='none');"
        "print({'torch', 'scipy', 'h5py', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
