"""The user's own split, read from a file."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import PredefinedSplit

from signbridge.errors import ProbeError
from signbridge.probes.dataset.split_file import read_split_file
from signbridge.probes.dataset.splits import Split, make_split

IDS = [f"train/{k}" for k in range(8)]


def write(path, rows, header="sample_id,fold"):
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows), ""]))
    return path


def test_words_make_one_hold_out(tmp_path):
    rows = [(name, word) for name, word in zip(IDS, ["train", "test"] * 3 + ["", "ignore"])]
    ((train, test),) = read_split_file(write(tmp_path / "s.csv", rows), IDS)
    assert (train.tolist(), test.tolist()) == ([0, 2, 4], [1, 3, 5])


def test_a_table_saved_by_a_spreadsheet_is_read(tmp_path):
    rows = "".join(f'"{name}", {k % 2}\r\n' for k, name in enumerate(IDS))
    (tmp_path / "s.csv").write_bytes(f"\ufeffsample_id,fold\r\n{rows}\r\n".encode())
    folds = read_split_file(tmp_path / "s.csv", IDS)
    assert [test.tolist() for _, test in folds] == [[0, 2, 4, 6], [1, 3, 5, 7]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; its first line is sample_id,fold"),
        ("id,fold\ntrain/0,1\n", "begins with 'id,fold'"),
        ("sample_id,fold,extra\n", "begins with 'sample_id,fold,extra'"),
        ("sample_id,fold\n", "has no line for 8 of 8 samples, the first of them 'train/0'"),
        ("sample_id,fold\ntrain/0,1,2\n", "line 2: 3 values instead of two"),
        ("sample_id,fold\ntrain/0\n", "line 2: 1 value instead of two"),
        ("sample_id,fold\ntrain/99,1\n", "line 2: the store has no sample 'train/99'"),
        ("sample_id,fold\ntrain/0,1\ntrain/0,1\n", "line 3: sample 'train/0' is in line 2 already"),
        ("sample_id,fold\ntrain/0,-1\n", "line 2: fold is '-1'; write a whole number"),
        ("sample_id,fold\ntrain/0,1.5\n", "line 2: fold is '1.5'"),
        ("sample_id,fold\ntrain/0,²\n", "line 2: fold is '²'"),
        ("sample_id,fold\ntrain/0,training\n", "line 2: fold is 'training'"),
        ("sample_id,fold\ntrain/0,1\ntrain/1,test\n", "line 3: fold is 'test' here and 1 above"),
        ('sample_id,fold\n"train/0\n', "line 2: 1 value instead of two"),
    ],
)
def test_files_that_cannot_be_used(text, message, tmp_path):
    (tmp_path / "s.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ProbeError, match=message) as error:
        read_split_file(tmp_path / "s.csv", IDS)
    assert "\n" not in str(error.value)
    assert "s.csv" in str(error.value)


@pytest.mark.parametrize(
    ("fold", "message"),
    [(3, "holds only the fold 3"), ("train", "holds only the fold train"), ("", "no fold at all")],
)
def test_files_with_fewer_than_two_parts(fold, message, tmp_path):
    with pytest.raises(ProbeError, match=message):
        read_split_file(write(tmp_path / "s.csv", [(name, fold) for name in IDS]), IDS)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ProbeError, match=r"nowhere.csv cannot be read \(No such file"):
        read_split_file(tmp_path / "nowhere.csv", IDS)
    with pytest.raises(ProbeError, match="cannot be read"):
        read_split_file(tmp_path, IDS)
    for device in ("/dev/zero", "/dev/stdin"):
        with pytest.raises(ProbeError, match=r"cannot be read \(it is a pipe or a device\)"):
            read_split_file(device, IDS)
    (tmp_path / "latin.csv").write_bytes("sample_id,fold\nfrüh,1\n".encode("latin-1"))
    with pytest.raises(ProbeError, match="no UTF-8 text"):
        read_split_file(tmp_path / "latin.csv", IDS)
    with pytest.raises(ProbeError, match="fewer than two classes"):
        rows = [(name, k % 2) for k, name in enumerate(IDS)]
        make_split(
            np.arange(8) % 2,
            split="file",
            sample_ids=IDS,
            split_file=write(tmp_path / "s.csv", rows),
        )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["", "ignore", 0, 1, 2, 30]), min_size=8, max_size=8))
def test_numbers_are_scikit_learns_predefined_folds(tmp_path_factory, folds):
    file = write(tmp_path_factory.mktemp("s") / "s.csv", zip(IDS, folds))
    used = np.array([isinstance(fold, int) for fold in folds])
    numbers = np.array([fold if isinstance(fold, int) else -1 for fold in folds])
    try:
        made = read_split_file(file, IDS)
    except ProbeError:
        assert len(np.unique(numbers[used])) < 2
        return
    rows = np.flatnonzero(used)
    theirs = [(rows[a], rows[b]) for a, b in PredefinedSplit(numbers[used]).split()]
    assert len(made) == len(theirs)
    for (train, test), (a, b) in zip(made, theirs, strict=True):
        np.testing.assert_array_equal(train, a)
        np.testing.assert_array_equal(test, b)
    np.testing.assert_array_equal(Split("file", tuple(made), 8).used, rows)
