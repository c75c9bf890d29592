"""How far the batch-trained probes are from the optimum, and what they cost beside the exact ones.

    python benchmarks/sgd.py --case tall
    python benchmarks/sgd.py --store activations/tiny-sample.h5

Features as in ``benchmarks/solver.py``, one fold, one thread.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from counts import above_zero, count
from solver import make

from signbridge.probes.dataset.features import FeatureSource, select_features
from signbridge.probes.dataset.splits import make_split
from signbridge.probes.engines import ExactEngine
from signbridge.probes.sgd.engine import SgdEngine
from signbridge.store import SampleTable, Store, StoreSpec, StoreWriter, open_store

CASES = {"wide": (2, 300, 4096, 20), "tall": (1, 6250, 4096, 24), "long": (2, 20000, 256, 24)}
"""Layers, samples (four fifths are trained on), features, classes."""


def simulated(path: Path, shape: tuple[int, int, int, int]) -> Path:
    """Write a store of simulated features."""
    layers, n, features, classes = shape
    X, y = make(*shape)
    samples = SampleTable(
        [f"train/{k}" for k in range(n)],
        y,
        tuple(f"{k:02d}" for k in range(classes)),
        np.arange(n),
        ["train"] * n,
        [f"{k:064x}" for k in range(n)],
    )
    spec = StoreSpec(tuple(range(layers)), features, "float16", {})
    with StoreWriter(path, spec, samples, {"model": "simulated"}) as writer:
        for shard in writer.pending():
            part = X[:, shard.start : shard.stop].swapaxes(0, 1).astype(np.float16)
            writer.write_shard(shard.index, {"resid_post": part})
        writer.consolidate()
    return path


def compare(store: Store, penalties: list[float], max_steps: int | None) -> dict[str, Any]:
    """Train both on the first fold; times in CPU seconds of this process."""
    labels = np.asarray(store.labels, dtype=np.int64)
    split = make_split(labels, store.groups, split="grouped", folds=5)
    fold, classes = split.folds[0], len(store.class_names)
    features = select_features(store, baselines=False)
    source = FeatureSource(store, features)
    seconds = {}
    engine = SgdEngine(max_steps=max_steps)
    for name, solver in (("exact", ExactEngine()), ("sgd", engine)):
        start = time.process_time()
        list(solver.held_out(source, labels, classes, [fold], penalties))
        seconds[name] = time.process_time() - start
    records = [record for fits in engine.records.values() for record in fits]
    by_penalty = {}
    for C in penalties:
        fits = [record for record in records if record["C"] == C]
        by_penalty[f"{C:g}"] = {
            "largest_gap": max(record["gap"] for record in fits),
            "least_agreement": min(record["agreement"] for record in fits),
            "steps": [record["steps"] for record in fits],
            "learning_rates": [record["learning_rate"] for record in fits],
            "largest_relative_gradient": max(record["relative_gradient"] for record in fits),
        }
    return {
        "train": len(fold[0]),
        "features": source.n_features,
        "layers": len(features),
        "classes": classes,
        # The engine's own comparison fits the exact probes once more.
        "cpu_s": {"exact": seconds["exact"], "sgd": seconds["sgd"] - seconds["exact"]},
        "by_penalty": by_penalty,
    }


def main() -> None:
    """Run a case and print its result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--case", choices=list(CASES), default="long")
    parser.add_argument("--store", help="an activation store instead of simulated features")
    parser.add_argument("--penalties", type=above_zero, nargs="+", default=[0.01, 1.0])
    parser.add_argument("--max_steps", type=count)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.store or simulated(Path(folder) / "store.h5", CASES[arguments.case])
        with open_store(path) as store:
            result = compare(store, arguments.penalties, arguments.max_steps)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
