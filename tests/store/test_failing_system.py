"""Every call to the system may fail: one sentence, and the same command goes on from there."""

import errno
import io
import os
import pathlib
import random
import shutil
import tempfile

import pytest

from signbridge.errors import StoreError
from signbridge.store import StoreWriter, files, open_store
from signbridge.store.verify import check_store

SIZE = {"n": 90, "shard_size": 20}
CODES = {errno.ENOSPC: "is full", errno.EDQUOT: "quota", errno.EIO: "Input/output error"}


class Failing:
    """Lets the ``number``-th write, fsync, rename, opening or making of a folder fail."""

    def __init__(self, patch, number, code):
        self.count, self.number, self.code, self.where = 0, number, code, None
        for name in ("fsync", "replace", "open", "mkdir"):
            patch.setattr(os, name, self._counted(getattr(os, name), name))
        opened = pathlib.Path.open

        def open_path(path, mode="r", *args, **kwargs):
            if "w" in mode or "a" in mode:
                self._step("open to write")
            return opened(path, mode, *args, **kwargs)

        patch.setattr(pathlib.Path, "open", open_path)
        outer = self

        class File(io.FileIO):
            def write(self, data):
                outer._step("write")
                return super().write(data)

        def opener(path):
            self._step("open")
            return File(path, "x+")

        patch.setattr(StoreWriter, "_opener", staticmethod(opener))

    def _step(self, name):
        self.count += 1
        if self.count == self.number:
            self.where = name
            raise OSError(self.code, os.strerror(self.code))

    def _counted(self, function, name):
        def call(*args, **kwargs):
            self._step(name)
            return function(*args, **kwargs)

        return call


@pytest.fixture
def folder(tmp_path):
    if not pathlib.Path("/dev/shm").is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="signbridge-") as name:
        yield pathlib.Path(name)


def fail_everywhere(share, seed, keep_shards, folder, producer, monkeypatch):
    what = {**SIZE, "keep_shards": keep_shards}
    (folder / "whole").mkdir()
    producer.produce(str(folder / "whole" / "s.h5"), **what)
    whole = (folder / "whole" / "s.h5").read_bytes()
    with monkeypatch.context() as patch:
        counting = Failing(patch, 0, 0)
        producer.produce(str(folder / "counted.h5"), **what)
    assert counting.count > 60
    rng, failed = random.Random(seed), 0
    for number in range(1, counting.count + 1):
        if rng.random() > share:
            continue
        place = folder / f"{number}"
        path = place / "s.h5"
        code = rng.choice(sorted(CODES))
        with monkeypatch.context() as patch:
            failing = Failing(patch, number, code)
            said = ""
            try:
                producer.produce(str(path), **what)
            except StoreError as error:
                said = str(error)
            assert failing.where is not None
        if said:  # removing what is no longer needed may fail without a word
            failed += 1
            assert "\n" not in said
            assert str(place) in said, number
            if failing.where != "open":  # what reads says what it could not read
                assert CODES[code] in said, (number, failing.where)
        if path.exists():  # the name is only ever given to a whole file
            assert check_store(path) == []
        producer.produce(str(path), **what)
        assert path.read_bytes() == whole
        left = {p.name for p in place.iterdir()}
        assert left == ({"s.h5", "s.h5.parts"} if keep_shards else {"s.h5"})
        if keep_shards:
            assert check_store(path) == []
            assert not list((place / "s.h5.parts").glob("*.tmp-*"))
        shutil.rmtree(place)
    return failed


@pytest.mark.parametrize("keep_shards", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_some_operations_fail(keep_shards, folder, producer, monkeypatch):
    assert fail_everywhere(0.06, 1, keep_shards, folder, producer, monkeypatch) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("keep_shards", [False, True])
def test_every_operation_fails_once(keep_shards, folder, producer, monkeypatch):
    assert fail_everywhere(1, 2, keep_shards, folder, producer, monkeypatch) >= 60


def test_the_folder_vanishes_while_the_file_is_made(producer, tmp_path, monkeypatch):
    spec, samples, provenance, data = producer.inputs(n=40)
    path = tmp_path / "sub" / "s.h5"
    with StoreWriter(path, spec, samples, provenance, shard_size=16) as writer:
        for shard in writer.pending():
            writer.write_shard(shard.index, producer.rows(data, shard.start, shard.stop))
        original = files.replace

        def vanish(temporary, target):
            shutil.rmtree(tmp_path / "sub")
            original(temporary, target)

        with monkeypatch.context() as patch:
            patch.setattr(files, "replace", vanish)
            with pytest.raises(StoreError, match="vanished"):
                writer.consolidate()
        assert not writer.complete
    assert not path.exists()


def test_every_new_folder_is_made_durable(producer, tmp_path, monkeypatch):
    """A folder whose parent was not fsynced may vanish with the power, and all shards in it."""
    synced = []
    original = files.fsync_folder
    monkeypatch.setattr(files, "fsync_folder", lambda f: (synced.append(f), original(f)))
    path = tmp_path / "a" / "b" / "s.h5"
    StoreWriter(path, *producer.inputs(n=4)[:3]).close()
    assert synced[:3] == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


def test_a_name_that_is_too_long_is_one_sentence(producer, tmp_path):
    with pytest.raises(StoreError, match="too long"):
        producer.produce(str(tmp_path / ("x" * 300 + ".h5")), n=4)
    long = tmp_path / ("x" * 250 + ".h5")
    with pytest.raises(StoreError, match="too long") as error:
        producer.produce(str(long), n=4)
    assert "\n" not in str(error.value)
    with pytest.raises(StoreError):
        open_store(long)
    assert list(tmp_path.iterdir()) == []
