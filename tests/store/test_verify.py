"""``signbridge verify``: what it prints and its exit status."""

import os
import shutil

import h5py
import pytest

from signbridge.cli.main import main
from signbridge.errors import StoreError
from signbridge.store import StoreWriter, verify_store


@pytest.fixture(scope="module")
def whole(producer, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "store.h5"
    producer.produce(str(path), n=200)
    return path


def flip(path, name, *rows):
    with h5py.File(path) as h5:
        offsets = [h5[name].id.get_chunk_info_by_coord((row, 0, 0)).byte_offset for row in rows]
    data = bytearray(path.read_bytes())
    for offset in offsets:
        data[offset + 3] ^= 1
    path.write_bytes(data)


def test_a_whole_store_is_status_0(whole, capsys):
    assert main(["verify", str(whole)]) == 0
    assert capsys.readouterr().out == f"{whole}: whole\n"


@pytest.mark.parametrize(("rows", "count"), [((64,), "1 problem"), ((0, 128), "2 problems")])
def test_damage_is_status_1_and_says_where(rows, count, whole, tmp_path, capsys):
    path = tmp_path / "s.h5"
    shutil.copyfile(whole, path)
    flip(path, "resid_post", *rows)
    assert main(["verify", str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{path}: {count}"
    for row, line in zip(rows, lines):
        where = f"resid_post, rows {row} to {row + 63}, layer index 0"
        assert line == f"{where}: its values do not match their checksum"


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_store_that_is_cut_off_is_status_1(share, whole, tmp_path, capsys):
    path = tmp_path / "s.h5"
    path.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    assert main(["verify", str(path)]) == 1
    assert "1 problem" in capsys.readouterr().out


def test_a_store_with_a_damaged_head_is_status_1(whole, tmp_path, capsys):
    for byte in (0, 3, 8, 20):  # of the signature and of the superblock
        path = tmp_path / f"{byte}.h5"
        data = bytearray(whole.read_bytes())
        data[byte] ^= 0xFF
        path.write_bytes(data)
        assert main(["verify", str(path)]) == 1, byte
    assert capsys.readouterr().err == ""


def _newer(path):
    with h5py.File(path, "r+") as h5:
        h5.attrs["format_version"] = "2.0"


def _other_hdf5(path):
    with h5py.File(path, "w") as h5:
        h5["x"] = [1]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_text("signbridge-activations"), "not an HDF5 file"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (_other_hdf5, "not an activation store"),
        (_newer, "version 2.0, newer than 1.2"),
        (lambda path: path.unlink(), "There is no activation store"),
        (lambda path: (path.unlink(), path.mkdir()), "is a folder"),
    ],
)
def test_what_cannot_be_checked_is_status_2_and_one_sentence(make, words, whole, tmp_path, capsys):
    path = tmp_path / "s.h5"
    shutil.copyfile(whole, path)
    make(path)
    assert main(["verify", str(path)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert said.err.count("\n") == 1
    with pytest.raises(StoreError):
        verify_store(path)


def test_an_unfinished_store_is_status_2(producer, tmp_path, capsys):
    spec, samples, provenance, _ = producer.inputs(n=4)
    StoreWriter(tmp_path / "s.h5", spec, samples, provenance).close()
    assert main(["verify", str(tmp_path / "s.h5")]) == 2
    assert "not finished yet" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="permissions are those of POSIX")
def test_a_file_that_may_not_be_read_is_status_2(whole, tmp_path, capsys):
    path = tmp_path / "s.h5"
    shutil.copyfile(whole, path)
    path.chmod(0)
    root = os.geteuid() == 0
    if root:
        pytest.importorskip("pwd")
        os.seteuid(65534)
    try:
        assert main(["verify", str(path)]) == 2
    finally:
        if root:
            os.seteuid(0)
    said = capsys.readouterr().err
    assert "permission" in said
    assert said.count("\n") == 1


def test_progress_counts_every_block(whole):
    seen = []
    assert verify_store(whole, lambda done, total: seen.append((done, total))) == []
    assert seen[-1][0] == seen[-1][1] > 20
    assert seen == sorted(seen)
