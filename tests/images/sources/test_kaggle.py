from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signbridge.errors import ImagesError
from signbridge.images import open_images
from signbridge.images.sources import kaggle
from signbridge.images.sources.kaggle import read_csv

HEADER = ",".join(["label", *(f"pixel{i}" for i in range(1, 785))])
Writer = Callable[..., Path]


def row(label: object, *changed: tuple[int, object]) -> str:
    values: list[object] = [label, *([7] * 784)]
    for column, value in changed:
        values[column] = value
    return ",".join(map(str, values))


def test_rows_come_back_to_the_letter(write_csv: Writer) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 784))
    labels = [0, 1, 8, 10, 24] * 10
    read_labels, read_pixels = read_csv(write_csv(labels, pixels=pixels))
    assert read_labels.tolist() == labels
    assert read_pixels.dtype == np.uint8
    np.testing.assert_array_equal(read_pixels, pixels)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (row(3, (17, 256)), "line 4: pixel17 is 256, outside 0 to 255"),
        (row(3, (784, -1)), "line 4: pixel784 is -1, outside 0 to 255"),
        (row(3, (1, "10.5")), "line 4: pixel1 is '10.5', not a whole number"),
        (row(3, (1, "")), "line 4: pixel1 is '', not a whole number"),
        (row(3, (1, "nan")), "line 4: pixel1 is 'nan', not a whole number"),
        (row(3, (1, "9" * 40)), "line 4: pixel1 is 9999999999999999999999999999"),
        (row("A"), "line 4: label is 'A', not a whole number"),
        (row(9), "line 4: label 9 is J, which needs motion"),
        (row(25), "line 4: label 25 is Z, which needs motion"),
        (row(26), "line 4: label 26 is outside 0 to 24"),
        (row(-1), "line 4: label -1 is outside 0 to 24"),
        (row(3) + ",1", "line 4: 786 values instead of 785"),
        (row(3).rpartition(",")[0], "line 4: 784 values instead of 785"),
        ("3", "line 4: 1 values instead of 785"),
    ],
)
def test_a_bad_line_is_named(line: str, message: str, write_csv: Writer) -> None:
    path = write_csv([0, 1, 2, 3], lines={4: line})
    with pytest.raises(ImagesError, match=re.escape(f"{path}, {message}")):
        open_images(path)


@pytest.mark.parametrize(
    "header",
    ["", HEADER[6:], HEADER.replace("label", "class"), HEADER + ",x", row(3), "\x89PNG\r\n\x1a\n"],
)
def test_a_wrong_header_is_named(header: str, write_csv: Writer) -> None:
    path = write_csv([0, 1], header=header)
    with pytest.raises(ImagesError, match=f"{path} is no Sign Language MNIST CSV: line 1 must be"):
        open_images(path)


@pytest.mark.parametrize("content", [b"", b"\x00\xff" * 1000, HEADER.encode("utf-16")])
def test_a_file_that_is_no_csv(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    with pytest.raises(ImagesError, match="is no Sign Language MNIST CSV"):
        open_images(path)


def test_a_csv_without_rows(write_csv: Writer) -> None:
    with pytest.raises(ImagesError, match="has a header and no rows"):
        open_images(write_csv([]))


def test_what_spreadsheets_do_to_a_csv_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    quoted = ",".join(f'"{column}"' for column in HEADER.split(","))
    path.write_bytes(("﻿" + "\r\n".join([quoted, row(0), "", row(1), ""])).encode())
    labels, pixels = read_csv(path)
    assert labels.tolist() == [0, 1]
    assert (pixels == 7).all()


def test_numbers_in_quotes_and_with_a_point_are_numbers(write_csv: Writer) -> None:
    lines = [row('"3"'), row("3.0", (5, '"9"')), row('"4.00"', (784, "0.0")), row("+5")]
    labels, pixels = read_csv(write_csv([0] * 5, lines=dict(enumerate(lines, start=3))))
    assert labels.tolist() == [0, 3, 3, 4, 5]
    assert (pixels[2, 4], pixels[3, 783], pixels[3, 0]) == (9, 0, 7)


@pytest.mark.parametrize("value", ["3.5", '"3', '3"', '"3""', ".0", "3.", '"A"', "3e0", "3.0.0"])
def test_what_is_no_whole_number_stays_none(value: str, write_csv: Writer) -> None:
    with pytest.raises(ImagesError, match=r"line 3: label is .*, not a whole number"):
        read_csv(write_csv([0, 1], lines={3: row(value)}))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([*range(1, 10), *range(11, 26)], "no label is 0 or 10, so these seem to count from A = 1"),
        (list(range(24)), "no label is above 23, so these seem to count without the gap at J"),
        ([0, 9, 24], "with the gap at J."),
    ],
)
def test_how_labels_that_cannot_be_right_were_counted_is_said(
    labels: list[int], words: str, write_csv: Writer
) -> None:
    with pytest.raises(ImagesError, match="label 9 is J, which needs motion") as error:
        read_csv(write_csv(labels))
    assert words in str(error.value)


