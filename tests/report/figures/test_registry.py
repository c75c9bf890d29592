"""The figures of the report: each is registered, and none lists what the store can tell."""

from __future__ import annotations

import csv
import inspect
import io
import pkgutil
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from signbridge.report import figures
from signbridge.report.figures import registry, umap
from signbridge.report.figures.cka import cka_figure
from signbridge.report.inputs import Inputs
from signbridge.results.results import load_results


class Store(SimpleNamespace):
    """What figures ask of a store without thumbnails."""

    def __contains__(self, name: str) -> bool:
        return False


def _store(n: int, *baselines: str) -> Any:
    rng = np.random.default_rng(0)
    return Store(
        baselines=baselines,
        responses=None,
        class_logprob=None,
        feature=lambda name, rows=range(n): (
            rng.integers(0, 255, (len(rows), 784), dtype=np.uint8)
            if name == "pixels"
            else rng.normal(size=(n, 6))
        ),
    )


def test_every_file_that_builds_a_figure_is_registered() -> None:
    listed = inspect.getsource(registry)
    for module in pkgutil.iter_modules(figures.__path__):
        name = f"{figures.__name__}.{module.name}"
        builds = {"build", "curve_plot"} & vars(import_module(name)).keys()
        if builds and module.name not in {"plot", "curve_drawing"}:
            assert f"from {name} import" in listed, name


def test_all_figures_of_a_whole_folder_are_drawn_once(
    full_results_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(umap, "embed", lambda vectors, seed, start: (vectors[:, :2], "UMAP"))
    results = load_results(full_results_dir)
    store = _store(len(results.predictions.label), "pixels")
    with_store = [p.name for p in registry.draw_figures(Inputs(results, store, "all"))]
    assert len(set(with_store)) == len(with_store)
    assert with_store[0] == "layer_curve"
    without = [p.name for p in registry.draw_figures(Inputs(results))]
    assert [name for name in with_store if name in without] == without
    assert set(with_store) - set(without) == {"umap", "umap_layers", "cka"}


def test_a_baseline_that_the_page_does_not_know_is_in_its_geometry(results_dir: Path) -> None:
    results = load_results(results_dir)
    store = _store(len(results.predictions.label), "a_new_one", "pixels", "vision")
    plot = cka_figure(Inputs(results, store))
    assert plot is not None
    rows = list(csv.DictReader(io.StringIO(plot.csv())))
    assert list(dict.fromkeys(r["a"] for r in rows))[:3] == ["pixels", "vision", "a_new_one"]
