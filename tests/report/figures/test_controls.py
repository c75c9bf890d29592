"""Peak, comparisons, memorisation, calibration: what is drawn is what the folder says."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from signbridge.errors import ProbeError
from signbridge.report.figures.differences import differences_figure
from signbridge.report.figures.memorisation import memorisation_figure, selectivity_figure
from signbridge.report.figures.peak import peak_figure
from signbridge.report.figures.plot import Plot
from signbridge.report.figures.reliability import reliability, reliability_figure
from signbridge.report.text.findings import find
from signbridge.report.text.first_screen import headline, tiles, verdicts
from signbridge.report.text.page import against_table
from signbridge.results.results import load_results
from signbridge.statistics.metrics import equal_mass_bins, score


def _table(plot: Plot | None) -> list[dict[str, str]]:
    assert plot is not None
    return list(csv.DictReader(io.StringIO(plot.csv())))


def _edit(folder: Path, **changes: object) -> Path:
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | changes))
    return folder


def test_calibration_bins_are_those_of_the_metric(full_results_dir: Path) -> None:
    results = load_results(full_results_dir)
    for feature in ("resid_post/2", "pixels"):
        found = reliability(results, feature, feature)
        assert found is not None
        p = results.predictions.probability(feature)
        expected = score(p, results.predictions.label)["calibration_error"]
        assert found.error == pytest.approx(expected, abs=1e-6)
        assert found.count.sum() == len(p)
    rows = _table(reliability_figure(results))
    assert {r["feature"] for r in rows} == {results.best_feature, "pixels"}
    assert all(float(r["ci_low"]) <= float(r["accuracy"]) <= float(r["ci_high"]) for r in rows)


def test_equal_confidences_share_a_bin() -> None:
    assert len(set(equal_mass_bins(np.full(100, 0.3)).tolist())) == 1
    assert np.bincount(equal_mass_bins(np.arange(30.0)), minlength=15).tolist() == [2] * 15
    assert equal_mass_bins(np.array([])).shape == (0,)


def test_figures_hold_the_rows_of_the_folder(full_results_dir: Path) -> None:
    results = load_results(full_results_dir)
    peak = results.summary.peak
    assert peak is not None
    rows = _table(peak_figure(results))
    assert [int(r["layer"]) for r in rows] == list(results.layers)
    assert [int(r["layer"]) for r in rows if r["candidate"] == "1"] == list(peak.candidates)
    behind = {c.layer: c.difference for c in results.family("layers_vs_peak")}
    for r in rows:
        if int(r["layer"]) != peak.layer:
            assert float(r["difference_to_peak"]) == behind[int(r["layer"])]
    shown = {(r["family"], r["a"], r["b"]) for r in _table(differences_figure(results))}
    there = {(c.family, c.a, c.b) for c in results.comparisons if c.family != "layers_vs_peak"}
    assert shown == there
    tasks = {(r["task"], r["split"]) for r in _table(memorisation_figure(results))}
    assert ("group_control", "random") in tasks
    for r in _table(selectivity_figure(results)):
        layer = int(r["layer"]) if r["layer"] else None
        score = results.score(r["feature"], layer, "selectivity", "random")
        assert score is not None
        assert float(r["value"]) == score.value


def test_control_rows_do_not_enter_the_curves(full_results_dir: Path) -> None:
    results = load_results(full_results_dir)
    control = results.curve("resid_post", "accuracy", "random", "group_control")
    labels = results.curve("resid_post", "accuracy", "random")
    assert len(control) == len(labels) == len(results.layers)
    assert [a.value for a in control] != [b.value for b in labels]
    assert {s.task for s in results.baselines("accuracy", "random")} == {"label"}


def test_findings_use_the_corrected_p_values(make_results: Callable[..., Path]) -> None:
    folder = make_results(full=True)
    path = folder / "comparisons.csv"
    best = load_results(folder).best_layer
    lines = path.read_text().splitlines()
    for i, line in enumerate(lines):
        if line.startswith(f"layers_vs_pixels,resid_post/{best},"):
            lines[i] = (
                f"layers_vs_pixels,resid_post/{best},pixels,accuracy,0.1,0.01,0.19,0.03,0.2,8"
            )
    path.write_text("\n".join(lines))
    results = load_results(folder)
    table = against_table(results)
    assert table is not None
    assert any(row.name == "minus random weights" for row in table.rows)
    (row,) = [row for row in table.rows if row.name == "minus raw pixels"]
    difference, interval, _, corrected, _ = (cell.value for cell in row.cells)
    assert (difference, interval, corrected) == ("+10.0", "+1.0 to +19.0", "0.200")


def test_the_verdict_on_memorising_gives_the_control_task(full_results_dir: Path) -> None:
    told = verdicts(load_results(full_results_dir))[-1]
    assert "56.0 to 66.0\u00a0%" in told.numbers


@pytest.mark.parametrize(
    "changes",
    [
        {"peak": None, "permutation_test": None, "memorisation": None},
        {"peak": {}, "permutation_test": {"m": 9}, "memorisation": {"layer": "x"}},
        {"peak": {"layer": 1, "layers": [None, 2]}, "permutation_test": [], "memorisation": 3},
        {"peak": {"layer": 1, "layers": [0, 2], "share": {"a": 1}, "candidates": None}},
        {
            "sgd": {"largest_gap": 0.02, "fits": [{"C": 1}]},
            "description_length": {"blocks": [1, 2]},
        },
        {"sgd": {"largest_gap": None}},
        {"permutation_test": {"m": 99, "p": 0.01, "by_layer": {"0": None}}},
    ],
)
def test_incomplete_blocks_are_left_out(
    make_results: Callable[..., Path], changes: dict[str, object]
) -> None:
    results = load_results(_edit(make_results(full=True), **changes))
    text = " ".join([*find(results).notes.values(), headline(results)])
    assert "nan" not in text
    assert "None" not in text
    tiles(results)
    verdicts(results)
    peak_figure(results)


def test_folders_without_comparisons_have_none(results_dir: Path) -> None:
    results = load_results(results_dir)
    assert results.comparisons == ()
    assert differences_figure(results) is None
    assert peak_figure(results) is None
    assert memorisation_figure(results) is None
    assert selectivity_figure(results) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("family,a\nx,y\n", "lacks the column 'b'"),
        (
            "family,a,b,metric,difference,ci_low,ci_high,p,p_corrected,n_comparisons\n"
            "f,a,b,accuracy,much,0,0,1,1,1\n",
            "line 2: difference is 'much'",
        ),
        ("\xff\xfe", "is no UTF-8 text"),
    ],
)
def test_a_damaged_table_of_comparisons_is_named(
    make_results: Callable[..., Path], content: str, message: str
) -> None:
    folder = make_results(full=True)
    (folder / "comparisons.csv").write_text(content, encoding="latin-1")
    with pytest.raises(ProbeError, match=message) as error:
        load_results(folder)
    assert "comparisons.csv" in str(error.value)
