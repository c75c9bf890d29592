"""The map: few samples, names of every length, positions as written."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import umap
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from signbridge.report.figures import embedding
from signbridge.report.figures import umap as module
from signbridge.report.figures.subsample import independent_rows, rows_in_words
from signbridge.results.results import Results, load_results


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_very_few_samples_use_principal_components(n: int) -> None:
    x = np.random.default_rng(0).normal(size=(n, 6))
    position, method = embedding.embed(x)
    assert method == "PCA"
    assert position.shape == (n, 2)
    assert np.isfinite(position).all()
    if n == 4:
        reference = PCA(2).fit_transform(StandardScaler().fit_transform(x))
        np.testing.assert_allclose(np.abs(position), np.abs(reference), atol=1e-9)


def test_identical_vectors_do_not_break_it() -> None:
    position, method = embedding.embed(np.ones((40, 5), np.float16))
    assert method == "PCA"
    np.testing.assert_array_equal(position, 0)


def test_umap_of_few_and_of_more_samples_is_deterministic_and_keeps_clusters() -> None:
    rng = np.random.default_rng(0)
    few, method = embedding.embed(rng.normal(size=(7, 4)))
    assert method == "UMAP"
    assert np.isfinite(few).all()
    label = np.repeat([0, 1], 20)
    x = rng.normal(size=(40, 12)) + 8 * label[:, None]
    position, _ = embedding.embed(x, seed=3)
    again, _ = embedding.embed(x, seed=3)
    np.testing.assert_array_equal(position, again)
    distance = np.linalg.norm(position[:, None] - position[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    np.testing.assert_array_equal(label[distance.argmin(axis=1)], label)
    # A map that starts from another keeps its points near: each cluster on the side it was on.
    turned = position[:, ::-1] * [1, -1]
    started, _ = embedding.embed(x, 3, turned)
    sides = [embedding.spread_out(one) for one in (started, turned)]
    middles = [[np.median(side[label == k], axis=0) for k in (0, 1)] for side in sides]
    np.testing.assert_array_equal(*(np.sign(one[1] - one[0]) for one in middles))


@pytest.mark.parametrize(
    "kind", [pytest.param("clusters", marks=pytest.mark.slow), "copies", "few"]
)
def test_positions_are_those_of_umap_itself(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5)) + 50 * (np.arange(60) % 2)[:, None]
    x = {"clusters": x, "copies": np.repeat(x[:30], 2, axis=0), "few": x[:9]}[kind]
    position, _ = embedding.embed(x, seed=3)
    vectors = StandardScaler().fit_transform(x).astype(np.float32)
    expected = umap.UMAP(
        n_neighbors=min(15, len(x) - 1),
        min_dist=0.15,
        init="random" if kind == "few" else "spectral",
        random_state=3,
        n_jobs=1,
    ).fit_transform(vectors)
    np.testing.assert_array_equal(position, expected)
    # Where no process can be started, the same in this one.
    embedding._stop()
    monkeypatch.setattr(embedding, "get_executable", lambda: b"/nowhere/python")
    np.testing.assert_array_equal(embedding.embed(x, seed=3)[0], expected)


@pytest.mark.slow
def test_what_a_library_prints_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pynndescent.py").write_text(
        "import importlib, sys\n"
        "print('a banner', flush=True)\n"
        f"sys.path.remove({str(tmp_path)!r})\n"
        "del sys.modules['pynndescent']\n"
        "sys.modules['pynndescent'] = importlib.import_module('pynndescent')\n"
    )
    x = np.random.default_rng(0).normal(size=(20, 4))
    expected, _ = embedding.embed(x)
    embedding._stop()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        embedding, "_umap", lambda vectors, seed, start: np.zeros((len(vectors), 2))
    )
    position, _ = embedding.embed(x)
    embedding._stop()
    np.testing.assert_array_equal(position, expected)


def test_a_process_that_was_killed_costs_no_map(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=(20, 4))
    embedding.warm_up()
    assert embedding._process is not None
    embedding._process.kill()
    embedding._process.wait()
    monkeypatch.setattr(embedding, "_umap", lambda vectors, seed, start: np.ones((len(vectors), 2)))
    np.testing.assert_array_equal(embedding.embed(x)[0], 1)


def inputs_of(results: Results, vectors: Callable[..., np.ndarray]) -> Any:
    store = SimpleNamespace(responses=None, class_logprob=None)
    return SimpleNamespace(results=results, vectors=vectors, store=store, umap="all")


@pytest.mark.parametrize(
    "names", [["A", "B", "C"], ["10", "$x", "C"], [r"$\frac{", "wave", "<b>"], ["手", "क", "ب"]]
)
def test_data_are_what_is_drawn(
    make_results: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    folder = make_results(class_names=names)
    summary = json.loads((folder / "summary.json").read_text())
    summary["store"]["provenance"]["groups"] = "none"
    (folder / "summary.json").write_text(json.dumps(summary))
    results = load_results(folder)
    n = len(results.predictions.sample_id)
    position = np.random.default_rng(1).normal(size=(n, 2))
    rows = np.arange(0, n, 2)
    monkeypatch.setattr(module, "embed", lambda vectors, seed, start: (position[rows], "UMAP"))
    inputs = inputs_of(results, lambda name, rows: np.zeros((len(rows), 3)))
    plot = module.map_figure(inputs, "umap_layer_1", "A map", [1], rows)
    data = list(csv.DictReader(io.StringIO(plot.csv())))
    assert [r["sample_id"] for r in data] == [results.predictions.sample_id[i] for i in rows]
    assert [r["class"] for r in data] == [names[results.predictions.label[i]] for i in rows]
    predicted = results.predictions.predicted("resid_post/1")[rows]
    assert [r["predicted"] for r in data] == [names[k] for k in predicted]
    np.testing.assert_allclose([float(r["x"]) for r in data], position[rows, 0])
    assert f"A random {len(rows)} of {n} images." in plot.caption
    # Where a sample is drawn follows its position: order is kept along both axes.
    assert plot.chart is not None
    assert plot.chart.map is not None
    assert plot.chart.frames == ()
    ((x, y),) = plot.chart.map["place"]
    for place, axis in ((x, 0), (y, 1)):
        ordered = np.asarray(place)[np.argsort(position[rows, axis])]
        assert (np.diff(ordered) >= 0).all()
        assert (ordered[0], ordered[-1]) == (0, 1)


def test_far_clusters_do_not_press_the_others_together() -> None:
    rng = np.random.default_rng(0)
    position = np.concatenate([rng.normal(size=(95, 2)), rng.normal(size=(5, 2)) + 100])
    place = embedding.spread_out(position)
    assert np.ptp(place[:95], axis=0).min() > 0.6
    np.testing.assert_array_equal(embedding.spread_out(np.ones((1, 2))), 0)


def test_every_layer_starts_from_the_map_before_it(
    full_results_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = load_results(full_results_dir)
    rng = np.random.default_rng(0)
    asked: list[str] = []
    starts: list[Any] = []

    def embed(vectors: np.ndarray, seed: int, start: Any) -> tuple[np.ndarray, str]:
        starts.append(start)
        return vectors, "UMAP"

    def vectors(name: str, rows: np.ndarray) -> np.ndarray:
        asked.append(name)
        return rng.normal(size=(len(rows), 2))

    monkeypatch.setattr(module, "embed", embed)
    plot = module.layer_maps(inputs_of(results, vectors))
    assert plot is not None
    assert asked == [f"resid_post/{layer}" for layer in results.layers]
    assert starts[0] is None
    data = list(csv.DictReader(io.StringIO(plot.csv())))
    n = len(data) // len(results.layers)
    for before, start in enumerate(starts[1:]):
        rows = data[before * n : before * n + n]
        np.testing.assert_array_equal([float(r["x"]) for r in rows], start[:, 0])
    assert plot.chart is not None
    assert [name for name, _ in plot.chart.frames] == [f"layer {k}" for k in results.layers]
    assert results.layers[plot.chart.frame] == results.best_layer


@pytest.mark.parametrize(
    ("groups", "expected"), [("near_duplicates 0.95", 144), ("signer/class", 288), ("none", 288)]
)
def test_one_image_stands_for_its_copies(
    make_results: Callable[..., Path], groups: str, expected: int
) -> None:
    folder = make_results(full=True)
    summary = json.loads((folder / "summary.json").read_text())
    summary["store"]["provenance"]["groups"] = groups
    (folder / "summary.json").write_text(json.dumps(summary))
    results = load_results(folder)
    rows = independent_rows(results, 1000, seed=1)
    assert len(rows) == expected
    assert (np.diff(rows) > 0).all()
    if expected == 144:
        assert len(np.unique(results.predictions.group[rows])) == 144
        assert rows_in_words(results, rows).endswith("144 of 288 images.")
    few = independent_rows(results, 50, seed=1)
    assert len(few) == 50
    assert "50 of 288 images." in rows_in_words(results, few)
    np.testing.assert_array_equal(few, independent_rows(results, 50, seed=1))
