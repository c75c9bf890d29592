"""Kills and flipped bits: nothing is lost, nothing is silently wrong."""

import hashlib
import json
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from signbridge.store import StoreWriter, open_store, verify_store
from signbridge.store.verify import check_store

SIZE = {"n": 150, "shard_size": 20}


@pytest.fixture
def folder(tmp_path):
    """A folder in memory where there is one: a kill is the same, and an fsync costs nothing."""
    if not Path("/dev/shm").is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="signbridge-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def whole(producer, tmp_path_factory):
    """An uninterrupted store."""
    path = tmp_path_factory.mktemp("whole") / "store.h5"
    producer.produce(str(path), **SIZE)
    assert check_store(path) == []
    data = producer.inputs(n=SIZE["n"])[3]
    with open_store(path) as store:
        np.testing.assert_array_equal(store.layer(2), data["resid_post"][:, 1].astype(np.float16))
        assert store.responses == data["response"]
    return path


def finished_shards(path):
    """Shards that are recorded and whole, found without the code under test."""
    found = {}
    for record_path in path.with_name(path.name + ".parts").glob("shard-*.json"):
        record = json.loads(record_path.read_text())
        shard = record_path.with_suffix(".h5")
        if shard.exists():
            data = shard.read_bytes()
            whole = len(data) == record["size"]
            if whole and hashlib.sha256(data).hexdigest() == record["sha256"]:
                found[record["index"]] = shard.stat().st_mtime_ns
    return found


def resume_and_compare(path, whole, producer):
    """Continue a killed extraction in this process, as its next run would."""
    spec, samples, provenance, data = producer.inputs(n=SIZE["n"])
    before = finished_shards(path)
    if path.exists():  # the name is only ever given to a whole file
        assert check_store(path) == []
    with StoreWriter(path, spec, samples, provenance, producer.info(), shard_size=20) as writer:
        pending = writer.pending()
        if not path.exists():
            assert {s.index for s in pending} == set(range(len(writer.shards))) - set(before)
        for shard in pending:
            writer.write_shard(shard.index, producer.rows(data, shard.start, shard.stop))
        if not writer.complete:
            after = finished_shards(path)
            assert all(after[index] == written for index, written in before.items())
            writer.consolidate()
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name]
    assert path.read_bytes() == whole.read_bytes()


def kill_at_moments(count, seed, server, folder, whole, producer):
    rng = random.Random(seed)
    began = time.perf_counter()
    assert server.run(command="produce", path=str(folder / "timed.h5"), **SIZE) == 0
    length = time.perf_counter() - began
    killed = 0
    seen = Counter()
    while killed < count:
        path = folder / f"{killed}" / "store.h5"
        path.parent.mkdir(exist_ok=True)
        status = -signal.SIGKILL
        for _ in range(rng.choice([1, 1, 2, 3])):  # some runs are killed again and again
            request = {"command": "produce", "path": str(path), **SIZE}
            status = server.run(kill_after=rng.uniform(0, length), **request)
            assert status in (0, -signal.SIGKILL)
            killed += status != 0
            shards = len(finished_shards(path))
            seen["finished" if path.exists() else "some shards" if shards else "none"] += 1
        resume_and_compare(path, whole, producer)
    return seen


def test_killed_at_random_moments(server, folder, whole, producer):
    seen = kill_at_moments(18, 1, server, folder, whole, producer)
    assert seen["some shards"] >= 3  # the moments were spread over the run


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_200_random_moments(server, folder, whole, producer):
    kill_at_moments(200, 2, server, folder, whole, producer)


def operations(server, folder):
    """How many writes, fsyncs, renames and removals a run consists of."""
    low, high = 0, 1
    while True:
        path = folder / f"count-{high}" / "store.h5"
        path.parent.mkdir()
        request = {"command": "produce", "path": str(path), "kill_at": high, **SIZE}
        if server.run(**request) == 0:
            break
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        path = folder / f"count-{middle}" / "store.h5"
        path.parent.mkdir()
        request = {"command": "produce", "path": str(path), "kill_at": middle, **SIZE}
        low, high = (low, middle) if server.run(**request) == 0 else (middle, high)
    return high


def kill_at_operations(count, seed, server, folder, whole, producer):
    """Kills in the middle of a write, or just before an fsync, a rename or a removal."""
    total = operations(server, folder)
    assert total > 150
    # The last operations put the finished file in its place: they are all tried.
    last = range(total - 10, total)
    for number in [*random.Random(seed).sample(range(total - 10), count), *last]:
        path = folder / f"at-{number}" / "store.h5"
        path.parent.mkdir()
        request = {"command": "produce", "path": str(path), "kill_at": number, **SIZE}
        assert server.run(**request) == -signal.SIGKILL
        resume_and_compare(path, whole, producer)


def test_killed_at_random_operations(server, folder, whole, producer):
    kill_at_operations(7, 3, server, folder, whole, producer)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_300_operations(server, folder, whole, producer):
    kill_at_operations(300, 4, server, folder, whole, producer)


