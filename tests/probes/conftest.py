"""Stores of random features with a known answer."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from signbridge.probes import train_probes
from signbridge.store import SampleTable, StoreSpec, StoreWriter

MakeStore = Callable[..., Path]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make_store(tmp_path_factory: pytest.TempPathFactory) -> MakeStore:
    """Write a store; ``signal`` maps a layer to the strength with which it shows the class.

    Every group has a large offset of its own in all layers, so a probe can recognise the group: the
    random split leaks and the grouped split does not.
    """

    def make(
        *,
        n_classes: int = 4,
        groups_per_class: int = 10,
        per_group: int = 2,
        layers: tuple[int, ...] = (0, 1, 2),
        hidden: int = 24,
        signal: dict[int, float] | None = None,
        group_offset: float = 0.0,
        dtype: Any = "float32",
        baselines: bool = True,
        labels: np.ndarray | None = None,
        groups: np.ndarray | None = None,
        class_names: tuple[str, ...] | None = None,
        seed: int = 0,
        provenance: dict[str, Any] | None = None,
        source_splits: list[str] | None = None,
        **table_values: Any,
    ) -> Path:
        rng = np.random.default_rng(seed)
        if labels is None:
            groups = np.repeat(np.arange(n_classes * groups_per_class), per_group)
            labels = groups // groups_per_class
        elif groups is None:
            groups = np.arange(len(labels))
        n, n_classes = len(labels), max(n_classes, int(labels.max()) + 1)
        centre = rng.normal(size=(n_classes, hidden))
        centre /= np.linalg.norm(centre, axis=1, keepdims=True)
        offset = rng.normal(size=(int(groups.max()) + 1, hidden)) * group_offset
        resid = np.empty((n, len(layers), hidden), dtype=np.float32)
        for k, layer in enumerate(layers):
            strength = (signal or {}).get(layer, 0.0)
            resid[:, k] = rng.normal(size=(n, hidden)) + strength * centre[labels] + offset[groups]
        data = {"resid_post": resid.astype(dtype)}
        table = {}
        if baselines:
            data["pixels"] = rng.integers(256, size=(n, 9), dtype=np.uint8)
            table["pixels"] = (9, "uint8", {})
        names = class_names or tuple(chr(65 + k) for k in range(n_classes))
        values = {
            "sample_id": [f"train/{k}" for k in range(n)],
            "label": labels,
            "class_names": names,
            "group": groups,
            "source_split": source_splits or ["train"] * n,
            "image_sha256": [f"{k:064x}" for k in range(n)],
        }
        samples = SampleTable(**(values | table_values))
        path = tmp_path_factory.mktemp("store") / "planted.h5"
        spec = StoreSpec(layers, hidden, str(np.dtype(dtype)), table)
        with StoreWriter(path, spec, samples, provenance or {"model": "planted"}) as writer:
            for shard in writer.pending():
                part = {k: v[shard.start : shard.stop] for k, v in data.items()}
                writer.write_shard(shard.index, part)
            writer.consolidate()
        return path

    return make


@pytest.fixture(scope="session")
def planted(make_store: MakeStore) -> Path:
    """Four classes, 40 groups of two, the class shown in layer 1 alone."""
    return make_store(signal={1: 6.0})


@pytest.fixture(scope="session")
def finished(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the planted store; no test may change them."""
    folder = tmp_path_factory.mktemp("results") / "planted"
    assert train_probes(str(planted), str(folder), bootstrap=100) == folder
    return folder


@pytest.fixture(scope="session")
def read() -> Callable[[Path], tuple[Any, list[dict[str, str]]]]:
    """Gives summary and scores of a results folder."""

    def read(folder: Path) -> tuple[Any, list[dict[str, str]]]:
        with (folder / "scores.csv").open() as file:
            return json.loads((folder / "summary.json").read_text()), list(csv.DictReader(file))

    return read


@pytest.fixture(scope="session")
def value() -> Callable[..., float]:
    """Gives one value of the scores."""

    def value(
        table: list[dict[str, str]],
        feature: str,
        layer: int | str = "",
        metric: str = "accuracy",
        split: str = "grouped",
    ) -> float:
        wanted = (feature, str(layer), metric, split)
        rows = [r for r in table if r["task"] == "label"]
        (row,) = [r for r in rows if (r["feature"], r["layer"], r["metric"], r["split"]) == wanted]
        return float(row["value"])

    return value


@pytest.fixture(scope="session")
def hashes() -> Callable[[Path], list[str]]:
    """Gives the checksums of scores and probes."""

    def hashes(folder: Path) -> list[str]:
        names = ("scores.csv", "probes.safetensors")
        return [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names]

    return hashes
