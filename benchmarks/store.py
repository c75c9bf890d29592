"""How fast the activation store writes and reads, as ratios to named peers in the same run.

    python benchmarks/store.py [--samples 4096] [--layers 32] [--hidden 4096] [--repeats 3]

Peers: ``numpy.save`` of the same arrays, one file per shard, each fsynced; ``numpy.memmap`` of one
array ``(sample, layer, hidden)``; a SQLite table with a BLOB per sample and layer, committed once
per shard (committing each vector, as is also done, is far slower). Every measurement of a repeat
alternates with its peers'; each repeat gives one ratio, and the median of these is printed, of
seconds and of processor seconds (all threads). Reads are from files that the system still holds in
memory, for all peers alike. A store is opened anew for every read, so what is read is compared with
its checksums, unless it says "unchecked".
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from counts import count

from signbridge.store import SampleTable, StoreSpec, StoreWriter, open_store
from signbridge.store.contents import Verify

SHARD = 256
BLOCK = 512
BARS = {
    "write shards / numpy.save": 0.8,
    "read layers / numpy.memmap": 0.7,
}
WHOLE = ("write: store",)
RATIOS: dict[str, tuple[tuple[str, ...], str]] = {
    "write shards / numpy.save": (("write: shards",), "write: numpy.save"),
    "write shards, one thread / numpy.save": (
        ("write: shards, one thread",),
        "write: numpy.save again",
    ),
    "write the store / numpy.save": (WHOLE, "write: numpy.save"),
    "write the store / SQLite": (WHOLE, "write: SQLite"),
    "read layers / numpy.memmap": (("layers: read",), "layers: memmap"),
    "read layers / SQLite": (("layers: read",), "layers: sqlite"),
    "read layers, unchecked / numpy.memmap": (("layers: unchecked",), "layers: memmap"),
    "streamed epoch / numpy.memmap": (("epoch: read",), "epoch: memmap"),
    "streamed epoch / SQLite": (("epoch: read",), "epoch: sqlite"),
    "streamed epoch, unchecked / numpy.memmap": (("epoch: unchecked",), "epoch: memmap"),
}


Times = dict[str, list[tuple[float, float]]]
"""For each measurement its seconds and processor seconds, repeat by repeat."""


def timed(function: Callable[[], Any]) -> tuple[float, float]:
    """Seconds that a call takes, and seconds of processors."""
    began, busy = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - began, time.process_time() - busy


def table(n: int) -> SampleTable:
    """Samples to go with the vectors."""
    return SampleTable(
        [f"train/{i}" for i in range(n)],
        np.arange(n) % 24,
        tuple("ABCDEFGHIKLMNOPQRSTUVWXY"),
        np.arange(n) // 10,
        ["train"] * n,
        [f"{i:064x}" for i in range(n)],
    )


def ratio(times: Times, ours: tuple[str, ...], peer: str, number: int, kind: int) -> float:
    """How many times as fast as its peer something was in one repeat."""
    return times[peer][number][kind] / sum(times[name][number][kind] for name in ours)


class Bench:
    """The files of one repeat, and what is done to them."""

    def __init__(self, folder: Path, n: int, layers: int, hidden: int) -> None:
        self.folder, self.n, self.layers = folder, n, layers
        rng = np.random.default_rng(0)
        self.rows = rng.standard_normal((SHARD, layers, hidden), dtype=np.float32).astype("<f2")
        self.edges = [(a, min(a + SHARD, n)) for a in range(0, n, SHARD)]
        self.samples, self.spec = table(n), StoreSpec(tuple(range(layers)), hidden)
        self.bytes = n * layers * hidden * 2
        self.order = rng.permutation(-(-n // BLOCK))
        self.after = (0.0, 0.0)  # the last shard of a store: seconds, processor seconds

    # -- writing ----------------------------------------------------------------------------------

    def numpy_save(self) -> None:
        """Each shard's array to a file of its own, durably."""
        for i, (a, b) in enumerate(self.edges):
            with (self.folder / f"{i}.npy").open("wb") as file:
                np.save(file, self.rows[: b - a])
                file.flush()
                os.fsync(file.fileno())

    def remove(self, pattern: str) -> None:
        """Remove files and folders."""
        for path in self.folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def sqlite_write(self) -> None:
        """A BLOB per sample and layer, one transaction per shard."""
        with sqlite3.connect(self.folder / "peer.sqlite") as base:
            base.execute("CREATE TABLE vectors (sample INTEGER, layer INTEGER, vector BLOB)")
            base.execute("CREATE UNIQUE INDEX place ON vectors (layer, sample)")
            for a, b in self.edges:
                base.executemany(
                    "INSERT INTO vectors VALUES (?, ?, ?)",
                    (
                        (a + i, k, self.rows[i, k].tobytes())
                        for i in range(b - a)
                        for k in range(self.layers)
                    ),
                )
                base.commit()

    def open_writer(self) -> StoreWriter:
        """A writer of shards alone, before its first."""
        facts = {"model": "bench"}
        path = self.folder / "shards.h5"
        return StoreWriter(path, self.spec, self.samples, facts, keep_shards=True)

    def write_store(self) -> None:
        """Our store, whose one file grows while shards are written."""
        facts = {"model": "bench"}
        with StoreWriter(self.folder / "store.h5", self.spec, self.samples, facts) as writer:
            self.write_shards(writer)
            began = time.perf_counter(), time.process_time()
            writer.consolidate()
            self.after = time.perf_counter() - began[0], time.process_time() - began[1]

    def write_shards(self, writer: StoreWriter) -> None:
        """Our shards: checked, written, fsynced, hashed and recorded."""
        for shard in writer.shards:
            writer.write_shard(shard.index, {"resid_post": self.rows[: len(shard)]})

    def write_overlapping(self, writer: StoreWriter) -> None:
        """The same, three shards at a time: one is synced while two are hashed and written."""
        with ThreadPoolExecutor(max_workers=3) as pool:
            for done in [
                pool.submit(
                    writer.write_shard, shard.index, {"resid_post": self.rows[: len(shard)]}
                )
                for shard in writer.shards
            ]:
                done.result()

    def hash_all(self) -> None:
        """SHA-256 of the same bytes and nothing else: the least that one thread needs."""
        for a, b in self.edges:
            hashlib.sha256(self.rows[: b - a].data).hexdigest()

    def memmap_write(self) -> None:
        """The array that memmap reads; not timed."""
        shape = (self.n, *self.rows.shape[1:])
        peer = np.lib.format.open_memmap(self.folder / "peer.npy", "w+", "<f2", shape)
        for a, b in self.edges:
            peer[a:b] = self.rows[: b - a]
        peer.flush()

    # -- reading ----------------------------------------------------------------------------------

    def some_layers(self) -> list[int]:
        """Four layers spread over the depth."""
        return sorted({int(k) for k in np.linspace(0, self.layers - 1, 4)})

    def read_layers(self, verify: Verify = "read") -> None:
        """Whole layers from our store."""
        with open_store(self.folder / "store.h5", verify) as store:
            for layer in self.some_layers():
                store.layer(layer)

    def unchecked_layers(self) -> None:
        """The same without comparing checksums."""
        self.read_layers("quick")

    def memmap_layers(self) -> None:
        """Whole layers from the memmap."""
        peer = np.load(self.folder / "peer.npy", mmap_mode="r")
        for layer in self.some_layers():
            np.array(peer[:, layer])

    def sqlite_layers(self) -> None:
        """Whole layers from SQLite."""
        with sqlite3.connect(self.folder / "peer.sqlite") as base:
            for layer in self.some_layers():
                found = base.execute(
                    "SELECT vector FROM vectors WHERE layer = ? ORDER BY sample", (layer,)
                )
                out = np.empty((self.n, self.rows.shape[2]), "<f2")
                for i, (blob,) in enumerate(found):
                    out[i] = np.frombuffer(blob, "<f2")

    def read_epoch(self, verify: Verify = "read") -> None:
        """All layers of all samples once, in shuffled blocks."""
        with open_store(self.folder / "store.h5", verify) as store:
            for _ in store.blocks(size=BLOCK, order=self.order):
                pass

    def unchecked_epoch(self) -> None:
        """The same without comparing checksums, as every epoch but the first."""
        self.read_epoch("quick")

    def memmap_epoch(self) -> None:
        """The same from the memmap."""
        peer = np.load(self.folder / "peer.npy", mmap_mode="r")
        for block in self.order:
            np.array(peer[block * BLOCK : (block + 1) * BLOCK])

    def sqlite_epoch(self) -> None:
        """The same from SQLite."""
        with sqlite3.connect(self.folder / "peer.sqlite") as base:
            for block in self.order:
                low, high = int(block) * BLOCK, min((int(block) + 1) * BLOCK, self.n)
                out = np.empty((high - low, *self.rows.shape[1:]), "<f2")
                for layer in range(self.layers):
                    found = base.execute(
                        "SELECT sample, vector FROM vectors WHERE layer = ? AND sample >= ? "
                        "AND sample < ?",
                        (layer, low, high),
                    )
                    for sample, blob in found:
                        out[sample - low, layer] = np.frombuffer(blob, "<f2")


