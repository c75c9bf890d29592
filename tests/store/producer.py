"""A stand-in for an extraction, and a server that forks one for each request.

Run as a script it reads requests as JSON lines and forks a child for each, so that a child can be
killed at any moment without paying for its imports. It loads only NumPy, h5py and the store.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np

from signbridge.errors import StoreError
from signbridge.store import SampleTable, StoreSpec, StoreWriter, guarded, open_store
from signbridge.store.merge import extend_store
from signbridge.store.verify import check_store

CLASSES = ("A", "B", "C", "Ü")


def inputs(n=200, layers=(0, 2, 5), hidden=12, dtype="float16", first=0, **spec):
    """Everything an extraction of ``n`` samples would hand to the store, from a fixed formula."""
    rng = np.random.default_rng([n, hidden, first, *layers])
    options = {
        "baselines": {
            "pixels": (9, "uint8", {"long_name": "grey image"}),
            "vision": (5, "float32", {"long_name": "mean patch feature"}),
        },
        "responses": True,
        "class_logprob": True,
        **spec,
    }
    data = {
        "resid_post": rng.standard_normal((n, len(layers), hidden)).astype(np.float32),
        "pixels": rng.integers(0, 256, (n, 9)).astype(np.uint8),
        "vision": rng.standard_normal((n, 5)).astype(np.float32),
        "response": [f"answer {i} ✋" if i % 7 else "" for i in range(n)],
        "class_logprob": -rng.random((n, len(CLASSES))).astype(np.float32),
    }
    data["thumbnail"] = [f"/9j/{i:04}" for i in range(n)]
    wanted = {"resid_post", *options["baselines"]}
    wanted |= {"thumbnail"} if options.get("thumbnails") else set()
    wanted |= {"response"} if options["responses"] else set()
    wanted |= {"class_logprob"} if options["class_logprob"] else set()
    ids = range(first, first + n)
    samples = SampleTable(
        [f"train/{i}" for i in ids],
        np.arange(n) % len(CLASSES),
        CLASSES,
        np.arange(n) // 3,
        ["train" if i % 2 else "" for i in ids],
        [hashlib.sha256(str(i).encode()).hexdigest() for i in ids],
    )
    provenance = {
        "model": "stand-in",
        "prompt": "USER: <image>\nWhich sign? é\nASSISTANT:",
        "quantized_modules": ["model.layers.0", "model.layers.1"],
        "seed": 42,
        "per_class": None,
        "offline": True,
        "scale": 0.25,
        "nothing": [],
    }
    return (
        StoreSpec(layers, hidden, dtype, **options),
        samples,
        provenance,
        {name: data[name] for name in sorted(wanted)},
    )


def info():
    return {"batch_size": 8, "versions": {"numpy": "2"}, "skipped": [["a.png", "truncated"]]}


def rows(data, start, stop):
    return {name: values[start:stop] for name, values in data.items()}


def produce(path, shard_size=16, rank=0, world=1, consolidate=True, keep_shards=False, **what):
    spec, samples, provenance, data = inputs(**what)
    with StoreWriter(
        path,
        spec,
        samples,
        provenance,
        info(),
        shard_size=shard_size,
        rank=rank,
        keep_shards=keep_shards,
    ) as writer:
        for shard in writer.pending(rank, world):
            writer.write_shard(shard.index, rows(data, shard.start, shard.stop))
        if consolidate and not writer.complete:
            writer.consolidate()


def begin(path, shards=2, change=None, overwrite=False, **what):
    """An extraction that stops after some shards."""
    spec, samples, provenance, data = inputs(**what)
    provenance |= change or {}
    with StoreWriter(path, spec, samples, provenance, shard_size=16, overwrite=overwrite) as writer:
        for shard in writer.shards[:shards]:
            writer.write_shard(shard.index, rows(data, shard.start, shard.stop))


def snapshot(path) -> str:
    """Read everything there is through the public interface; equal content, equal text."""
    digest = hashlib.sha256()
    with open_store(path) as store:
        for values in (
            [store.layer(layer) for layer in store.layers],
            [store.feature(name) for name in store.baselines],
            [store.class_logprob, store.labels, store.groups],
        ):
            for array in values:
                digest.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
        texts = [
            store.layers,
            store.baselines,
            store.class_names,
            store.sample_ids,
            store.source_splits,
            store.image_sha256,
            store.responses,
            sorted(store.provenance.items()),
            sorted(store.info.items()),
            store.fingerprint,
            store.content_sha256,
            store.format_version,
        ]
        digest.update(repr(texts).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


# -- what the children do -------------------------------------------------------------------------


def kill_at_operation(number: int) -> None:
    """Have this process SIGKILL itself at its ``number``-th write, fsync, rename or removal."""
    count = 0

    def step() -> bool:
        nonlocal count
        count += 1
        return count > number

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)

    def counted(function):
        def call(*args, **kwargs):
            if step():
                die()
            return function(*args, **kwargs)

        return call

    for name in ("fsync", "replace", "rename", "unlink", "rmdir", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))

    class File(io.FileIO):
        def write(self, data):
            if step():
                super().write(data[: len(data) // 2])  # torn in the middle
                die()
            return super().write(data)

    guarded.open_raw = lambda path: File(path, "x+")


def flip(path, offset, mask, expected) -> str:
    """Damage one byte of a copy and check it: "found", "harmless" or "MISSED"."""
    copy = Path(path).with_name(f"flipped-{os.getpid()}.h5")
    shutil.copyfile(path, copy)
    try:
        with copy.open("r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ mask]))
        try:
            if check_store(copy):
                return "found"
        except StoreError:  # so changed that it is no store any more
            return "found"
        return "harmless" if snapshot(copy) == expected else "MISSED"
    finally:
        with contextlib.suppress(FileNotFoundError):
            copy.unlink()


def run(request) -> int:
    command = request.pop("command")
    if command == "produce":
        operation = request.pop("kill_at", None)
        if operation is not None:
            kill_at_operation(operation)
        produce(**request)
        return 0
    if command == "extend":
        operation = request.pop("kill_at", None)
        if operation is not None:
            kill_at_operation(operation)
        extend_store(**request)
        return 0
    if command == "flip":
        signal.alarm(60)  # an endless loop in the library ends like a crash
        return {"found": 10, "harmless": 11, "MISSED": 12}[flip(**request)]
    raise AssertionError(command)


def serve() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        kill_after = request.pop("kill_after", None)
        pid = os.fork()
        if pid == 0:
            status = 99
            try:
                status = run(request)
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(status)
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"status": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    serve()
