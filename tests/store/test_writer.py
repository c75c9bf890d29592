"""Writing: several workers, the bytes of the file, and what is left when it is done."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from signbridge.errors import StoreError
from signbridge.store import StoreWriter, verify_store
from signbridge.store.verify import check_store


def test_shard_size_and_order_do_not_change_the_file(producer, make_store, tmp_path):
    reference = make_store("a.h5", n=70, shard_size=64).read_bytes()
    for size in (1, 37, 70, 1000):
        assert make_store(f"b{size}.h5", n=70, shard_size=size).read_bytes() == reference
    spec, samples, provenance, data = producer.inputs(n=70)
    path = tmp_path / "backwards.h5"
    with StoreWriter(path, spec, samples, provenance, producer.info(), shard_size=20) as writer:
        for shard in reversed(writer.pending()):
            writer.write_shard(shard.index, producer.rows(data, shard.start, shard.stop))
        writer.consolidate()
    assert path.read_bytes() == reference


@pytest.mark.parametrize("world", [2, 3])
def test_several_workers_at_once_make_the_same_file(world, producer, make_store, servers, tmp_path):
    reference = make_store("one.h5", n=150, shard_size=8).read_bytes()
    path = tmp_path / "many.h5"
    what = {"n": 150}
    producer.begin(path, shards=0, **what)  # rank 0 makes the plan before the others start
    workers = servers(world)
    for rank, worker in enumerate(workers):
        worker.start(
            command="produce", path=str(path), rank=rank, world=world, consolidate=False, **what
        )
    assert [worker.wait() for worker in workers] == [0] * world
    spec, samples, provenance, _ = producer.inputs(**what)
    with StoreWriter(path, spec, samples, provenance, producer.info()) as writer:
        assert writer.pending() == []
        writer.consolidate()
    assert path.read_bytes() == reference


def test_another_number_of_workers_continues(producer, make_store, server, tmp_path):
    reference = make_store("one.h5", n=150).read_bytes()
    path = tmp_path / "many.h5"
    request = {"command": "produce", "path": str(path), "n": 150, "consolidate": False}
    assert server.run(rank=0, world=3, **request) == 0
    assert server.run(rank=1, world=3, **request) == 0
    producer.produce(str(path), n=150)
    assert path.read_bytes() == reference


def test_pending_parts_the_shards_whenever_it_is_asked(producer, tmp_path):
    spec, samples, provenance, data = producer.inputs(n=150)
    with StoreWriter(tmp_path / "s.h5", spec, samples, provenance, shard_size=16) as writer:
        first = writer.pending(0, 2)
        for shard in first[:2]:
            writer.write_shard(shard.index, producer.rows(data, shard.start, shard.stop))
        indices = {s.index for s in first} | {s.index for s in writer.pending(1, 2)}
        assert indices == {s.index for s in writer.shards}


def hold(path, ready, go_on):
    import importlib.util

    file = Path(__file__).with_name("producer.py")
    spec = importlib.util.spec_from_file_location("store_producer", file)
    producer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(producer)
    spec, samples, provenance, _ = producer.inputs(n=4)
    with StoreWriter(path, spec, samples, provenance):
        ready.set()
        go_on.wait(30)


def test_a_second_process_on_the_same_output_is_refused(producer, tmp_path):
    path = tmp_path / "s.h5"
    context = multiprocessing.get_context("fork")
    ready, go_on = context.Event(), context.Event()
    other = context.Process(target=hold, args=(path, ready, go_on))
    other.start()
    assert ready.wait(30)
    spec, samples, provenance, _ = producer.inputs(n=4)
    with pytest.raises(StoreError, match="Another process is writing"):
        StoreWriter(path, spec, samples, provenance)
    with pytest.raises(StoreError, match="Another process is writing"):
        StoreWriter(path, spec, samples, provenance, overwrite=True)
    go_on.set()
    other.join(30)
    StoreWriter(path, spec, samples, provenance).close()


def test_a_finished_output_is_complete_and_leaves_nothing(producer, make_store):
    path = make_store("s.h5", n=40)
    spec, samples, provenance, _ = producer.inputs(n=40)
    (path.parent / "s.h5.parts").mkdir()
    (path.parent / "s.h5.parts" / "plan.json").write_text("{}")  # killed while cleaning up
    with StoreWriter(path, spec, samples, provenance) as writer:
        assert writer.complete
        assert writer.pending() == []
        assert writer.shards == ()
        assert writer.consolidate() == path
    assert [p.name for p in path.parent.iterdir()] == ["s.h5"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measured as Linux does")
def test_memory_stays_flat(tmp_path):
    """Ten times the samples: the peak memory of writing and consolidating hardly grows."""
    script = tmp_path / "peak.py"
    script.write_text(
        "import sys\n"
        "import numpy as np\n"
        "from signbridge.store import SampleTable, StoreSpec, StoreWriter\n"
        "n, path = int(sys.argv[1]), sys.argv[2]\n"
        "table = SampleTable([str(i) for i in range(n)], np.zeros(n, int), ('A',),\n"
        "                    np.arange(n), [''] * n, [''] * n)\n"
        "rows = np.ones((64, 4, 4096), np.float16)\n"
        "with StoreWriter(path, StoreSpec((0, 1, 2, 3), 4096), table, {}, shard_size=64) as w:\n"
        "    for shard in w.pending():\n"
        "        w.write_shard(shard.index, {'resid_post': rows[: len(shard)]})\n"
        "    w.consolidate()\n"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
    )
    peaks = [
        int(subprocess.check_output([sys.executable, str(script), str(n), str(tmp_path / f"{n}")]))
        for n in (256, 2560)  # 8 MB and 84 MB
    ]
    assert peaks[1] - peaks[0] < 20_000  # kB


def test_the_environment_does_not_matter(producer, make_store, monkeypatch, tmp_path):
    path = make_store("s.h5", n=20)
    monkeypatch.setitem(os.environ, "PYTHONPATH", str(tmp_path))
    monkeypatch.chdir("/")
    assert verify_store(path) == []
    assert check_store(path) == []
