"""What the released code wrote opens, is reported, compared and continued."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fixtures.numbers import differing

from signbridge.cli.main import main
from signbridge.probes import SweepConfig, load_probes, run_sweep
from signbridge.report import load_results, print_table, write_report
from signbridge.report.compare import write_comparison
from signbridge.store import open_store

RELEASED = Path(__file__).parents[1] / "data" / "released"


def test_a_released_folder_opens() -> None:
    results = load_results(RELEASED / "results")
    assert results.best_layer == 7
    assert len(results.scores) == len((RELEASED / "results/scores.csv").read_text().split()) - 1
    assert len(results.comparisons) == 140
    summary = results.summary
    written = json.loads((RELEASED / "results/summary.json").read_text())
    for name in ("peak", "nested", "leakage", "said", "permutation_test", "memorisation"):
        assert getattr(summary, name) is not None
    assert summary.against_baselines.keys() == written["against_baselines"].keys()
    assert summary.said is not None
    assert summary.said.text is not None
    assert summary.said.text.distinct_answers == written["said"]["text"]["distinct_answers"]
    assert results.predictions.predicted("resid_post/7").shape == (298,)


def test_a_released_folder_is_reported_and_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        shutil.copytree(RELEASED / "results", tmp_path / name)
    page = write_report(tmp_path / "one", RELEASED / "tiny-sample.h5", umap="none")
    text = page.read_text(encoding="utf-8")
    assert "82.2" in text
    assert "Layer 7 knows 3.7 of the 4.6 bits" in text
    assert '"0":"data:image/png;base64,' in text  # its store holds no thumbnails but grey images
    assert (tmp_path / "one" / "figures" / "class_grid.png").exists()
    print_table(tmp_path / "one")
    assert "layer 7 (best)" in capsys.readouterr().out
    assert write_comparison([tmp_path / "one", tmp_path / "two"]).exists()


def test_released_probes_read_the_released_store() -> None:
    probes = load_probes(RELEASED / "results")
    assert probes.layers == tuple(range(8))
    assert {"pixels", "vision", "projector"} <= set(probes)
    with open_store(RELEASED / "tiny-sample.h5") as store:
        for name in ("resid_post/7", "pixels"):
            right = probes[name].predict(store.feature(name)) == np.asarray(store.labels)
            assert right.mean() > 0.95  # all images were trained on


def test_a_released_sweep_that_was_stopped_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "activations").mkdir()
    shutil.copy(RELEASED / "tiny-sample.h5", "activations")
    before = RELEASED / "unfinished-results"
    shutil.copytree(before / "parts", tmp_path / "whole" / ".parts")
    config = SweepConfig(
        "activations/tiny-sample.h5", "whole", layers=[3, 7], permutations=39, bootstrap=100
    )
    stages: list[str] = []
    made = run_sweep(config, lambda name, done, total: stages.append(name))
    probed = [name for name in stages if " split" in name or "all images" in name]
    assert probed
    assert not [name for name in probed if "resid_post" in name or "pixels" in name]
    assert differing(before, made) == []


def test_a_released_extraction_that_was_stopped_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(RELEASED / "unfinished-store" / "parts", tmp_path / "store.h5.parts")
    arguments = ["--layers", "[0,7]", "--classes", "4", "--per_class", "4"]
    command = ["extract", "--images", "sample", "--model", "tiny", "--output", "store.h5"]
    assert main([*command, *arguments]) == 0
    with (
        open_store(RELEASED / "unfinished-store" / "finished.h5") as old,
        open_store("store.h5", verify="full") as new,
    ):
        assert new.provenance == old.provenance
        assert new.sample_ids == old.sample_ids
        assert new.layers == old.layers == (0, 7)
        for layer in new.layers:
            first, second = old.layer(layer), new.layer(layer)
            np.testing.assert_array_equal(first[:8], second[:8])  # taken from the shard
            np.testing.assert_allclose(first, second, rtol=5e-3, atol=5e-3)
