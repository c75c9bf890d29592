"""A disk that is full, read-only or gone: one sentence, and what was finished stays."""

import errno
import io
import os
import shutil
import subprocess

import pytest

from signbridge.errors import StoreError
from signbridge.runtime.files import temporary_name
from signbridge.store import StoreWriter, files, open_store
from signbridge.store.shards import ShardRows
from signbridge.store.verify import check_store


class FailingFile(io.FileIO):
    """A file whose system runs out of something after so many bytes."""

    left = 0
    code = errno.ENOSPC

    def write(self, data):
        if type(self).left <= 0:
            raise OSError(self.code, os.strerror(self.code))
        written = super().write(data[: type(self).left])
        type(self).left -= written
        return written


@pytest.fixture
def failing(monkeypatch):
    """Let writing fail after ``left`` bytes."""

    def fail(left, code=errno.ENOSPC, only=""):
        FailingFile.left, FailingFile.code = left, code

        def opener(path):
            return (FailingFile if only in path.name else io.FileIO)(path, "x+")

        monkeypatch.setattr(StoreWriter, "_opener", staticmethod(opener))

    return fail


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "is full"),
        (errno.EDQUOT, "quota"),
        (errno.EIO, "Input/output error"),
        (errno.EROFS, "read-only"),
    ],
)
@pytest.mark.parametrize("left", [0, 100, 3000, 5000])
def test_a_disk_that_fails_in_a_shard(code, words, left, failing, producer, make_store, tmp_path):
    reference = make_store("reference.h5", n=60).read_bytes()
    spec, samples, provenance, data = producer.inputs(n=60)
    path = tmp_path / "s.h5"
    with StoreWriter(path, spec, samples, provenance, shard_size=16) as writer:
        writer.write_shard(0, producer.rows(data, 0, 16))
        failing(left, code)
        with pytest.raises(StoreError, match=words) as error:
            writer.write_shard(1, producer.rows(data, 16, 32))
        assert "what was finished is kept" in str(error.value)
        assert "\n" not in str(error.value)
        names = {p.name for p in (tmp_path / "s.h5.parts").iterdir()}
        assert names == {"lock", "plan.json", "shard-00000.h5", "shard-00000.json"}
        failing(10**9)
        assert [s.index for s in writer.pending()] == [1, 2, 3]
    producer.produce(str(path), n=60)
    assert path.read_bytes() == reference


@pytest.mark.parametrize("left", [0, 1000, *range(2000, 60_000, 4000)])
def test_a_disk_that_fails_while_consolidating(left, failing, producer, make_store, tmp_path):
    reference = make_store("reference.h5", n=150).read_bytes()
    spec, samples, provenance, data = producer.inputs(n=150)
    path = tmp_path / "s.h5"
    with StoreWriter(path, spec, samples, provenance, producer.info(), shard_size=16) as writer:
        fill(writer, producer, data)
    with StoreWriter(path, spec, samples, provenance, producer.info(), shard_size=16) as writer:
        failing(left)
        with pytest.raises(StoreError, match="is full"):
            writer.consolidate()
        assert sorted(p.name for p in tmp_path.iterdir()) == ["reference.h5", "s.h5.parts"]
        failing(10**9)
        assert writer.pending() == []
        writer.consolidate()
    assert path.read_bytes() == reference


@pytest.mark.parametrize("left", [0, 2000, 20_000, 50_000])
def test_a_disk_that_fails_once_in_the_growing_file(left, failing, producer, make_store, tmp_path):
    """The file is made anew at the end, from the same shards."""
    reference = make_store("reference.h5", n=150).read_bytes()
    spec, samples, provenance, data = producer.inputs(n=150)
    path = tmp_path / "s.h5"
    with StoreWriter(path, spec, samples, provenance, producer.info(), shard_size=16) as writer:
        failing(left, only="s.h5.tmp-")
        fill(writer, producer, data)
        failing(10**9)
        writer.consolidate()
    assert path.read_bytes() == reference
    assert sorted(p.name for p in tmp_path.iterdir()) == ["reference.h5", "s.h5"]


def test_the_file_grows_while_shards_are_written(producer, tmp_path, monkeypatch):
    """After the last shard only its own rows are left to be read."""
    spec, samples, provenance, data = producer.inputs(n=300)
    path = tmp_path / "s.h5"
    starts = []
    rows = ShardRows.rows
    with StoreWriter(path, spec, samples, provenance, producer.info(), shard_size=64) as writer:
        *early, last = writer.pending()
        for shard in early:
            writer.write_shard(shard.index, producer.rows(data, shard.start, shard.stop))
        writer._growing._adding.result()
        monkeypatch.setattr(
            ShardRows, "rows", lambda self, v, a, b, k: starts.append(a) or rows(self, v, a, b, k)
        )
        writer.write_shard(last.index, producer.rows(data, last.start, last.stop))
        writer.consolidate()
    assert set(starts) == {last.start}
    with open_store(path, verify="full") as store:
        assert len(store) == 300


