"""The layer curve shows the scores that the folder holds."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from signbridge.report.figures.layer_curve import layer_curve
from signbridge.report.figures.leakage import leakage_figure, leakage_pairs
from signbridge.results.results import load_results


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("metric", ["accuracy", "usable_information"])
def test_data_are_the_scores(results_dir: Path, metric: str) -> None:
    results = load_results(results_dir)
    rows = _rows(layer_curve(results, metric).csv())
    with (results_dir / "scores.csv").open() as file:
        source = [r for r in csv.DictReader(file) if r["metric"] == metric]
    layers = {(r["layer"], r["split"], float(r["value"])) for r in source if r["layer"]}
    assert {(r["layer"], r["split"], float(r["value"])) for r in rows if r["layer"]} == layers
    baselines = {
        (r["feature"], float(r["value"]), float(r["ci_low"] or "nan"))
        for r in source
        if not r["layer"] and r["split"] == "grouped" and r["feature"] not in ("chance", "majority")
    }
    found = {
        (r["feature"], float(r["value"]), float(r["ci_low"] or "nan"))
        for r in rows
        if not r["layer"] and r["feature"] != "chance"
    }
    assert found == baselines


def test_peak_is_the_best_layer(results_dir: Path) -> None:
    results = load_results(results_dir)
    best = results.score("resid_post", results.best_layer, "accuracy")
    assert best is not None
    alt = layer_curve(results).alt
    assert f"highest at layer {best.layer} with {100 * best.value:.1f}" in alt


@pytest.mark.parametrize(
    "layers", [[8], [8, 16, 24, 31], pytest.param(list(range(80)), marks=pytest.mark.slow)]
)
def test_any_number_of_layers(make_results: Callable[..., Path], layers: list[int]) -> None:
    folder = make_results(layers=layers, class_names=["A", "B", "C"], per_class=4)
    plot = layer_curve(load_results(folder))
    assert plot.chart is not None
    drawn = plot.chart.option["baseOption"]["series"]
    main = next(s for s in drawn if s["name"] == "knows: layers")
    assert [point["head"] for point in main["data"]] == [f"layer {k}" for k in layers]
    for k, point in zip(layers, main["data"], strict=True):
        score = load_results(folder).score("resid_post", k, "accuracy")
        assert score is not None
        assert point["value"] == [k, pytest.approx(100 * score.value)]
        assert f"{100 * score.value:.1f}" in point["tip"]


def test_a_layer_without_a_score_is_left_out(make_results: Callable[..., Path]) -> None:
    folder = make_results(random_split=False)
    path = folder / "scores.csv"
    lines = path.read_text().splitlines()
    kept = [i for i, s in enumerate(lines) if s.startswith("resid_post,0,exact,grouped,accuracy")]
    cells = lines[kept[0]].split(",")
    cells[5:8] = ["", "", ""]
    lines[kept[0]] = ",".join(cells)
    path.write_text("\n".join(lines))
    rows = _rows(layer_curve(load_results(folder)).csv())
    assert [r["layer"] for r in rows if r["feature"] == "resid_post"] == [
        str(k) for k in range(1, 8)
    ]


def test_equal_chance_and_majority_share_a_line(results_dir: Path) -> None:
    rows = _rows(layer_curve(load_results(results_dir)).csv())
    assert [r["feature"] for r in rows].count("chance") == 1
    assert "majority" not in {r["feature"] for r in rows}


def test_leakage_pairs_the_same_feature(results_dir: Path) -> None:
    results = load_results(results_dir)
    pairs = leakage_pairs(results)
    assert [(a.feature, a.layer) for a, _ in pairs] == [
        ("resid_post", results.best_layer),
        ("pixels", None),
        ("vision", None),
        ("projector", None),
    ]
    for main, other in pairs:
        assert (main.feature, main.layer, main.metric) == (other.feature, other.layer, other.metric)
        assert (main.split, other.split) == ("grouped", "random")


def test_no_leakage_figure_without_a_random_split(make_results: Callable[..., Path]) -> None:
    assert leakage_figure(load_results(make_results(random_split=False))) is None


@pytest.mark.slow
def test_the_layers_of_an_encoder_are_called_so(results_dir: Path) -> None:
    found = load_results(results_dir)
    assert "by decoder layer" in layer_curve(found).title
    store = replace(found.store, provenance={**found.provenance, "stack": "encoder"})
    found = replace(found, summary=replace(found.summary, store=store))
    plot = layer_curve(found)
    assert "by encoder layer" in plot.title
    assert "decoder layer" not in plot.caption + plot.alt
    assert "output of each encoder layer" in plot.caption
