"""Accuracy by group: a signer that is read badly stands out, many groups say something still."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.stats import binomtest

from signbridge.report.figures.accuracy_by_group import accuracy_by_group
from signbridge.report.figures.plot import Plot
from signbridge.results.results import load_results

SIGNERS = ("ann", "bob", "cleo", "dan", "eve", "fay")


def _table(plot: Plot | None) -> list[dict[str, str]]:
    assert plot is not None
    return list(csv.DictReader(io.StringIO(plot.csv())))


def _plant(folder: Path, layout: str, prefix: str = "") -> Path:
    """Give the images to six signers; cleo is read right in 20 %, the others in 90 %."""
    summary = json.loads((folder / "summary.json").read_text())
    summary["store"]["provenance"]["groups"] = layout
    (folder / "summary.json").write_text(json.dumps(summary))
    with h5py.File(folder / "predictions.h5", "a") as file:
        label = file["label"][...]
        place = np.arange(len(label))
        signer = place % 6
        names = [str(name) for name in file["class_name"].asstr()[...]]
        file["group"][...] = signer
        file["sample_id"][...] = [
            prefix + layout.replace("class", names[k]).replace("signer", SIGNERS[s]) + f"/{i}.png"
            for i, (k, s) in enumerate(zip(label, signer, strict=True))
        ]
        # The share of right answers within each signer is exact: every tenth place.
        right = (place // 6) % 10 < np.where(signer == 2, 2, 9)
        answer = np.where(right, label, (label + 1) % len(names))
        file["probability"][...] = np.eye(len(names))[answer]
    return folder


@pytest.mark.parametrize(("layout", "prefix"), [("class/signer", ""), ("signer/class", "train/")])
def test_one_bad_signer_stands_out(
    make_results: Callable[..., Path], layout: str, prefix: str
) -> None:
    folder = _plant(make_results(class_names=list("ABCDE"), per_class=60), layout, prefix)
    plot = accuracy_by_group(load_results(folder))
    rows = _table(plot)
    assert rows[0]["name"] == "cleo"
    assert {r["name"] for r in rows} == set(SIGNERS)
    assert [float(r["accuracy"]) for r in rows] == [pytest.approx(0.2)] + [pytest.approx(0.9)] * 5
    assert [float(r["pixels_accuracy"]) for r in rows] == [float(r["accuracy"]) for r in rows]
    assert {(r["images"], r["classes"]) for r in rows} == {("50", "A; B; C; D; E")}
    for r in rows:
        expected = binomtest(round(50 * float(r["accuracy"])), 50).proportion_ci(method="wilson")
        assert float(r["ci_low"]) == pytest.approx(expected.low)
        assert float(r["ci_high"]) == pytest.approx(expected.high)
    assert plot is not None
    assert plot.alt.startswith("Lowest: cleo (A; B; C; D; E) 10 of 50; median of 6 groups: 90.0")
    assert "Each signer" in plot.caption
    lowest, *_, highest = plot.wide.spots
    assert lowest.text.startswith("cleo")
    assert lowest.y < highest.y


def test_many_small_groups_are_counted_and_the_worst_named(full_results_dir: Path) -> None:
    results = load_results(full_results_dir)
    plot = accuracy_by_group(results)
    rows = _table(plot)
    assert plot is not None
    p = results.predictions
    right = p.predicted(results.best_feature) == p.label
    expected = {int(g): right[p.group == g].mean() for g in np.unique(p.group)}
    assert {int(r["group"]): float(r["accuracy"]) for r in rows} == expected
    values = [float(r["accuracy"]) for r in rows]
    assert values == sorted(values)
    # Copies of a photograph are no trials of their own, and names are known of signers only.
    assert {(r["ci_low"], r["pixels_ci_high"], r["name"]) for r in rows} == {("", "", "")}
    none, whole = values.count(0), values.count(1)
    assert f"Of {len(rows)} groups {none} have no image right and {whole} have all" in plot.alt
    spots = plot.wide.spots
    assert [s.x for s in spots] == sorted(s.x for s in spots)
    assert sum(s.width for s in spots) == pytest.approx(spots[-1].x + spots[-1].width - spots[0].x)


def test_groups_of_one_image_each_are_no_figure(make_results: Callable[..., Path]) -> None:
    folder = make_results()
    with h5py.File(folder / "predictions.h5", "a") as file:
        file["group"][...] = np.arange(len(file["group"]))
    assert accuracy_by_group(load_results(folder)) is None