@pytest.mark.parametrize(
    "count", [4, pytest.param(80, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_killed_where_shards_stay(count, server, folder, producer):
    what = {**SIZE, "keep_shards": True}
    producer.produce(str(folder / "kept.h5"), **what)
    whole, content = (folder / "kept.h5").read_bytes(), producer.snapshot(folder / "kept.h5")
    rng = random.Random(8)
    for number in rng.sample(range(130), count):
        path = folder / f"kept-{number}" / "kept.h5"
        path.parent.mkdir()
        request = {"command": "produce", "path": str(path), **what}
        status = server.run(kill_at=number, **request)
        assert status in (0, -signal.SIGKILL)
        if path.exists():
            assert check_store(path) == []
        before = finished_shards(path)
        assert server.run(**request) == 0
        after = finished_shards(path)
        assert all(after[index] == written for index, written in before.items())
        assert path.read_bytes() == whole
        assert producer.snapshot(path) == content
        assert check_store(path) == []
        shutil.rmtree(path.parent)


@pytest.mark.slow
@pytest.mark.parametrize(
    "step", [25, pytest.param(4, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_killed_while_a_store_is_extended(step, server, folder, producer):
    """Wherever it is killed, the store is the old one or the new one, and whole."""
    sources = folder / "sources"
    sources.mkdir()
    producer.produce(str(sources / "base.h5"), n=40)
    producer.produce(str(sources / "more.h5"), n=30, first=40)
    old = (sources / "base.h5").read_bytes()
    killed, ends = 0, Counter()
    while True:
        place = folder / f"extend-{killed}"
        place.mkdir()
        base, more = place / "base.h5", place / "more.h5"
        shutil.copyfile(sources / "base.h5", base)
        shutil.copyfile(sources / "more.h5", more)
        request = {"command": "extend", "base": str(base), "extra": str(more)}
        status = server.run(kill_at=killed, **request)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        killed += step
        assert check_store(base) == []
        if base.read_bytes() == old:
            ends["old"] += 1
            assert server.run(**request) == 0
        else:
            ends["new"] += 1
        with open_store(base) as store:
            assert store.n_samples == 70
        assert not list(place.glob("*.tmp-*"))
        shutil.rmtree(place)
    assert ends["old"] >= 2


def flips(count, seed, servers, path, producer):
    rng = random.Random(seed)
    places = [(rng.randrange(path.stat().st_size), rng.randrange(1, 256)) for _ in range(count)]
    expected = producer.snapshot(path)

    def damage(server, mine):
        found = Counter()
        for offset, mask in mine:
            request = {"path": str(path), "offset": offset, "mask": mask, "expected": expected}
            status = server.run(command="flip", **request)
            kinds = {10: "found", 11: "harmless", 12: "MISSED", 99: "UNREADABLE"}
            found[kinds.get(status, "crashed")] += 1
            assert status not in (12, 99), (offset, mask)
        return found

    with ThreadPoolExecutor(2) as pool:
        parts = [places[::2], places[1::2]]
        outcome = sum(pool.map(damage, servers(2), parts), Counter())
    assert outcome.total() == count
    return outcome


@pytest.mark.slow
def test_flipped_bytes_are_found_or_harmless(servers, whole, producer):
    outcome = flips(200, 5, servers, whole, producer)
    assert outcome["found"] >= 100


def test_flipped_bytes_in_values_are_all_found(servers, make_store, producer):
    # Large enough that nearly every byte is a value, so nearly every flip must be found.
    path = make_store(n=128, hidden=2048, shard_size=64, layers=(0, 1))
    outcome = flips(40, 6, servers, path, producer)
    assert outcome["found"] + outcome["crashed"] >= 38


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_3000_flipped_bytes(servers, whole, producer):
    flips(3000, 7, servers, whole, producer)


def test_verify_reports_what_and_where_in_a_child_process(whole, tmp_path):
    data = bytearray(whole.read_bytes())
    place = data.find("answer 101 ✋".encode())
    data[place] ^= 1
    copy = tmp_path / "copy.h5"
    copy.write_bytes(data)
    problems = [str(p) for p in verify_store(copy)]
    assert problems == ["response, rows 64 to 127: its values do not match their checksum"]
    assert verify_store(whole) == []


def test_verify_survives_a_crash_and_an_endless_loop(whole, tmp_path, monkeypatch):
    child = tmp_path / "child"
    child.write_text("#!/bin/sh\nkill -SEGV $$\n")
    child.chmod(0o755)
    monkeypatch.setattr("signbridge.store.verify.sys.executable", str(child))
    assert "ended the process (exit status -11)" in str(verify_store(whole)[0])
    child.write_text("#!/bin/sh\nexec sleep 60\n")
    assert "never ends" in str(verify_store(whole, stall_timeout=0.2)[0])