def repeat(bench: Bench, times: Times) -> None:
    """Measure everything once."""

    def note(name: str, function: Callable[[], Any], undo: str = "") -> None:
        """Time a call; after one that is not timed, where its files are named to be removed.

        On a virtual machine, memory that the host has to give first is several times as slow, so
        everybody writes into memory that the same call has just used.
        """
        if undo:
            function()
            bench.remove(undo)
        times.setdefault(name, []).append(timed(function))

    shards = "shards.h5.parts/shard-*"
    note("write: numpy.save", bench.numpy_save, "*.npy")
    bench.remove("*.npy")
    with bench.open_writer() as writer:
        note("write: shards", lambda: bench.write_overlapping(writer), shards)
        bench.remove(shards)
        note("write: numpy.save again", bench.numpy_save, "*.npy")
        bench.remove("*.npy")
        note("write: shards, one thread", lambda: bench.write_shards(writer), shards)
        note("write: SHA-256 alone", bench.hash_all)
        note("write: resume check", writer.pending)
    bench.remove("shards.h5.parts")
    note("write: store", bench.write_store)
    times.setdefault("write: store, after its last shard", []).append(bench.after)
    note("write: SQLite", bench.sqlite_write, "peer.sqlite")
    bench.memmap_write()
    for kind in ("layers", "epoch"):
        for peer in ("read", "unchecked", "memmap", "sqlite"):
            function = getattr(bench, f"{peer}_{kind}")
            function()  # once for the page cache
            note(f"{kind}: {peer}", function)
    note("open", lambda: open_store(bench.folder / "store.h5").close())


