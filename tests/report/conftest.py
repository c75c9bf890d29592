"""A synthetic results folder: planted accuracies by layer, photographs repeated as groups."""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

LETTERS = tuple("ABCDEFGHIKLMNOPQRSTUVWXY")
COLUMNS = (
    *("feature", "layer", "solver", "split", "metric", "value", "ci_low", "ci_high"),
    *("n_train", "n_test", "n_classes", "C"),
)


def _probabilities(
    rng: np.random.Generator, label: np.ndarray, n_classes: int, accuracy: float
) -> np.ndarray:
    """Probabilities whose largest entry is the label for a share ``accuracy`` of the samples."""
    n = len(label)
    right = rng.random(n) < accuracy
    wrong = (label + rng.choice([1, 1, 2, 3, 5], n)) % n_classes if n_classes > 1 else label
    answer = np.where(right, label, wrong)
    p = rng.dirichlet(np.full(n_classes, 0.5), n) * 0.4
    p[np.arange(n), answer] += 0.6
    return p.astype(np.float32)


def build_results(
    folder: Path,
    *,
    class_names: Sequence[str] = LETTERS,
    layers: Sequence[int] = tuple(range(8)),
    per_class: int = 12,
    random_split: bool = True,
    baselines: Sequence[str] = ("pixels", "vision", "projector"),
    store_path: str = "activations/tiny-sample.h5",
    fingerprint: str = "f" * 64,
    seed: int = 0,
    full: bool = False,
) -> Path:
    """Write scores.csv, summary.json and predictions.h5 into ``folder``.

    With ``full`` also what format version 1.1 added: random weights, the control task,
    comparisons.csv and the summary's new keys.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    n_classes = len(class_names)
    label = np.repeat(np.arange(n_classes), per_class)
    n = len(label)
    group = np.arange(n) // 2
    depth = np.linspace(0, 1, len(layers)) if len(layers) > 1 else np.array([0.6])
    main = 0.18 + 0.35 * np.sin(np.pi * (0.1 + 0.75 * depth))
    planted = {f"resid_post/{k}": float(a) for k, a in zip(layers, main, strict=True)}
    planted |= {
        b: a
        for b, a in {"pixels": 0.42, "vision": 0.46, "projector": 0.445}.items()
        if b in baselines
    }
    if full:
        planted |= {
            f"random_weights/{k}": 0.6 * float(a) for k, a in zip(layers, main, strict=True)
        }
    rows: list[dict[str, Any]] = []
    tables: dict[str, dict[str, np.ndarray]] = {}
    for split in ("grouped", "random") if random_split else ("grouped",):
        tables[split] = {}
        for name, accuracy in planted.items():
            lift = 0.0 if split == "grouped" else 0.9 * (1 - accuracy) * 0.8
            p = _probabilities(rng, label, n_classes, accuracy + lift)
            if split == "random":
                held_out = rng.random(n) < 0.2
                held_out[0] = True
                p[~held_out] = np.nan
            tables[split][name] = p
            rows += _score_rows(name, split, p, label, n_classes)
        for name in ("chance", "majority"):
            rows.append(_row(name, "", "", split, "accuracy", 1 / n_classes, n_classes))
    if full:
        rows = [{**row, "task": "label"} for row in rows]
        rows += _control_rows(rows, n_classes)
    columns = COLUMNS if not full else (*COLUMNS[:4], "task", *COLUMNS[4:])
    with (folder / "scores.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    with h5py.File(folder / "predictions.h5", "w") as file:
        for split, table in tables.items():
            where = file if split == "grouped" else file.create_group(split)
            where["probability"] = np.stack(list(table.values()))
            scored = np.isfinite(next(iter(table.values()))[:, 0])
            where["fold"] = np.where(scored, np.arange(n) % 5, -1)
        text = h5py.string_dtype()
        names = list(tables["grouped"])
        file["label"], file["group"] = label, group
        file.create_dataset("sample_id", data=[f"train/{i}" for i in range(n)], dtype=text)
        file.create_dataset("class_name", data=list(class_names), dtype=text)
        file.create_dataset("feature_name", data=names, dtype=text)
    best = max(
        (r for r in rows if r["feature"] == "resid_post" and r["split"] == "grouped"
         and r["metric"] == "accuracy"),
        key=lambda r: r["value"],
    )  # fmt: skip
    random_best = [
        r["value"] for r in rows
        if (r["feature"], r["layer"], r["split"], r["metric"])
        == ("resid_post", best["layer"], "random", "accuracy")
        and r.get("task", "label") == "label"
    ]  # fmt: skip
    summary = {
        "format": "signbridge-results",
        "version": "1.0",
        "store": {
            "path": store_path,
            "name": Path(store_path).stem,
            "fingerprint": fingerprint,
            "n_samples": n,
            "n_groups": len(np.unique(group)),
            "class_names": list(class_names),
            "layers": list(layers),
            "provenance": {
                "model": "tiny",
                "model_kind": "tiny",
                "weights_sha256": "a" * 64,
                "quantization": "none",
                "compute_dtype": "float32",
                "prompt": "USER: <image>\nWhat sign is being made in this image? "
                "Answer with one word.\nASSISTANT:",
                "position": "last_prompt",
                "site": "resid_post",
                "image_source": "sample",
                "seed": 42,
            },
        },
        "protocol": {
            "solver": "exact",
            "split": "grouped",
            "folds": 5,
            "C": 1.0,
            "seed": 42,
            "description": "Five stratified folds that keep near-duplicate photographs together; "
            "every image is scored once by a probe that saw no image of its group; features "
            "standardised on the training part; multinomial logistic regression, C = 1.",
        },
        "best_layer": {
            "layer": best["layer"],
            "accuracy": best["value"],
            "ci": [best["ci_low"], best["ci_high"]],
            "note": "highest held-out accuracy; chosen on the data that scores it",
        },
        "nested": {
            "accuracy": best["value"] - 0.02,
            "ci": [best["ci_low"] - 0.02, best["ci_high"] - 0.02],
            "layers_chosen": [best["layer"]] * 3 + [layers[0], layers[-1]],
        },
        "leakage": {
            "layer": best["layer"],
            "random": random_best[0],
            "grouped": best["value"],
        }
        if random_best
        else None,
        "chance": 1 / n_classes,
        "majority": 1 / n_classes,
        "warnings": ["class 'Q' has images of 4 photographs only: its recall is uncertain."],
        "command": f"python train_probes.py --store {store_path} --solver exact --split grouped",
        "not_converged": [],
        "sklearn_default": {
            "layer": best["layer"],
            "accuracy": best["value"] - 0.03,
            "agreement": 0.91,
        },
        "versions": {"signbridge": "0.1.0", "torch": "2.9.0", "python": "3.11.7"},
        "created": "2026-01-05T10:00:00+00:00",
    }
    if full:
        summary |= {"version": "1.1", **_new_keys(rows, best, layers)}
        summary["store"]["provenance"]["groups"] = "near_duplicates 0.95"
        _write_comparisons(folder / "comparisons.csv", rows, best, layers)
    (folder / "summary.json").write_text(json.dumps(summary, indent=2))
    return folder


def _accuracy(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {
        r["feature"] if r["layer"] == "" else f"{r['feature']}/{r['layer']}": r["value"]
        for r in rows
        if (r["split"], r["metric"], r["task"]) == ("grouped", "accuracy", "label")
    }


def _control_rows(rows: list[dict[str, Any]], n_classes: int) -> list[dict[str, Any]]:
    """Accuracy on random labels of the groups, and the selectivity that it leaves."""
    found = []
    for row in rows:
        if row["split"] != "random" or row["metric"] != "accuracy" or not row["solver"]:
            continue
        value = 0.7 * row["value"] + 0.02 * ((row["layer"] or 0) % 3)
        low, high = max(0.0, value - 0.05), value + 0.05
        found.append(
            {**row, "task": "group_control", "value": value, "ci_low": low, "ci_high": high}
        )
        left = row["value"] - value
        ends = {"ci_low": left - 0.06, "ci_high": left + 0.06}
        found.append({**row, "metric": "selectivity", "value": left, **ends})
    return found


def _new_keys(
    rows: list[dict[str, Any]], best: dict[str, Any], layers: Sequence[int]
) -> dict[str, Any]:
    accuracy = _accuracy(rows)
    weight = np.exp(40 * np.array([accuracy[f"resid_post/{k}"] for k in layers]))
    share = weight / weight.sum()
    candidates = [k for k, s in zip(layers, share, strict=True) if s > 0.02]
    return {
        "peak": {
            "layer": best["layer"],
            "accuracy": best["value"],
            "ci": [best["ci_low"], best["ci_high"]],
            "layers": [min(candidates), max(candidates)],
            "candidates": candidates,
            "share": {str(k): float(s) for k, s in zip(layers, share, strict=True)},
        },
        "permutation_test": {
            "m": 199,
            "statistic": "accuracy of the best layer",
            "observed": best["value"],
            "p": 0.005,
            "null_mean": 0.05,
            "null_quantile_95": 0.08,
            "by_layer": {str(k): {"p": 0.005, "p_corrected": 0.005} for k in layers},
            "structure": "between groups",
        },
        "memorisation": {
            "layer": best["layer"],
            "control_accuracy": 0.61,
            "ci": [0.56, 0.66],
            "selectivity": 0.123,
            "selectivity_ci": [0.06, 0.18],
            "n_groups": 144,
            "note": "",
        },
        "control": {"path": "activations/control.h5", "fingerprint": "c" * 64, "weights_seed": 7},
        "description_length": None,
        "sgd": None,
    }


def _write_comparisons(
    path: Path, rows: list[dict[str, Any]], best: dict[str, Any], layers: Sequence[int]
) -> None:
    accuracy = _accuracy(rows)
    peak = f"resid_post/{best['layer']}"
    families = {"layers_vs_peak": [(f"resid_post/{k}", peak) for k in layers]}
    families["layers_vs_peak"].remove((peak, peak))
    for name in ("pixels", "vision", "projector", "majority"):
        if name in accuracy:
            families[f"layers_vs_{name}"] = [(f"resid_post/{k}", name) for k in layers]
    families["layers_vs_random_weights"] = [
        (f"resid_post/{k}", f"random_weights/{k}") for k in layers
    ]
    families["adjacent_layers"] = [
        (f"resid_post/{b}", f"resid_post/{a}") for a, b in itertools.pairwise(layers)
    ]
    lines = ["family,a,b,metric,difference,ci_low,ci_high,p,p_corrected,n_comparisons"]
    for family, listed in families.items():
        for a, b in listed:
            d = accuracy[a] - accuracy[b]
            p = min(1.0, math.exp(-abs(d) / 0.025))
            corrected = min(1.0, p * len(listed))
            lines.append(
                f"{family},{a},{b},accuracy,{d},{d - 0.06},{d + 0.06},{p},{corrected},{len(listed)}"
            )
    path.write_text("\n".join(lines) + "\n")


def build_store(
    path: Path, results: Path, *, hidden: int = 16, pixels: np.ndarray | None = None
) -> str:
    """Write the store that belongs to a synthetic results folder; return its fingerprint."""
    from signbridge.store import SampleTable, StoreSpec, StoreWriter, open_store

    summary = json.loads((results / "summary.json").read_text())["store"]
    with h5py.File(results / "predictions.h5") as file:
        label, group = file["label"][...], file["group"][...]
        ids = list(file["sample_id"].asstr()[...])
    n, layers = len(ids), summary["layers"]
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(len(summary["class_names"]), hidden))
    vectors = centres[label][:, None] + rng.normal(size=(n, len(layers), hidden))
    images = rng.integers(0, 255, (n, 784), dtype=np.uint8) if pixels is None else pixels[:n]
    samples = SampleTable(
        ids, label, tuple(summary["class_names"]), group, ["train"] * n, ["0" * 64] * n
    )
    spec = StoreSpec(tuple(layers), hidden, "float32", {"pixels": (784, "uint8", {})})
    with StoreWriter(path, spec, samples, summary["provenance"]) as writer:
        for shard in writer.pending():
            rows = slice(shard.start, shard.stop)
            writer.write_shard(
                shard.index,
                {"resid_post": vectors[rows].astype(np.float32), "pixels": images[rows]},
            )
        writer.consolidate()
    with open_store(path) as store:
        return store.fingerprint


def _row(
    feature: str,
    layer: object,
    solver: str,
    split: str,
    metric: str,
    value: float,
    n_classes: int,
    low: object = "",
    high: object = "",
    n_test: object = "",
) -> dict[str, Any]:
    return {
        "feature": feature, "layer": layer, "solver": solver, "split": split, "metric": metric,
        "value": value, "ci_low": low, "ci_high": high, "n_train": 200, "n_test": n_test,
        "n_classes": n_classes, "C": "1.0" if solver else "",
    }  # fmt: skip


def _score_rows(
    name: str, split: str, p: np.ndarray, label: np.ndarray, n_classes: int
) -> list[dict[str, Any]]:
    feature, _, layer = name.partition("/")
    scored = np.isfinite(p[:, 0])
    p, label = p[scored], label[scored]
    accuracy = float((p.argmax(1) == label).mean())
    half = 1.96 * math.sqrt(max(accuracy * (1 - accuracy), 1e-4) / max(len(label), 1))
    nats = float(-np.log(np.maximum(p[np.arange(len(label)), label], 1e-9)).mean())
    values = {
        "accuracy": accuracy,
        "balanced_accuracy": accuracy,
        "macro_f1": accuracy * 0.98,
        "top3_accuracy": min(1.0, accuracy * 1.5),
        "cross_entropy": nats,
        "calibration_error": 0.081,
        "usable_information": math.log2(n_classes) - nats / math.log(2) + 0.5,
    }
    return [
        _row(
            feature, int(layer) if layer else "", "exact", split, metric, value, n_classes,
            *((max(0.0, value - half), min(1.0, value + half)) if value == values["accuracy"]
              else (value - half, value + half)), len(label),
        )
        for metric, value in values.items()
    ]  # fmt: skip


@pytest.fixture
def make_results(tmp_path: Path) -> Callable[..., Path]:
    """Build a synthetic results folder; keywords as :func:`build_results`."""

    def make(name: str = "results", **keywords: Any) -> Path:
        return build_results(tmp_path / name, **keywords)

    return make


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[[Path], Path]:
    """Build the store of a results folder and note its place and fingerprint there."""

    def make(results: Path, **keywords: Any) -> Path:
        path = tmp_path / f"{results.name}-store.h5"
        fingerprint = build_store(path, results, **keywords)
        summary = json.loads((results / "summary.json").read_text())
        summary["store"] |= {"path": str(path), "fingerprint": fingerprint}
        (results / "summary.json").write_text(json.dumps(summary))
        return path

    return make


@pytest.fixture(scope="session")
def full_results_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with everything of format version 1.1; not to be written to."""
    return build_results(tmp_path_factory.mktemp("full") / "tiny-sample", full=True)


@pytest.fixture(scope="session")
def results_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder of 24 letters, 8 layers and both splits; not to be written to."""
    return build_results(tmp_path_factory.mktemp("shared") / "tiny-sample")
