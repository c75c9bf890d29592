from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signbridge.errors import ImagesError
from signbridge.images import open_images
from signbridge.images.sources import folders

Writer = Callable[..., Path]


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def test_class_folders_in_sorted_order(tmp_path: Path) -> None:
    root = touch(
        tmp_path / "my-signs", "b/2.JPG", "b/1.jpeg", "a/x.png", "a/deep/er/y.webp", "c/z.bmp"
    )
    found = folders.read(root)
    assert found.sample_id == ["a/deep/er/y.webp", "a/x.png", "b/1.jpeg", "b/2.JPG", "c/z.bmp"]
    assert found.label == ["a", "a", "b", "b", "c"]
    assert found.source_split == [""] * 5
    assert found.name == "my-signs"
    assert found.notes == []


names = st.text("abcXYZ012 _-äß", min_size=1, max_size=5).filter(lambda s: s.strip() == s)
files = st.builds(
    lambda hidden, stem, end: hidden + stem + end,
    st.sampled_from(["", "", "."]),
    names,
    st.sampled_from([".jpg", ".JPEG", ".png", ".webp", ".bmp", ".txt", ".heic", ""]),
)


@given(paths=st.sets(st.tuples(names, st.lists(names, max_size=2).map(tuple), files), min_size=1))
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_tree_is_listed_as_rglob_lists_it(
    paths: set[tuple[str, tuple[str, ...], str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for top, below, name in paths:
        path = root.joinpath(top, *below, name)
        if any(parent.is_file() for parent in path.parents) or path.is_dir():
            continue  # one name cannot be a file and a folder
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    expected = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file()
        and not path.name.startswith(".")
        and path.name.lower().endswith((".jpg", ".jpeg", ".png", ".webp", ".bmp"))
    }
    try:
        found = folders.read(root)
    except ImagesError:
        assert len({path.split("/")[0] for path in expected}) < 2
        return
    assert set(found.sample_id) == expected
    assert len(found.sample_id) == len(expected)
    assert found.label == [path.split("/")[0] for path in found.sample_id]
    assert found.sample_id == sorted(found.sample_id, key=lambda path: path.split("/"))


def test_split_folders(tmp_path: Path) -> None:
    root = touch(tmp_path, "test/a/1.png", "Train/b/2.png", "Train/a/3.png", "valid/a/4.png")
    touch(root, "LICENSE", "about/readme.txt", "train2.csv")
    found = folders.read(root)
    assert found.sample_id == ["Train/a/3.png", "Train/b/2.png", "valid/a/4.png", "test/a/1.png"]
    assert found.source_split == ["train", "train", "val", "test"]
    assert found.label == ["a", "b", "a", "a"]


def test_split_folders_beside_class_folders(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/a/1.png", "b/2.png")
    with pytest.raises(ImagesError, match="split folder 'train' beside images in 'b'"):
        folders.read(root)


def test_images_in_a_split_folder_without_class_are_said(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/a/1.png", "train/b/1.png", "test/loose.png")
    found = folders.read(root)
    assert found.source_split == ["train", "train"]
    assert any("outside any class folder: test/loose.png" in note for note in found.notes)


def test_a_class_may_be_called_test(tmp_path: Path) -> None:
    found = folders.read(touch(tmp_path, "test/1.png", "real/1.png"))
    assert found.label == ["real", "test"]


def test_hidden_and_system_files_are_passed_over_in_silence(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.png", "b/1.png")
    touch(root, ".DS_Store", "a/.DS_Store", "a/._1.png", "a/Thumbs.db", "b/desktop.ini")
    touch(root, "__MACOSX/a/1.png", ".git/x.png")
    found = folders.read(root)
    assert found.sample_id == ["a/1.png", "b/1.png"]
    assert found.notes == []
    assert found.unsupported == []


def test_other_files_are_said(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.png", "b/1.png", "a/notes.txt", "b/Makefile", "top.png")
    touch(root, *(f"b/{number}.json" for number in range(5)))
    (root / "empty").mkdir()
    notes = folders.read(root).notes
    assert "Left out as no images (.txt): a/notes.txt." in notes
    assert "Left out as no images (no extension): b/Makefile." in notes
    assert "Left out as no images (.json): b/0.json, b/1.json, b/2.json and 2 more." in notes
    assert "Left out as outside any class folder: top.png." in notes
    assert "Folders without images: empty." in notes


def test_formats_that_are_not_read_are_listed(tmp_path: Path) -> None:
    found = folders.read(touch(tmp_path, "a/1.png", "b/1.png", "a/2.TGA", "b/3.heic"))
    assert [name for name, _ in found.unsupported] == ["a/2.TGA", "b/3.heic"]
    reason = "is a .tga file, and only JPEG, PNG, WebP, BMP, GIF and TIFF are read"
    assert found.unsupported[0][1] == reason


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "holds no JPEG, PNG, WebP, BMP, GIF or TIFF images in class folders"),
        (["a/x.txt"], "holds no JPEG, PNG, WebP, BMP, GIF or TIFF images in class folders"),
        (["1.png", "2.png"], "holds images but no class folders"),
        (["a/1.heic"], "a/1.heic is a .heic file, .* convert the images first"),
        (["mine.csv"], "neither class folders nor sign_mnist_train.csv .* mine.csv give its own"),
        (["images/0/1.png", "images/1/1.png", "LICENSE"], "single class folder 'images', which"),
    ],
)
def test_folders_without_classes(paths: list[str], message: str, tmp_path: Path) -> None:
    root = touch(tmp_path / "x", *paths)
    root.mkdir(exist_ok=True)
    with pytest.raises(ImagesError, match=f"^{root} .*{message}"):
        open_images(root)


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    root = touch(tmp_path / "root", "a/1.png", "b/1.png")
    elsewhere = touch(tmp_path / "elsewhere", "deep/2.png")
    (root / "c").symlink_to(elsewhere, target_is_directory=True)
    (root / "b" / "up").symlink_to(root, target_is_directory=True)
    (root / "b" / "self").symlink_to(root / "b" / "self")
    (elsewhere / "back").symlink_to(elsewhere, target_is_directory=True)
    found = folders.read(root)
    assert found.sample_id == ["a/1.png", "b/1.png", "c/deep/2.png"]
    (note,) = [note for note in found.notes if "lead back" in note]
    assert "b/up" in note
    assert "c/back" in note


def test_an_unlistable_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = touch(tmp_path, "a/1.png", "b/1.png")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may list whatever its mode
    with pytest.raises(ImagesError, match=f"{root / 'b'} cannot be listed \\(Permission denied\\)"):
        folders.read(root)


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes only on POSIX")
def test_a_name_that_is_not_utf8_is_skipped(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.png", "b/1.png")
    try:
        (root / "a" / os.fsdecode(b"\xff.png")).touch()
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    found = folders.read(root)
    assert found.sample_id == ["a/1.png", "b/1.png"]
    assert found.unsupported == [("a/\\xff.png", "has a name that is not UTF-8")]


def test_signer_levels(tmp_path: Path, write_image: Writer) -> None:
    for first in ("a", "b"):
        for second in ("ben", "ada"):
            write_image(tmp_path / "by-class" / first / second / "1.png")
            write_image(tmp_path / "by-signer" / second / first / "1.png")
    by_class = open_images(tmp_path / "by-class", groups="signer")
    assert by_class.sample_id == ["a/ada/1.png", "a/ben/1.png", "b/ada/1.png", "b/ben/1.png"]
    assert by_class.group.tolist() == [0, 1, 0, 1]
    assert by_class.class_names == ("a", "b")
    by_signer = open_images(tmp_path / "by-signer", groups="signer/class")
    assert by_signer.sample_id == ["ada/a/1.png", "ben/a/1.png", "ada/b/1.png", "ben/b/1.png"]
    assert by_signer.group.tolist() == [0, 1, 0, 1]
    assert by_signer.label.tolist() == [0, 0, 1, 1]


def test_signer_levels_below_splits(tmp_path: Path, write_image: Writer) -> None:
    for split, signer in (("train", "ada"), ("test", "ben")):
        for name in ("a", "b"):
            write_image(tmp_path / split / signer / name / "1.png")
    images = open_images(tmp_path, groups="signer/class")
    assert images.source_split == ["train", "train", "test", "test"]
    assert images.class_names == ("a", "b")
    assert images.group.tolist() == [0, 0, 1, 1]


def test_a_missing_signer_level_is_named(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/ada/1.png", "b/2.png")
    with pytest.raises(ImagesError, match=r"b/2\.png in .* has no signer folder"):
        folders.read(root, "class/signer")


LETTERS, DIGITS = "abcdefghijklmnopqrstuvwxyz", "0123456789"
HANDS = [f"hand{number}" for number in range(1, 6)]


def levels(root: Path, first: Sequence[str], second: Sequence[str]) -> Path:
    return touch(root, *(f"{a}/{b}/1.png" for a in first for b in second))


@pytest.mark.parametrize(
    ("labels", "signers"),
    [
        (LETTERS + DIGITS, HANDS),
        (DIGITS, HANDS),
        ("abc", ["signer_1", "signer_2"]),
        (["hello", "thanks"], ["P01", "P02", "P12"]),
        (["hello", "thanks"], ["User 3", "Subject-4"]),
        (LETTERS.upper(), ["anna", "ben"]),
        ([*LETTERS, "space", "del", "nothing"], ["anna", "ben"]),
    ],
)
@pytest.mark.parametrize("split", ["", "train"])
def test_levels_the_wrong_way_round_are_refused(
    tmp_path: Path, labels: Sequence[str], signers: Sequence[str], split: str
) -> None:
    """The names seen and the other spelling are named; the right way round passes."""
    by_class, by_signer = tmp_path / "by-class", tmp_path / "by-signer"
    levels(by_class / split, labels, signers)
    levels(by_signer / split, signers, labels)
    for root, wrong, other in (
        (by_class, "signer/class", "--groups signer,"),
        (by_signer, "class/signer", "--groups signer/class,"),
    ):
        with pytest.raises(ImagesError, match=f"does not look like {wrong}") as error:
            folders.read(root, wrong)
        assert other in str(error.value)
        assert sorted(labels)[0] in str(error.value)
        assert sorted(signers)[0] in str(error.value)
    assert set(folders.read(by_class, "class/signer").label) == set(labels)
    assert set(folders.read(by_signer, "signer/class").label) == set(labels)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["rock", "paper"], [str(number) for number in range(1, 13)]),  # numbered signers
        (["hello", "thanks"], "ABC"),  # or signers by letter
        ("ABCDE", LETTERS),
        (["ada", "ben"], ["hello", "thanks"]),
        (HANDS, HANDS),
    ],
)
def test_levels_that_can_be_either_are_said(
    tmp_path: Path, first: Sequence[str], second: Sequence[str]
) -> None:
    root = levels(tmp_path, first, second)
    (note,) = folders.read(root, "class/signer").notes
    assert note.startswith(f"Classes are the first level of folders ({sorted(first)[0]}, ")
    assert f"signers the second ({sorted(second)[0]}, " in note
    (note,) = folders.read(root, "signer/class").notes
    assert note.startswith(f"Classes are the second level of folders ({sorted(second)[0]}, ")


def test_numbered_hands_may_be_classes_where_what_is_below_does_not_repeat(tmp_path: Path) -> None:
    root = touch(tmp_path, *(f"hand{k}/clip-{k}{j}/1.png" for k in range(4) for j in range(3)))
    assert set(folders.read(root, "class/signer").label) == {f"hand{k}" for k in range(4)}


def test_a_level_that_is_not_looked_at_is_said(tmp_path: Path) -> None:
    (note,) = folders.read(levels(tmp_path, HANDS, LETTERS)).notes
    assert "Classes are the first level of folders (hand1, hand2, hand3 and 2 more)" in note
    assert "(a, b, c and 23 more) are not looked at" in note
    assert "--groups signer/class" in note