def test_labels_that_may_count_from_one_are_said(write_csv: Writer) -> None:
    notes = kaggle.read(write_csv([1, 2, 3])).notes
    assert notes == [
        "No label is 0: label 1 is read as B, counting from A = 0; if the labels count from A = 1, "
        "subtract 1 from each."
    ]
    assert kaggle.read(write_csv([0, 2, 3])).notes == []


def test_an_unreadable_csv(write_csv: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_csv([0, 1])

    def refuse(self: Path, *_: object, **__: object) -> io.BytesIO:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImagesError, match="cannot be read \\(Permission denied\\)"):
        open_images(path)


@given(
    position=st.integers(0, 2 * 1570 + 20),
    inserted=st.sampled_from(list(",\n\r .-+0159eEx\"'#;\t\x00é")),
    removed=st.integers(0, 2),
)
@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_damaged_row_is_read_as_python_reads_it_or_named(
    position: int, inserted: str, removed: int, tmp_path: Path
) -> None:
    body = "\n".join([row(3), row(4)]) + "\n"
    body = body[:position] + inserted + body[position + removed :]
    path = tmp_path / "x.csv"
    path.write_text(HEADER + "\n" + body, encoding="utf-8", newline="")
    message = ""
    try:
        labels, pixels = read_csv(path)
    except ImagesError as error:
        message = str(error)
    if message:
        assert re.search(r"x\.csv, line \d+: ", message)
        return
    text = body.replace("\r\n", "\n").replace("\r", "\n")
    expected = [[int(value) for value in line] for line in csv.reader(io.StringIO(text)) if line]
    assert np.column_stack([labels, pixels]).tolist() == expected


def test_ids_and_splits_follow_the_file_name(write_csv: Writer) -> None:
    for name, split, prefix in [
        ("sign_mnist_train.csv", "train", "train"),
        ("sign_mnist_test.csv", "test", "test"),
        ("sign_mnist_train_sample.csv", "train", "train"),
        ("latest-trainers.csv", "", "latest-trainers"),
        ("train_or_test.csv", "", "train_or_test"),
    ]:
        found = kaggle.read(write_csv([0, 1], name=name))
        assert found.sample_id == [f"{prefix}/0", f"{prefix}/1"]
        assert found.source_split == [split, split]
        assert found.name == Path(name).stem


def test_a_folder_gives_the_training_part_first(write_csv: Writer) -> None:
    write_csv([24, 0], name="sign_mnist_test.csv")
    write_csv([10, 1, 0], name="sign_mnist_train.csv")
    folder = write_csv([5], name="sign_mnist_train_sample.csv").parent
    images = open_images(folder)
    assert images.name == "sign-language-mnist"
    assert images.sample_id == ["train/0", "train/1", "train/2", "test/0", "test/1"]
    assert images.source_split == ["train"] * 3 + ["test"] * 2
    assert [images.class_names[i] for i in images.label] == ["K", "B", "A", "Y", "A"]
    assert any("sign_mnist_train_sample.csv left out" in note for note in images.notes)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_folder_with_one_part(part: str, write_csv: Writer) -> None:
    folder = write_csv([0, 1], name=f"sign_mnist_{part}.csv").parent
    assert open_images(folder).source_split == [part, part]


def test_the_folders_that_unpacking_makes(write_csv: Writer, tmp_path: Path) -> None:
    write_csv([0, 1], name="sign_mnist_train/sign_mnist_train.csv")
    write_csv([0, 1], name="sign_mnist_test/sign_mnist_test.csv")
    assert open_images(tmp_path).sample_id == ["train/0", "train/1", "test/0", "test/1"]


def test_the_size_of_the_official_file_takes_seconds(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("\n".join([HEADER, *[row(5, (400, 200))] * 34_627]))
    start = time.perf_counter()
    labels, pixels = read_csv(path)
    assert time.perf_counter() - start < 15  # one second on an idle machine
    assert pixels.shape == (34_627, 784)
    assert (labels == 5).all()
    assert (pixels[:, 399] == 200).all()
