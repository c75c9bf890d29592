"""Recall, confusion and the typical image, against scikit-learn and planted cases."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, recall_score

from signbridge.report.classes import class_recall, confusion_counts, top_confusions
from signbridge.report.figures.class_grid import class_grid, typical_images
from signbridge.report.figures.confusion import confusion
from signbridge.results.results import Results, load_results


@pytest.fixture(scope="module")
def results(results_dir: Path) -> Results:
    return load_results(results_dir)


def _answers(results: Results) -> tuple[np.ndarray, np.ndarray]:
    with h5py.File(results.path / "predictions.h5") as file:
        names = list(file["feature_name"].asstr()[...])
        p = file["probability"][names.index(f"resid_post/{results.best_layer}")]
        return file["label"][...], p.argmax(axis=1)


def test_recall_is_that_of_scikit_learn(results: Results) -> None:
    label, answer = _answers(results)
    reference = recall_score(label, answer, average=None)
    np.testing.assert_allclose([r.recall for r in class_recall(results)], reference)


def test_confusion_is_that_of_scikit_learn(results: Results) -> None:
    label, answer = _answers(results)
    np.testing.assert_array_equal(confusion_counts(results), confusion_matrix(label, answer))
    rows = list(csv.DictReader(io.StringIO(confusion(results).csv())))
    share = np.array([float(r["share"]) for r in rows]).reshape(24, 24)
    np.testing.assert_allclose(share, confusion_matrix(label, answer, normalize="true"))
    assert [r["true"] for r in rows[:24]] == ["A"] * 24


def test_top_confusions_are_the_largest_off_the_diagonal(results: Results) -> None:
    counts = confusion_counts(results)
    np.fill_diagonal(counts, 0)
    found = [count for _, _, count, _ in top_confusions(results, most=5)]
    assert found == sorted(counts.ravel().tolist(), reverse=True)[:5]
    for true, predicted, count, _ in top_confusions(results):
        assert counts[true, predicted] == count


def test_groups_of_a_class_are_counted_once(results: Results) -> None:
    assert {(r.n_images, r.n_groups) for r in class_recall(results)} == {(12, 6)}


def test_unscored_class_has_no_recall(make_results: Callable[..., Path]) -> None:
    folder = make_results(class_names=["A", "B", "C"])
    with h5py.File(folder / "predictions.h5", "r+") as file:
        probability = file["probability"][...]
        probability[:, file["label"][...] == 1] = np.nan
        file["probability"][...] = probability
    results = load_results(folder)
    recalls = class_recall(results)
    assert np.isnan(recalls[1].recall)
    assert recalls[1].n_scored == 0
    rows = list(csv.DictReader(io.StringIO(class_grid(results).csv())))
    assert rows[1]["recall"] == ""
    assert confusion(results).wide.png.startswith(b"\x89PNG")


def test_typical_image_is_the_planted_one() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(40, 200, (2, 784))
    noise = rng.integers(-40, 40, (10, 784))
    noise[[3, 8]] = 0
    label = np.repeat([0, 1], 5)
    pixels = np.clip(base[label] + noise, 0, 255).astype(np.uint8)
    assert typical_images(pixels, label) == {0: 3, 1: 8}


def test_constant_images_do_not_matter() -> None:
    pixels = np.zeros((3, 784), np.uint8)
    assert typical_images(pixels, np.array([0, 0, 2])) == {0: 0, 2: 2}


@pytest.mark.parametrize("n_classes", [1, 2, 24, 110])
def test_any_number_of_classes(make_results: Callable[..., Path], n_classes: int) -> None:
    names = [f"sign {i} $x_{i} with a long name" for i in range(n_classes)]
    folder = make_results(class_names=names, per_class=2, layers=[0, 1], random_split=False)
    results = load_results(folder)
    pixels = np.zeros((2 * n_classes, 784), np.uint8)
    grid = class_grid(results, pixels)
    for drawing in (grid.wide, grid.narrow):
        assert len(drawing.spots) == n_classes
        for spot in drawing.spots:
            assert 0 <= spot.x <= spot.x + spot.width <= 1
            assert 0 <= spot.y <= spot.y + spot.height <= 1
    matrix = confusion(results)
    assert sum(int(r[2]) for r in matrix.rows) == 2 * n_classes  # type: ignore[call-overload]
