"""The exact sweep at full size, timed in its parts, with scikit-learn on one layer beside it.

    python benchmarks/full_sweep.py --device cuda      # 27,455 x 4,096 x 32 layers: 7.2 GB of disk
    python benchmarks/full_sweep.py --samples 2000 --hidden 512 --layers 4

A store of that size is written first: every class has a direction of its own in every layer, strong
enough to be read for most samples, in noise whose features differ in scale as a residual stream's
do. Then each layer is probed in five folds at one C. *Reading* is what the store takes (the first
time, so every block is compared with its checksum); *the rest* is standardising, moving to the
device, solving and predicting. scikit-learn's ``LogisticRegression`` fits one layer and one fold at
its default tolerance, on the processor, and is scaled to all fits.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from counts import above_zero, count
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from signbridge.probes.dataset.features import FeatureSource
from signbridge.probes.engines import ExactEngine
from signbridge.results.features import Feature
from signbridge.store import SampleTable, StoreSpec, StoreWriter, open_store

SHARD = 256
C = 0.1


def write_store(path: Path, samples: int, layers: int, hidden: int, classes: int) -> None:
    """Write a store of planted classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(samples) % classes
    table = SampleTable(
        [f"train/{i}" for i in range(samples)],
        labels,
        tuple(f"class {k:03d}" for k in range(classes)),
        np.arange(samples) // 10,
        ["train"] * samples,
        [f"{i:064x}" for i in range(samples)],
    )
    centres = rng.standard_normal((classes, layers, hidden), dtype=np.float32) * 0.1
    scales = np.exp(rng.standard_normal(hidden, dtype=np.float32))
    with StoreWriter(path, StoreSpec(tuple(range(layers)), hidden), table, {}) as writer:
        for shard in writer.shards:
            rows = centres[labels[shard.start : shard.stop]]
            rows = rows + rng.standard_normal(rows.shape, dtype=np.float32)
            writer.write_shard(shard.index, {"resid_post": (rows * scales).astype(np.float16)})
        writer.consolidate()


class TimedSource(FeatureSource):
    """Features whose reading is timed.

    Attributes:
        seconds: spent reading so far.
    """

    seconds = 0.0

    def array(self, feature: Feature) -> NDArray[np.float16]:
        """Read a whole feature."""
        began = time.perf_counter()
        try:
            return super().array(feature)
        finally:
            self.seconds += time.perf_counter() - began


def main(arguments: list[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--samples", type=count, default=27_455)
    parser.add_argument("--hidden", type=count, default=4096)
    parser.add_argument("--layers", type=count, default=32)
    parser.add_argument("--classes", type=count, default=24)
    parser.add_argument("--folds", type=count, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--memory_gb", type=above_zero, default=4.0)
    options = parser.parse_args(arguments)
    on_gpu = options.device == "cuda"
    device = torch.cuda.get_device_name() if on_gpu else platform.machine()
    print(
        f"{device}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.h5"
        write_store(path, options.samples, options.layers, options.hidden, options.classes)
        turns = np.arange(options.samples) // 10 % options.folds
        folds = [
            (np.flatnonzero(turns != k), np.flatnonzero(turns == k)) for k in range(options.folds)
        ]
        with open_store(path) as store:
            labels = np.asarray(store.labels, dtype=np.int64)
            features = [Feature("resid_post", k) for k in store.layers]
            memory = int(options.memory_gb * 2**30)
            source = TimedSource(store, features, memory)
            engine = ExactEngine(options.device, memory)
            began = time.perf_counter()
            held = list(engine.held_out(source, labels, options.classes, folds, [C]))
            seconds = time.perf_counter() - began
            reading = source.seconds
            first = source.array(features[0]).astype(np.float32)
        fits = options.layers * options.folds
        right = [
            (part.probability[:, 0].argmax(-1) == labels[folds[part.fold][1]]).mean()
            for part in held
        ]
        train, test = folds[0]
        began = time.perf_counter()
        scaler = StandardScaler().fit(first[train])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it stops at 100 iterations, and says so
            model = LogisticRegression(C=C).fit(scaler.transform(first[train]), labels[train])
        one = time.perf_counter() - began
        same = np.mean(
            model.predict(scaler.transform(first[test])) == held[0].probability[0, 0].argmax(-1)
        )
    print(
        f"{options.samples:,} samples x {options.hidden:,} features x {options.layers} layers, "
        f"{options.classes} classes, {options.folds} folds, C = {C}; all converged: "
        f"{all(part.converged.all() for part in held)}; held-out accuracy {np.mean(right):.3f}\n"
    )
    print("| part | seconds | a fit |\n| --- | ---: | ---: |")
    for part, value in (("reading", reading), ("the rest", seconds - reading), ("all", seconds)):
        print(f"| {part} | {value:.2f} | {value / fits:.4f} |")
    print(f"| scikit-learn, scaled from one fit | {one * fits:.0f} | {one:.2f} |")
    print(f"\nsolving / reading: {(seconds - reading) / reading:.2f} (bar: less than 1)")
    print(f"scikit-learn / all: {one * fits / seconds:.1f}; same answers in fold 0: {same:.4f}")


if __name__ == "__main__":
    main()
