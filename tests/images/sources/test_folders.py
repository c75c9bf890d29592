from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from signbridge.errors import ImagesError
from signbridge.images import open_images
from signbridge.images.decode import grey_pixels
from signbridge.images.groups import groups_by_pattern
from signbridge.images.sources import Asked, folders

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
        found = folders.read(root, Asked(layout="class"))
    except ImagesError:
        assert not expected
        return
    assert set(found.sample_id) == expected
    assert len(found.sample_id) == len(expected)
    assert found.label == [path.split("/")[0] for path in found.sample_id]
    assert found.sample_id == sorted(found.sample_id, key=lambda path: path.split("/"))
    try:
        inferred = folders.read(root)
    except ImagesError:
        return
    # The classes are one level of all images.
    level = next(
        k
        for k in range(4)
        if all(
            k < i.count("/") and i.split("/")[k] == c
            for i, c in zip(inferred.sample_id, inferred.label, strict=True)
        )
    )
    assert str(level + 1) in inferred.layout


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
        for second in ("P2", "P1"):
            write_image(tmp_path / "by-class" / first / second / "1.png")
            write_image(tmp_path / "by-signer" / second / first / "1.png")
    by_class = open_images(tmp_path / "by-class", groups="signer")
    assert by_class.sample_id == ["a/P1/1.png", "a/P2/1.png", "b/P1/1.png", "b/P2/1.png"]
    assert by_class.group.tolist() == [0, 1, 0, 1]
    assert by_class.class_names == ("a", "b")
    assert by_class.group_names == ("P1", "P2")
    assert by_class.describe()["groups"] == "class/signer"
    by_signer = open_images(tmp_path / "by-signer", groups="signer/class")
    assert by_signer.sample_id == ["P1/a/1.png", "P2/a/1.png", "P1/b/1.png", "P2/b/1.png"]
    assert by_signer.group.tolist() == [0, 1, 0, 1]
    assert by_signer.label.tolist() == [0, 0, 1, 1]
    whatever = open_images(tmp_path / "by-signer", groups="signer")
    assert whatever.group.tolist() == by_signer.group.tolist()
    assert whatever.fingerprint == by_signer.fingerprint
    with pytest.raises(ImagesError, match="not look like signer/class but like class/signer"):
        open_images(tmp_path / "by-class", groups="signer/class")


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
        folders.read(root, Asked(layout="class/signer"))


def test_images_of_a_split_without_class_folders_go_by_their_names(tmp_path: Path) -> None:
    """Kaggle's ASL Alphabet as it unpacks."""
    inner = "asl_alphabet_train/asl_alphabet_train"
    root = touch(tmp_path, *(f"{inner}/{name}/{name}1.jpg" for name in ("D", "del", "space")))
    touch(root, *(f"asl_alphabet_test/asl_alphabet_test/{x}_test.jpg" for x in ("del", "space")))
    found = folders.read(root)
    assert found.label == ["D", "del", "space", "del", "space"]
    assert found.source_split == ["train"] * 3 + ["test"] * 2
    assert found.layout == (
        "split/*/class: 3 classes (level 3: D, del, space), 2 splits (level 1: test, train); the "
        "classes of test by the beginning of the file name; not looked at: level 2 "
        "(asl_alphabet_test, asl_alphabet_train)"
    )
    touch(root, "asl_alphabet_test/asl_alphabet_test/unlike.jpg")
    found = folders.read(root)
    assert set(found.source_split) == {"train"}
    assert any("outside any class folder: asl_alphabet_test/" in note for note in found.notes)


def test_signer_and_class_out_of_file_names(tmp_path: Path) -> None:
    """The Massey photographs."""
    names = [f"hand{k}_{c}_bot_seg_{j}_cropped.jpeg" for k in (1, 2) for c in "ab" for j in (1, 2)]
    found = folders.read(touch(tmp_path, *names), Asked("hand{signer}_{class}_*", "signer"))
    assert found.label == list("aaaabbbb")
    assert found.signer == list("11221122")
    assert found.layout == (
        "hand{signer}_{class}_*: 2 classes (file name: a, b), 2 signers (file name: 1, 2)"
    )
    touch(tmp_path, "other.jpeg")
    found = folders.read(tmp_path, Asked("hand{signer}_{class}_*"))
    assert found.unsupported == [("other.jpeg", "is not named as hand{signer}_{class}_* says")]
    with pytest.raises(ImagesError, match=r"is not named as x\{class\} says, nor is any other"):
        folders.read(tmp_path, Asked("x{class}"))


def test_file_names_that_seem_to_number_signers_are_said(tmp_path: Path) -> None:
    names = [f"{c}/hand{k}_{c}_{j}.png" for k in (1, 2) for c in "ab" for j in (1, 2)]
    (note,) = folders.read(touch(tmp_path, *names)).notes
    assert note == (
        "The file names seem to number 2 signers (hand1, hand2): if they do, --groups "
        "'(hand[0-9]+)' keeps them apart."
    )
    assert groups_by_pattern("(hand[0-9]+)", names[:5:4]) == ["hand1", "hand2"]
    assert folders.read(touch(tmp_path, "a/other.png")).notes == []


