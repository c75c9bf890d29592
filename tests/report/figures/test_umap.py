"""The map: few samples, names of every length, positions as written."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import umap
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from signbridge.report.figures import embedding, map_marks, umap_strip
from signbridge.report.figures import umap as module
from signbridge.report.figures.subsample import independent_rows, rows_in_words
from signbridge.results.results import load_results


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


@pytest.mark.parametrize("kind", ["clusters", "copies", "few"])
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
    monkeypatch.setattr(embedding, "_umap", lambda vectors, seed: np.zeros((len(vectors), 2)))
    position, _ = embedding.embed(x)
    embedding._stop()
    np.testing.assert_array_equal(position, expected)


def test_a_process_that_was_killed_costs_no_map(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=(20, 4))
    embedding.warm_up()
    assert embedding._process is not None
    embedding._process.kill()
    embedding._process.wait()
    monkeypatch.setattr(embedding, "_umap", lambda vectors, seed: np.ones((len(vectors), 2)))
    np.testing.assert_array_equal(embedding.embed(x)[0], 1)


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
    monkeypatch.setattr(module, "embed", lambda vectors, seed: (position[rows], "UMAP"))
    plot = module.umap_figure(results, np.zeros((len(rows), 3)), rows)
    data = list(csv.DictReader(io.StringIO(plot.csv())))
    assert [r["sample_id"] for r in data] == [results.predictions.sample_id[i] for i in rows]
    assert [r["class"] for r in data] == [names[results.predictions.label[i]] for i in rows]
    np.testing.assert_allclose([float(r["x"]) for r in data], position[rows, 0])
    assert f"A random {len(rows)} of {n} images." in plot.caption
    # Where a sample is drawn follows its position: order is kept along both axes.
    spots = plot.wide.spots
    assert np.argsort([s.x for s in spots]).tolist() == np.argsort(position[rows, 0]).tolist()
    assert np.argsort([-s.y for s in spots]).tolist() == np.argsort(position[rows, 1]).tolist()


def test_chosen_letters_keep_their_distance_and_leave_no_gap() -> None:
    rng = np.random.default_rng(0)
    points, label = rng.uniform(0, 100, (800, 2)), rng.integers(0, 5, 800)
    chosen = map_marks.thinned(points, label, 9.0)
    between = np.linalg.norm(points[chosen][:, None] - points[chosen][None], axis=2)
    assert between[np.triu_indices(len(chosen), 1)].min() > 9
    # Every sample left out lies near a chosen one.
    to_chosen = np.linalg.norm(points[:, None] - points[chosen][None], axis=2).min(axis=1)
    assert to_chosen.max() <= 9


def test_a_crowd_speaks_with_the_letter_of_most() -> None:
    label = np.array([0] * 3 + [1] * 9)
    assert label[map_marks.thinned(np.zeros((12, 2)), label, 1.0)].tolist() == [1]


def test_many_samples_are_dots_with_names(
    make_results: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = load_results(make_results(class_names=["A", "B"], per_class=400, layers=[0]))
    position = np.random.default_rng(1).normal(size=(800, 2))
    monkeypatch.setattr(module, "embed", lambda vectors, seed: (position, "UMAP"))
    plot = module.umap_figure(results, np.zeros((800, 3)))
    assert "Names stand where there is room" in plot.caption
    assert len(plot.wide.spots) == 800


def test_any_layer_is_mapped_with_its_own_answers(
    full_results_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = load_results(full_results_dir)
    n = len(results.predictions.sample_id)
    monkeypatch.setattr(module, "embed", lambda vectors, seed: (vectors, "UMAP"))
    plot = module.umap_figure(results, np.random.default_rng(0).normal(size=(n, 2)), layer=1)
    assert plot.name == "umap_layer_1"
    predicted = results.predictions.predicted("resid_post/1")
    rows = list(csv.DictReader(io.StringIO(plot.csv())))
    assert [r["predicted"] for r in rows] == [results.class_names[k] for k in predicted]


def test_aligned_maps_keep_their_distances_and_undo_a_rotation() -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(30, 2)) * [3, 1]
    turn = np.array([[0.6, 0.8], [0.8, -0.6]])  # a reflection
    aligned = embedding.align(reference @ turn + 5, reference)
    np.testing.assert_allclose(aligned, reference - reference.mean(axis=0), atol=1e-9)


def test_strip_shows_the_same_samples_at_every_layer(
    full_results_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = load_results(full_results_dir)
    rng = np.random.default_rng(0)
    rows = np.arange(0, 288, 3)
    asked = []
    monkeypatch.setattr(umap_strip, "embed", lambda vectors, seed: (vectors, "UMAP"))

    def vectors(layer: int) -> np.ndarray:
        asked.append(layer)
        return rng.normal(size=(len(rows), 2))

    plot = umap_strip.umap_strip(results, vectors, rows)
    assert asked == list(results.layers)
    data = list(csv.DictReader(io.StringIO(plot.csv())))
    ids = [results.predictions.sample_id[i] for i in rows]
    for k in results.layers:
        assert [r["sample_id"] for r in data if r["layer"] == str(k)] == ids
    assert "all other classes grey" in plot.caption
    one = umap_strip.umap_strip(results, lambda k: np.zeros((5, 2)), rows[:5])
    assert len(one.rows) == 5 * len(results.layers)


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