def peak_memory(folder: Path, n: int) -> int:
    """Peak memory in kB (on Linux) of a process that writes and consolidates ``n`` samples."""
    code = (
        "import sys, numpy as np\n"
        "sys.path.insert(0, sys.argv[3])\n"
        "from store import *\n"
        "n = int(sys.argv[1]); rows = np.ones((256, 8, 512), '<f2')\n"
        "with StoreWriter(sys.argv[2], StoreSpec(range(8), 512), table(n), {}) as w:\n"
        "    for s in w.pending(): w.write_shard(s.index, {'resid_post': rows[:len(s)]})\n"
        "    w.consolidate()\n"
        "status = open('/proc/self/status').read()\n"
        "print(status.split('VmHWM:')[1].split()[0])\n"
    )
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", code, str(n), str(folder / f"{n}.h5"), here]
    return int(subprocess.check_output(command))


def machine() -> str:
    """The machine in one line."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        name = models[0].split(":", 1)[1].strip() if models else name
    versions = f"HDF5 {h5py.version.hdf5_version}, h5py {h5py.__version__}, NumPy {np.__version__}"
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=count, default=4096)
    parser.add_argument("--layers", type=count, default=32)
    parser.add_argument("--hidden", type=count, default=4096)
    parser.add_argument("--repeats", type=count, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured")
    options = parser.parse_args()

    times: Times = {}
    size = 0
    for _ in range(options.repeats):
        folder = Path(tempfile.mkdtemp(dir=options.folder))
        try:
            bench = Bench(folder, options.samples, options.layers, options.hidden)
            size = bench.bytes
            repeat(bench, times)
        finally:
            shutil.rmtree(folder)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        linux = Path("/proc/self/status").exists()
        peaks = [peak_memory(Path(name), n) if linux else 0 for n in (3462, 34627)]

    print(machine())
    print(
        f"{options.samples} samples x {options.layers} layers x {options.hidden}, float16: ", end=""
    )
    print(f"{size / 1e6:.0f} MB; medians of {options.repeats} repeats\n")
    part = {"layers": len(bench.some_layers()) / options.layers}
    print("| measured | seconds | of processors | GB/s |\n| --- | ---: | ---: | ---: |")
    for name, values in times.items():
        amount = size * part.get(name.split(":")[0], 1)
        wall, busy = (statistics.median(column) for column in zip(*values, strict=True))
        speed = "" if name == "open" else f"{amount / wall / 1e9:.2f}"
        print(f"| {name} | {wall:.3f} | {busy:.3f} | {speed} |")
    print("\n| speed of the store / peer | ratio | bar | range | of processors |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, (ours, peer) in RATIOS.items():
        walls = [ratio(times, ours, peer, i, 0) for i in range(options.repeats)]
        busy = statistics.median(ratio(times, ours, peer, i, 1) for i in range(options.repeats))
        between = f"{min(walls):.2f} to {max(walls):.2f}"
        bar = BARS.get(name, "")
        print(f"| {name} | {statistics.median(walls):.2f} | {bar} | {between} | {busy:.2f} |")
    print(
        f"\nPeak memory, 3,462 samples: {peaks[0] / 1e3:.0f} MB; 34,627: {peaks[1] / 1e3:.0f} MB."
    )


if __name__ == "__main__":
    main()