def fill(writer, producer, data):
    for shard in writer.pending():
        writer.write_shard(shard.index, producer.rows(data, shard.start, shard.stop))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB of its own, where we may make one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        done = None
    if done is None or done.returncode:
        pytest.skip("mounting a small file system needs root; the failing files above stand in")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_real_full_disk(small_disk, producer, make_store, monkeypatch, tmp_path):
    what = {"n": 150, "hidden": 1024, "layers": (0, 1, 2)}  # 0.9 MB, and as much for the shards
    reference = make_store("reference.h5", shard_size=64, **what)
    spec, samples, provenance, data = producer.inputs(**what)
    path = small_disk / "s.h5"
    ballast = small_disk / "ballast"

    # Before the start: refused, and nothing is left behind.
    with pytest.raises(StoreError, match=r"not enough room .* needed and .* free"):
        StoreWriter(path, spec, samples, provenance)
    assert list(small_disk.iterdir()) == []

    # In the middle of the shards.
    monkeypatch.setattr(files, "SPACE_RESERVE", 0)
    with StoreWriter(path, spec, samples, provenance, producer.info(), shard_size=16) as writer:
        ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - 400_000))
        with pytest.raises(StoreError, match="is full"):
            fill(writer, producer, data)
        assert 0 < len(writer.pending()) < len(writer.shards)

    # While consolidating.
    ballast.unlink()
    with StoreWriter(path, spec, samples, provenance, producer.info()) as writer:
        fill(writer, producer, data)
    with StoreWriter(path, spec, samples, provenance, producer.info()) as writer:
        ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - 300_000))
        with pytest.raises(StoreError, match="not enough room"):
            writer.consolidate()
        monkeypatch.setattr(files, "check_space", lambda *_: None)  # another program was faster
        with pytest.raises(StoreError, match="is full"):
            writer.consolidate()
        assert writer.pending() == []
        ballast.unlink()
        writer.consolidate()
    assert path.read_bytes() == reference.read_bytes()


def test_a_read_only_file_system(small_disk, producer, monkeypatch):
    monkeypatch.setattr(files, "SPACE_RESERVE", 0)
    path = small_disk / "s.h5"
    producer.produce(str(path), n=40)
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(remount, check=True, capture_output=True)
    spec, samples, provenance, _ = producer.inputs(n=40)
    with open_store(path, verify="full") as store:  # reading needs no writing
        assert store.layer(0).shape == (40, 12)
    with StoreWriter(path, spec, samples, provenance) as writer:
        assert writer.complete
    with pytest.raises(StoreError, match="read-only"):
        StoreWriter(small_disk / "other.h5", spec, samples, provenance)
    with pytest.raises(StoreError, match="read-only"):
        StoreWriter(path, spec, samples, provenance, overwrite=True)


def test_a_folder_that_vanishes(producer, tmp_path):
    spec, samples, provenance, data = producer.inputs(n=40)
    (tmp_path / "sub").mkdir()
    writer = StoreWriter(tmp_path / "sub" / "s.h5", spec, samples, provenance, shard_size=16)
    shutil.rmtree(tmp_path / "sub")
    with pytest.raises(StoreError, match="vanished"):
        writer.write_shard(0, producer.rows(data, 0, 16))
    with pytest.raises(StoreError, match="missing"):
        writer.consolidate()
    writer.close()


def test_an_output_that_cannot_be_a_file(producer, tmp_path):
    spec, samples, provenance, _ = producer.inputs(n=4)
    with pytest.raises(StoreError, match="is a folder"):
        StoreWriter(tmp_path, spec, samples, provenance)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="mixed up"):
        StoreWriter(tmp_path / "file" / "s.h5", spec, samples, provenance)
    (tmp_path / "text.h5").write_text("mine")
    with pytest.raises(StoreError, match=r"not an HDF5 file.*choose another output file"):
        StoreWriter(tmp_path / "text.h5", spec, samples, provenance)
    assert (tmp_path / "text.h5").read_text() == "mine"


@pytest.mark.skipif(os.name == "nt", reason="permissions are those of POSIX")
def test_a_folder_without_permission(producer, tmp_path):
    spec, samples, provenance, _ = producer.inputs(n=4)
    tmp_path.chmod(0o500)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # root may write everywhere, so become nobody
    try:
        with pytest.raises(StoreError, match="permission"):
            StoreWriter(tmp_path / "s.h5", spec, samples, provenance)
    finally:
        if root:
            os.seteuid(0)
        tmp_path.chmod(0o700)


def test_a_reader_does_not_keep_a_store_from_being_replaced(producer, make_store):
    path = make_store("s.h5", n=40)
    with open_store(path) as store:
        before = store.layer(0)
        spec, samples, provenance, data = producer.inputs(n=50)
        with StoreWriter(path, spec, samples, provenance, overwrite=True) as writer:
            writer.write_shard(0, data)
            writer.consolidate()
        assert (store.layer(0) == before).all()  # the old file, until it is closed
    assert open_store(path).n_samples == 50


def test_temporary_files_of_killed_processes_are_removed(producer, make_store, tmp_path):
    path = tmp_path / "s.h5"
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = temporary_name(path)
    stale = left.with_name(left.name.replace(f"-{os.getpid()}-", f"-{dead.pid}-"))
    alive = left.with_name(left.name.replace(f"-{os.getpid()}-", f"-{os.getppid()}-"))
    stale.write_text("x")
    alive.write_text("x")
    make_store("s.h5", n=20)
    assert not stale.exists()
    assert alive.exists()
    assert check_store(path) == []
