"""What an output file may be: ours to replace, or refused; said before the work."""

import os
import stat

import h5py
import pytest

from signbridge.errors import StoreError
from signbridge.store import StoreWriter, open_store
from signbridge.store.merge import merge_stores
from signbridge.store.output import check_output, is_store


def text(path):
    path.write_text("somebody's signbridge-activations")


def empty(path):
    path.touch()


def other_hdf5(path):
    with h5py.File(path, "w") as file:
        file.attrs["format"] = "signbridge-predictions"
        file.attrs["note"] = "signbridge-activations"


def image(path):
    path.write_bytes(b"\x89PNG\r\n\x1a\n signbridge-activations")


def pipe(path):
    os.mkfifo(path)


def device(path):
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except (PermissionError, AttributeError):
        pytest.skip("a device node is for root to make")


def folder(path):
    path.mkdir()
    (path / "notes.txt").write_text("mine")


def link(path):
    text(path.with_name("target"))
    path.symlink_to("target")


def dangling_link(path):
    path.symlink_to("nowhere")


def round_link(path):
    path.symlink_to(path.name)


def link_to_a_store(path):
    path.with_name("s.h5").rename(path.with_name("t.h5"))
    path.symlink_to("t.h5")


FOREIGN = [text, empty, other_hdf5, image, pipe, device, folder, link, dangling_link, round_link]


def state(folder):
    """Every file by its kind and content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        what = path.read_bytes() if stat.S_ISREG(mode) else None
        found[path.name] = stat.S_IFMT(mode), what, path.is_symlink() and path.readlink()
    return found


@pytest.mark.parametrize("make", [*FOREIGN, link_to_a_store])
def test_what_is_no_store_is_never_replaced(producer, make_store, tmp_path, make):
    a, b = make_store("s.h5", n=4), make_store("u.h5", n=4, first=4)
    target = tmp_path / "out.h5"
    make(target)
    a = a if a.exists() else tmp_path / "t.h5"
    before = state(tmp_path)
    spec, samples, provenance, _ = producer.inputs(n=5)
    words = "is a folder|is no regular file|is not an activation store|is a link to"
    with pytest.raises(StoreError, match=words) as caught:
        check_output(target, overwrite=True)
    assert str(caught.value).count("\n") == 0
    with pytest.raises(StoreError, match=words):
        StoreWriter(target, spec, samples, provenance, overwrite=True)
    with pytest.raises(StoreError):
        StoreWriter(target, spec, samples, provenance)
    with pytest.raises(StoreError, match=rf"{words}|is one of the stores"):
        merge_stores([a, b], target, overwrite=True)
    with pytest.raises(StoreError) as caught:
        merge_stores([a, b], target)
    assert "--overwrite true" not in str(caught.value)
    assert state(tmp_path) == before


@pytest.mark.parametrize("size", [None, 2000, 0.5, -1])
def test_a_store_is_ours_whole_or_cut_off(make_store, size):
    path = make_store("s.h5", n=40)
    content = path.read_bytes()
    if size is not None:
        path.write_bytes(content[: int(size * len(content)) if size == 0.5 else size])
    assert is_store(path)
    check_output(path, overwrite=True)


def test_a_store_behind_a_link_is_found_complete_but_not_replaced(producer, make_store, tmp_path):
    make_store("s.h5", n=4)
    (tmp_path / "link.h5").symlink_to("s.h5")
    spec, samples, provenance, _ = producer.inputs(n=4)
    with StoreWriter(tmp_path / "link.h5", spec, samples, provenance) as writer:
        assert writer.complete
    with pytest.raises(StoreError, match=r"link\.h5 is a link to s\.h5 and would be replaced"):
        StoreWriter(tmp_path / "link.h5", spec, samples, provenance, overwrite=True)


def test_what_else_lies_in_the_folder_of_parts_stays(producer, tmp_path):
    parts = tmp_path / "s.h5.parts"
    (parts / "folder").mkdir(parents=True)
    for name in ("notes.txt", "shard-1.h5", "folder/shard-00000.h5"):
        (parts / name).write_text("mine")
    before = state(parts)
    spec, samples, provenance, data = producer.inputs(n=4)
    with StoreWriter(tmp_path / "s.h5", spec, samples, provenance, overwrite=True) as writer:
        writer.write_shard(0, data)
        writer.consolidate()
    with open_store(tmp_path / "s.h5") as store:
        assert store.n_samples == 4
    assert state(parts) == before


@pytest.mark.parametrize("length", [240, 252, 254, 255, 300])
def test_a_name_that_is_too_long_is_refused_before_the_work(tmp_path, length):
    with pytest.raises(StoreError, match=r"The name of .* is too long for its file system"):
        check_output(tmp_path / ("n" * (length - 3) + ".h5"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["d/" * 2100 + "s.h5", "n" * 300 + "/s.h5", "n/" + "m" * 300])
def test_a_path_that_is_too_long_is_refused_before_the_work(tmp_path, name):
    with pytest.raises(StoreError, match="is too long for its file system") as caught:
        check_output(tmp_path / name)
    assert len(str(caught.value)) < 400


def test_a_name_of_200_characters_is_taken(producer, tmp_path):
    path = tmp_path / ("n" * 197 + ".h5")
    check_output(path)
    spec, samples, provenance, data = producer.inputs(n=4)
    with StoreWriter(path, spec, samples, provenance) as writer:
        writer.write_shard(0, data)
        writer.consolidate()
    check_output(path.with_name("new") / "folder" / "s.h5")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_parent_that_is_a_file_or_may_not_be_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match="mixed up"):
        check_output(tmp_path / "file" / "s.h5")
    with pytest.raises(StoreError, match="mixed up"):
        check_output(tmp_path / "file" / "below" / "s.h5")
    root = os.geteuid() == 0
    tmp_path.chmod(0o555)
    if root:
        os.seteuid(65534)  # root may write everywhere, so become nobody
    try:
        for name in ("s.h5", "new/s.h5"):
            with pytest.raises(StoreError, match="permission"):
                check_output(tmp_path / name)
    finally:
        if root:
            os.seteuid(0)
        tmp_path.chmod(0o700)