def test_names_are_composed_and_files_open_by_the_names_they_have(
    tmp_path: Path, write_image: Writer
) -> None:
    composed, decomposed = "\u00e9", "e\u0301"
    for path in (f"train/{composed}/1.png", f"test/{decomposed}/{decomposed}.png", "train/o/1.png"):
        write_image(tmp_path / path)
    write_image(tmp_path / "test/O/1.png")
    images = open_images(tmp_path, groups="none")
    assert images.class_names == ("O", "o", composed)
    assert [images.load(i).mode for i in range(len(images))] == ["RGB"] * 4
    assert "The classes O and o differ in case alone: each is one of its own." in images.notes


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Asked("class/class"), "name the level of the classes, and each level once"),
        (Asked("signer"), "name the level of the classes"),
        (Asked("person/class"), "'person' is no level; give split, signer, class, sample or *"),
        (Asked("{person}_{class}"), r"\{person\} is no level"),
        (Asked("{class}*"), "nothing stands between two unknown parts"),
        (Asked("{class}_{class}"), "one is named twice"),
        (Asked(""), "'' is no level"),
        (Asked("class", "signer"), "--layout class and --groups signer do not go together"),
        (Asked("split/class"), "a/1.png in .* names no split"),
        (Asked("class/{signer}_x/*.png"), "has no signer folder"),
    ],
)
def test_layouts_that_cannot_be_are_refused(asked: Asked, message: str, tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.png", "b/1.png")
    with pytest.raises(ImagesError, match=message):
        folders.read(root, asked)


def test_an_order_of_levels_that_the_names_do_not_contradict_is_taken(tmp_path: Path) -> None:
    root = touch(tmp_path, *(f"{a}/{b}/1.png" for a in ("ada", "ben") for b in ("bye", "hello")))
    found = folders.read(root, Asked(groups="signer/class"))
    assert set(found.label) == {"bye", "hello"}
    for groups in ("", "signer"):
        with pytest.raises(ImagesError, match="can be read in two ways") as error:
            folders.read(root, Asked(groups=groups))
        assert "--layout class/signer or --layout signer/class" in str(error.value)


def test_a_level_that_may_be_the_signers_is_said(tmp_path: Path) -> None:
    letters = "abcdefghij"
    root = touch(tmp_path, *(f"{a}/{b}/1.png" for a in letters for b in ("ada", "ben")))
    found = folders.read(root)
    assert found.layout == (
        "class: 10 classes (level 1: a, b, c and 7 more); not looked at: level 2 (ada, ben), which "
        "--groups signer takes for the signers"
    )
    assert folders.read(root, Asked(groups="signer")).signer == ["ada", "ben"] * 10


def test_signers_that_nothing_names_are_refused(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.png", "b/1.png")
    with pytest.raises(ImagesError, match="name no signers: they are read as class"):
        folders.read(root, Asked(groups="signer"))


def test_a_folder_of_images_is_one_sample(tmp_path: Path, write_image: Writer) -> None:
    root = tmp_path / "pairs"
    for name in (
        "a/s1/2.png",
        "a/s1/1.png",
        "a/s2/x.png",
        "a/s2/y.png",
        "b/s1/1.png",
        "b/s1/2.png",
    ):
        write_image(root / name)
    images = open_images(root, layout="class/sample", groups="none")
    assert images.sample_id == ["a/s1", "a/s2", "b/s1"]
    assert [images.class_names[k] for k in images.label] == ["a", "a", "b"]
    assert images.files is not None
    assert images.files[0] == ("a/s1/1.png", "a/s1/2.png")  # in order of their names
    assert images.images_per_sample == images.describe()["images_per_sample"] == 2
    first, second = images.load_all(0)
    assert first.tobytes() == Image.open(root / "a/s1/1.png").tobytes()
    assert images.load(0).size == (first.width + second.width, first.height)
    greys = [grey_pixels(one).astype(float) for one in (first, second)]
    assert abs(images.pixels[0] - sum(greys) / 2).max() <= 0.5
    assert len({*images.image_sha256}) == 3
    write_image(root / "a/s1/2.png", (5, 5))
    with pytest.raises(ImagesError, match=r"2\.png has changed since it was listed"):
        images.load_all(0)


def test_samples_have_as_many_images_each(tmp_path: Path) -> None:
    root = touch(tmp_path / "pairs", "a/s1/1.png", "a/s1/2.png", "b/s1/1.png")
    says = r"b/s1 in .* holds 1 image, but a/s1 2; every sample .* as many images"
    with pytest.raises(ImagesError, match=says):
        folders.read(root, Asked("class/sample"))
    touch(root, "b/1.png")
    with pytest.raises(ImagesError, match=r"b/1\.png in .* has no sample folder"):
        folders.read(root, Asked("class/sample"))


def test_an_unusable_image_makes_its_sample_unusable(tmp_path: Path, write_image: Writer) -> None:
    root = tmp_path / "pairs"
    for name in (
        "a/s1/1.png",
        "a/s1/2.png",
        "a/s2/1.png",
        "a/s2/2.png",
        "b/s1/1.png",
        "b/s1/2.png",
    ):
        write_image(root / name)
    (root / "a/s2/2.png").write_bytes(b"no image")
    images = open_images(root, layout="class/sample", groups="none")
    assert images.sample_id == ["a/s1", "b/s1"]
    ((name, reason),) = images.skipped
    assert name == "a/s2"
    assert reason.startswith("(2.png) ")
