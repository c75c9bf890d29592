from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
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
    (tree / "a" / "copy.png").write_bytes((tree / "a" / "2.png").read_bytes())
    images = open_images(tree)
    assert len(images) == 19
    group = dict(zip(images.sample_id, images.group.tolist(), strict=True))
    assert group["a/copy.png"] == group["a/2.png"] == 2
    assert len(set(group.values())) == 18
    assert any("19 images in 18 groups" in note for note in images.notes)


def test_every_image_its_own_group(tree: Path) -> None:
    (tree / "a" / "copy.png").write_bytes((tree / "a" / "2.png").read_bytes())
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
            "groups is 'photos', which is neither a CSV file, nor a regular expression",
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


@pytest.fixture
def signers(tmp_path: Path, write_image: Writer) -> Path:
    """Class folders a and b of ten images by hand1, four by hand2 and two by hand3."""
    for name in "ab":
        for hand, count in ((1, 10), (2, 4), (3, 2)):
            for number in range(count):
                write_image(tmp_path / "signers" / name / f"hand{hand}_{number}.png")
    return tmp_path / "signers"


@pytest.mark.parametrize(
    "how",
    [
        {"layout": "class/hand{signer}_*"},
        {"layout": "class/hand{signer}_*", "groups": "signer"},
        {"groups": r"hand(?P<signer>\d)"},
    ],
)
def test_so_many_a_class_are_drawn_evenly_over_the_signers(
    signers: Path, how: dict[str, str]
) -> None:
    images = open_images(signers, per_class=8, **how)
    drawn = Counter((name[0], name[6]) for name in images.sample_id)
    assert drawn == {(c, hand): n for c in "ab" for hand, n in (("1", 3), ("2", 3), ("3", 2))}
    again = open_images(signers, per_class=8, seed=1, **how)
    assert again.sample_id != images.sample_id
    if "groups" in how:
        assert sorted(images.group_names or ()) == ["1", "2", "3"]
    else:
        assert images.group_names is None
        (note,) = [note for note in images.notes if "does not keep them apart" in note]
        assert note.startswith("The images are of 3 signers (1, 2, 3), and --groups near_dupli")
    assert images.describe()["signers"] == 3


def test_a_file_that_names_all_signers_is_drawn_from_evenly_too(signers: Path) -> None:
    file = signers.parent / "signers.csv"
    ids = open_images(signers, groups="none").sample_id
    file.write_text("\n".join(["sample_id,group", *(f"{name},{name[2:7]}" for name in ids)]))
    images = open_images(signers, groups=file, per_class=3)
    assert Counter(name[2:7] for name in images.sample_id) == {"hand1": 2, "hand2": 2, "hand3": 2}
    assert sorted(images.group_names or ()) == ["hand1", "hand2", "hand3"]
    file.write_text(file.read_text().replace(",hand3", ",Hand1"))
    (note,) = open_images(signers, groups=file).notes[-1:]
    assert note == "The groups Hand1 and hand1 differ in case alone: each is one of its own."


def test_rows_that_stand_under_two_labels_are_left_out_or_refused(write_csv: Writer) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 784))
    pixels[40] = pixels[3]
    pixels[4] = pixels[5]  # twice under one label: near-duplicates, as ever
    path = write_csv([0] * 30 + [1] * 30, pixels=pixels)
    images = open_images(path)
    assert len(images) == 58
    assert images.skipped == [
        ("train/3", "(A) is the same image as train/40 (B)"),
        ("train/40", "(B) is the same image as train/3 (A)"),
    ]
    with pytest.raises(ImagesError, match=r"2 of 60 rows in .* cannot be used.*train/3 \(A\) is"):
        open_images(path, max_bad_share=0.01)
    assert open_images(path, classes=["A", "B"], per_class=30).label.tolist() == [0] * 29 + [1] * 29


def test_a_layout_is_of_folders() -> None:
    with pytest.raises(ImagesError, match="--layout is 'class', but sample has no folders"):
        open_images("sample", layout="class")
