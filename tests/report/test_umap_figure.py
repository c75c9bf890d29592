"""The map: few samples, names of every length, positions as written."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from signbridge.report import umap_figure as module
from signbridge.report.results import load_results


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_very_few_samples_use_principal_components(n: int) -> None:
    x = np.random.default_rng(0).normal(size=(n, 6))
    position, method = module.embed(x)
    assert method == "PCA"
    assert position.shape == (n, 2)
    assert np.isfinite(position).all()
    if n == 4:
        reference = PCA(2).fit_transform(StandardScaler().fit_transform(x))
        np.testing.assert_allclose(np.abs(position), np.abs(reference), atol=1e-9)


def test_identical_vectors_do_not_break_it() -> None:
    position, method = module.embed(np.ones((40, 5), np.float16))
    assert method == "PCA"
    np.testing.assert_array_equal(position, 0)


def test_umap_of_few_and_of_more_samples_is_deterministic_and_keeps_clusters() -> None:
    rng = np.random.default_rng(0)
    few, method = module.embed(rng.normal(size=(7, 4)))
    assert method == "UMAP"
    assert np.isfinite(few).all()
    label = np.repeat([0, 1], 20)
    x = rng.normal(size=(40, 12)) + 8 * label[:, None]
    position, _ = module.embed(x, seed=3)
    again, _ = module.embed(x, seed=3)
    np.testing.assert_array_equal(position, again)
    distance = np.linalg.norm(position[:, None] - position[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    np.testing.assert_array_equal(label[distance.argmin(axis=1)], label)


@pytest.mark.parametrize(
    "names", [["A", "B", "C"], ["10", "$x", "C"], [r"$\frac{", "wave", "<b>"], ["手", "क", "ب"]]
)
def test_data_are_what_is_drawn(
    make_results: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    results = load_results(make_results(class_names=names))
    n = len(results.predictions.sample_id)
    position = np.random.default_rng(1).normal(size=(n, 2))
    rows = np.arange(0, n, 2)
    monkeypatch.setattr(module, "embed", lambda vectors, seed: (position[rows], "UMAP"))
    plot = module.umap_figure(results, np.zeros((len(rows), 3)), rows)
    data = list(csv.DictReader(io.StringIO(plot.csv())))
    assert [r["sample_id"] for r in data] == [results.predictions.sample_id[i] for i in rows]
    assert [r["class"] for r in data] == [names[results.predictions.label[i]] for i in rows]
    np.testing.assert_allclose([float(r["x"]) for r in data], position[rows, 0])
    assert f"A random {len(rows)} of the {n} images" in plot.caption
    # Where a sample is drawn follows its position: order is kept along both axes.
    spots = plot.wide.spots
    assert np.argsort([s.x for s in spots]).tolist() == np.argsort(position[rows, 0]).tolist()
    assert np.argsort([-s.y for s in spots]).tolist() == np.argsort(position[rows, 1]).tolist()


def test_chosen_letters_keep_their_distance_and_leave_no_gap() -> None:
    rng = np.random.default_rng(0)
    points, label = rng.uniform(0, 100, (800, 2)), rng.integers(0, 5, 800)
    chosen = module.thinned(points, label, 9.0)
    between = np.linalg.norm(points[chosen][:, None] - points[chosen][None], axis=2)
    assert between[np.triu_indices(len(chosen), 1)].min() > 9
    # Every sample left out lies near a chosen one.
    to_chosen = np.linalg.norm(points[:, None] - points[chosen][None], axis=2).min(axis=1)
    assert to_chosen.max() <= 9


def test_a_crowd_speaks_with_the_letter_of_most() -> None:
    label = np.array([0] * 3 + [1] * 9)
    assert label[module.thinned(np.zeros((12, 2)), label, 1.0)].tolist() == [1]


def test_many_samples_are_dots_with_names(
    make_results: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = load_results(make_results(class_names=["A", "B"], per_class=400, layers=[0]))
    position = np.random.default_rng(1).normal(size=(800, 2))
    monkeypatch.setattr(module, "embed", lambda vectors, seed: (position, "UMAP"))
    plot = module.umap_figure(results, np.zeros((800, 3)))
    assert plot.caption.startswith("Each dot is one image")
    assert len(plot.wide.spots) == 800
