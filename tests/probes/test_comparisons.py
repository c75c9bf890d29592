from __future__ import annotations

import csv
import json

import h5py
import numpy as np
import pytest

from signbridge.probes import ClusterBootstrap, train_probes
from signbridge.probes.comparisons import Comparisons

HEADER = "family,a,b,metric,difference,ci_low,ci_high,p,p_corrected,n_comparisons"


@pytest.fixture(scope="module")
def finished(planted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "planted"
    train_probes(str(planted), str(folder), bootstrap=100, compare_random=False, permutations=0)
    with (folder / "comparisons.csv").open(newline="") as file:
        text = file.read()
    rows = list(csv.DictReader(text.splitlines()))
    return folder, text, rows, json.loads((folder / "summary.json").read_text())


def test_families_of_a_sweep(finished):
    _, text, rows, _ = finished
    assert text.splitlines()[0] == HEADER
    families = {}
    for row in rows:
        if row["metric"] == "accuracy":
            families.setdefault(row["family"], []).append((row["a"], row["b"]))
    layers = [f"resid_post/{k}" for k in range(3)]
    assert families == {
        "layers_vs_peak": [(layers[0], layers[1]), (layers[2], layers[1])],
        "adjacent_layers": [(layers[1], layers[0]), (layers[2], layers[1])],
        "layers_vs_pixels": [(layer, "pixels") for layer in layers],
        "layers_vs_majority": [(layer, "majority") for layer in layers],
    }
    counts = {row["family"]: row["n_comparisons"] for row in rows}
    # The choice of the peak among 3 layers is one of 3 pairs.
    assert list(counts.values()) == ["3", "2", "3", "3"]
    assert {row["metric"] for row in rows} == {"accuracy", "usable_information"}


def test_differences_are_those_of_the_written_predictions(finished):
    folder, _, rows, _ = finished
    with h5py.File(folder / "predictions.h5") as file:
        names = list(file["feature_name"].asstr())
        p, y, g = file["probability"][:], file["label"][:], file["group"][:]
    bootstrap = ClusterBootstrap(g, repetitions=100)
    compared = 0
    for row in rows:
        if row["b"] == "majority":
            continue
        a, b = (p[names.index(row[side])] for side in "ab")
        expected = bootstrap.difference(a, b, y, row["metric"])
        found = [float(row[key]) for key in ("difference", "ci_low", "ci_high")]
        assert found == pytest.approx([expected.value, expected.low, expected.high], abs=1e-9)
        assert float(row["p"]) <= float(row["p_corrected"]) <= 1
        compared += 1
    assert compared == 14


def test_planted_layer_stands_out_and_the_others_do_not_differ(finished):
    _, _, rows, summary = finished
    p = {(r["family"], r["a"], r["metric"]): float(r["p_corrected"]) for r in rows}
    for metric in ("accuracy", "usable_information"):
        assert p["layers_vs_pixels", "resid_post/1", metric] < 0.001
        assert p["layers_vs_peak", "resid_post/0", metric] < 0.001
    assert p["layers_vs_pixels", "resid_post/0", "accuracy"] > 0.05
    peak = summary["peak"]
    assert (peak["layer"], peak["layers"], peak["candidates"]) == (1, [1, 1], [1])
    assert peak["accuracy"] == summary["best_layer"]["accuracy"]
    assert peak["ci"] == summary["best_layer"]["ci"]
    assert peak["share"] == {"0": 0, "1": 1, "2": 0}
    assert peak["p"]["0"] < 0.05 <= peak["p"]["1"]


def scored(accuracies, n_groups=100, seed=0):
    """Scores of features with given accuracies, two classes, groups of three images."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(n_groups), 3)
    y = g % 2
    bootstrap = ClusterBootstrap(g, repetitions=200)
    found = {}
    for name, accuracy in accuracies.items():
        right = rng.random(n_groups)[g] < accuracy
        p = np.where((y == 0) == right, 0.9, 0.1)
        found[name] = bootstrap.scored(np.stack([p, 1 - p], axis=1), y)
    return found


def test_a_layer_is_compared_with_the_same_layer_of_the_control():
    found = scored(
        {
            "resid_post/8": 0.9,
            "resid_post/24": 0.9,
            "pixels": 0.5,
            "random_weights/8": 0.5,
            "random_weights/24": 0.5,
            "decoder_resid_post/8": 0.5,  # another stack: its numbers mean other layers
        }
    )
    rows = [r for r in Comparisons(found, flips=99).rows() if r["metric"] == "accuracy"]
    pairs = [(r["a"], r["b"]) for r in rows if r["family"] == "layers_vs_random_weights"]
    assert pairs == [("resid_post/8", "random_weights/8"), ("resid_post/24", "random_weights/24")]
    assert [r["family"] for r in rows if r["b"] == "pixels"] == ["layers_vs_pixels"] * 2
    assert all("decoder" not in r["a"] + r["b"] for r in rows)
    del found["random_weights/24"]
    rows = Comparisons(found, flips=99).rows()
    control = [r for r in rows if r["family"] == "layers_vs_random_weights"]
    assert [(r["a"], r["n_comparisons"]) for r in control] == [("resid_post/8", 1)] * 2


def test_no_layer_of_a_flat_curve_is_excluded_and_a_low_one_is():
    flat = {f"resid_post/{k}": 0.7 for k in range(5)}
    peak = Comparisons(scored(flat, seed=3)).peak_summary()
    assert peak.candidates == (0, 1, 2, 3, 4)
    assert peak.layers == (0, 4)
    assert sum(peak.share.values()) == pytest.approx(1)
    assert max(peak.share.values()) < 0.9
    peak = Comparisons(scored({**flat, "resid_post/2": 0.2, "resid_post/4": 0.2})).peak_summary()
    assert peak.candidates == (0, 1, 3)
    assert peak.layers == (0, 3)


def test_a_single_layer_is_the_peak():
    found = Comparisons(scored({"resid_post/8": 0.9, "majority": 0.5}))
    assert found.peak_summary().candidates == (8,)
    assert {row["family"] for row in found.rows()} == {"layers_vs_majority"}
