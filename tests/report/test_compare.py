"""Comparisons of runs: paired where the images are the same, said where they are not."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from signbridge.cli.main import main
from signbridge.errors import ProbeError
from signbridge.report.compare import write_comparison
from signbridge.report.compare.differences import differences
from signbridge.report.compare.pairing import Pairing, pair_up
from signbridge.report.compare.runs import (
    depth_axis,
    layers_by_depth,
    legend_texts,
    load_runs,
    warnings_of,
    what_differs,
)
from signbridge.report.groups import few_accuracies
from signbridge.results.results import load_results

LETTERS = list("ABCDEF")
Make = Callable[..., Path]


def _provenance(folder: Path, **changes: object) -> Path:
    summary = json.loads((folder / "summary.json").read_text())
    summary["store"]["provenance"] |= {"image_fingerprint": "one", **changes}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def _protocol(folder: Path, **changes: object) -> Path:
    summary = json.loads((folder / "summary.json").read_text())
    summary["protocol"] |= changes
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture
def two(make_results: Make) -> list[Path]:
    """Two runs of the same images with other prompts."""
    a = make_results("a", class_names=LETTERS, layers=range(4), per_class=30, full=True, seed=1)
    b = make_results("b", class_names=LETTERS, layers=range(4), per_class=30, full=True, seed=2)
    question = "USER: <image>\nWhat sign is being made in this image? Say it.\nASSISTANT:"
    return [_provenance(a), _provenance(b, prompt=question, quantization="nf4")]


def test_differences_are_those_of_the_accuracies(two: list[Path]) -> None:
    runs = load_runs(two)
    found, notes = differences(runs)
    assert notes == []
    layers = [d for d in found if d.family == "layers"]
    assert [d.layer for d in layers] == [0, 1, 2, 3]
    for d in found:
        a, b = (run.results.predictions for run in (runs[1], runs[0]))
        label = a.label
        expected = (a.predicted(d.a) == label).mean() - (b.predicted(d.b) == label).mean()
        assert d.difference == pytest.approx(expected, abs=1e-12)
        assert d.ci_low <= d.difference <= d.ci_high
        assert 0 < d.p <= d.p_corrected <= 1
    (best,) = (d for d in found if d.family == "best")
    assert best.a == runs[1].results.best_feature
    assert best.b == runs[0].results.best_feature
    assert {d.a for d in found if d.family == "baselines" and "/" not in d.a} == {
        *("pixels", "vision", "projector")
    }


def test_a_run_against_its_copy_differs_nowhere(two: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(two[0], copy)
    found, _ = differences(load_runs([two[0], copy]))
    assert {d.difference for d in found} == {0.0}
    assert {d.relation for d in found} == {"open"}


def test_order_of_images_and_classes_does_not_matter(two: list[Path]) -> None:
    before, _ = differences(load_runs(two))
    folder = two[1]
    rng = np.random.default_rng(0)
    with h5py.File(folder / "predictions.h5", "r+") as file:
        n = len(file["label"])
        order, classes = rng.permutation(n), rng.permutation(6)
        names = file["class_name"].asstr()[...]
        file["class_name"][...] = names[classes]
        file["label"][...] = np.argsort(classes)[file["label"][...]][order]
        for name in ("group", "fold"):
            file[name][...] = file[name][...][order]
        file["sample_id"][...] = file["sample_id"].asstr()[...][order]
        file["probability"][...] = file["probability"][...][:, order][:, :, classes]
    summary = json.loads((folder / "summary.json").read_text())
    summary["store"]["class_names"] = names[classes].tolist()
    (folder / "summary.json").write_text(json.dumps(summary))
    after, _ = differences(load_runs(two))
    for x, y in zip(before, after, strict=True):
        assert (x.a, x.difference, x.p) == (y.a, pytest.approx(y.difference), y.p)
        assert x.ci_low == pytest.approx(y.ci_low, abs=1e-9)


def test_page_and_files(two: list[Path]) -> None:
    page = write_comparison(two)
    folder = two[0].parent / "a-vs-b"
    assert page == folder / "compare.html"
    text = page.read_text(encoding="utf-8")
    assert "What differs" in text
    assert "http://" not in text
    assert "https://" not in text
    rows = list(csv.DictReader((folder / "differences.csv").open()))
    assert {r["family"] for r in rows} == {"layers", "best", "baselines"}
    record = json.loads((folder / "comparison.json").read_text())
    assert record["warnings"] == []
    assert set(record["differs"]) == {"prompt", "quantization"}
    figures = {f.stem for f in (folder / "figures").glob("*.csv")}
    assert figures == {"curves", "differences", "side_by_side"}
    assert write_comparison(two) == page  # again, over itself
    bits = write_comparison(two, folder.parent / "bits", "usable_information")
    assert "bits" in bits.read_text(encoding="utf-8")


def test_legend_tells_only_what_differs(two: list[Path]) -> None:
    runs = load_runs(two)
    assert [d.key for d in what_differs(runs)] == ["quantization", "prompt"]
    first, second = legend_texts(runs)
    assert first == "a (quantization none, prompt …Answer with one word.…)"
    assert second == "b (quantization nf4, prompt …Say it.…)"


def test_models_of_other_depth_share_a_relative_axis(make_results: Make) -> None:
    deep = _provenance(make_results("deep", class_names=LETTERS, layers=range(9), full=True))
    flat = _provenance(make_results("flat", class_names=LETTERS, layers=range(4), full=True))
    runs = load_runs([deep, flat])
    assert depth_axis(runs)
    found, _ = differences(runs)
    layers = [d for d in found if d.family == "layers"]
    assert [(d.a, d.b) for d in layers] == [
        (f"resid_post/{k}", f"resid_post/{j}") for k, j in enumerate([0, 3, 5, 8])
    ]
    depths = [(d.relative_depth, d.other_relative_depth) for d in layers]
    assert depths == [(0, 0), (1 / 3, 3 / 8), (2 / 3, 5 / 8), (1, 1)]
    mine, other = (
        run.results.score("resid_post", layer, "accuracy").value
        for run, layer in ((runs[1], 2), (runs[0], 5))
    )
    assert layers[2].difference == pytest.approx(mine - other)
    assert layers_by_depth(*runs) == [(0, 0), (3, 1), (5, 2), (8, 3)]
    assert layers_by_depth(*runs[::-1]) == [(0, 0), (1, 3), (2, 5), (3, 8)]
    assert not any("/" in d.a for d in found if d.family == "baselines")
    page = write_comparison([deep, flat])
    (row, *_) = csv.DictReader((page.parent / "figures" / "differences.csv").open())
    assert (row["layer"], row["other_layer"], row["relative_depth"]) == ("0", "0", "0.0")
    rows = list(csv.DictReader((page.parent / "figures" / "curves.csv").open()))
    assert [float(r["relative_depth"]) for r in rows if r["run"] == "flat"] == pytest.approx(
        [0, 1 / 3, 2 / 3, 1]
    )
    text = page.read_text(encoding="utf-8")
    best = runs[1].results.best_layer
    assert f"layer {best}, relative depth {best / 3:.2f}" in text
    assert "nearest by relative depth" in text


def test_layers_of_an_encoder_are_not_those_of_a_decoder(make_results: Make) -> None:
    a = _provenance(make_results("a", class_names=LETTERS, layers=[0, 1]))
    b = _provenance(make_results("b", class_names=LETTERS, layers=[0, 1]), stack="encoder")
    assert (
        "The layers of b are those of its encoder and the layers of a those of its decoder."
        in warnings_of(load_runs([a, b]))
    )


def test_other_classes_images_or_splits_are_said(make_results: Make) -> None:
    a = _provenance(make_results("a", class_names=LETTERS, layers=[0, 1], full=True))
    other = _provenance(
        make_results("classes", class_names=list("XYZ"), layers=[0, 1], full=True),
        image_fingerprint="two",
        image_source="elsewhere",
    )
    runs = load_runs([a, other])
    assert any("different chance levels" in w for w in warnings_of(runs))
    found, notes = differences(runs)
    assert found == []
    assert "different classes" in notes[0]
    write_comparison([a, other])
    images = _provenance(
        make_results("images", class_names=LETTERS, layers=[0, 1], full=True),
        image_fingerprint="two",
        image_source="elsewhere",
    )
    assert "different images" in str(pair_up(*load_runs([a, images])))
    split = _protocol(
        _provenance(make_results("split", class_names=LETTERS, layers=[0, 1], full=True)),
        folds=3,
        C=[0.1],
        seed=1,
    )
    said = " ".join(warnings_of(load_runs([a, split])))
    assert "3 folds" in said
    assert "has C 0.1" in said


@pytest.mark.parametrize(("metric", "missed"), [("macro_f1", True), ("top5_accuracy", False)])
def test_a_metric_that_only_one_has_is_named_where_it_would_be_shown(
    make_results: Make, metric: str, missed: bool
) -> None:
    """Results of earlier versions lack the metrics for many classes."""
    a, b = (
        _provenance(make_results(name, class_names=LETTERS, layers=[0, 1], full=True))
        for name in ("a", "b")
    )
    lines = (a / "scores.csv").read_text().splitlines()
    kept = [line for line in lines if f",{metric}," not in line]
    added = [line.replace(",macro_f1,", f",{metric},") for line in lines if ",macro_f1," in line]
    (a / "scores.csv").write_text("\n".join([*kept, *added]) + "\n")
    (b / "scores.csv").write_text("\n".join(kept) + "\n")
    said = [w for w in warnings_of(load_runs([a, b])) if "do not share the metrics" in w]
    assert [metric in w for w in said] == [True] * missed


def test_shared_images_of_two_selections_are_paired(make_results: Make) -> None:
    """More images of the same source: ids in common are the same images."""
    few = _provenance(make_results("few", class_names=LETTERS, layers=[0], per_class=10, full=True))
    many = make_results("many", class_names=LETTERS, layers=[0], per_class=10, full=True)
    _provenance(many, image_fingerprint="two")
    with h5py.File(many / "predictions.h5", "r+") as file:
        ids = file["sample_id"].asstr()[...]
        ids[:6] = [f"train/{1000 + i}" for i in range(6)]
        file["sample_id"][...] = ids
        file["group"][...] = file["group"][...] // 2  # coarser than the other's
    runs = load_runs([few, many])
    pairing = pair_up(*runs)
    assert isinstance(pairing, Pairing)
    assert len(pairing.label) == 54
    assert "the 54 images that both have scored" in pairing.note
    assert "groups differ" in pairing.note
    assert len(np.unique(pairing.group)) == 14
    with h5py.File(many / "predictions.h5", "r+") as file:
        file["label"][10] = (file["label"][10] + 1) % 6
    assert "different labels" in str(pair_up(*load_runs([few, many])))


def test_bad_input_is_one_sentence(two: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="two or more results folders, not 1"):
        write_comparison(two[:1])
    with pytest.raises(ProbeError, match="is given twice"):
        write_comparison([two[0], f"{two[0]}/../a"])
    with pytest.raises(ProbeError, match="is not a folder"):
        write_comparison([two[0], tmp_path / "nothing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ProbeError, match=r"empty has no summary\.json"):
        write_comparison([two[0], tmp_path / "empty"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "comparison.json").write_text("{}")
    with pytest.raises(ProbeError, match="holds other files and no comparison"):
        write_comparison(two, tmp_path / "other")
    with pytest.raises(ProbeError, match="too long for its file system"):
        write_comparison(two, tmp_path / ("n" * 300))
    with pytest.raises(ProbeError, match="holds other files and no comparison"):
        write_comparison(two, two[1])
    with pytest.raises(ProbeError, match="is a file"):
        write_comparison(two, two[1] / "scores.csv")
    with pytest.raises(ProbeError, match="not 'f1'"):
        write_comparison(two, tmp_path / "x", "f1")
    with pytest.raises(ProbeError, match="at most 8"):
        write_comparison([tmp_path / str(i) for i in range(9)])
    assert not (tmp_path / "x").exists()


def test_equal_folder_names_are_told_apart(two: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "more" / "a"
    shutil.copytree(two[1], other)
    names = [run.name for run in load_runs([two[0], other])]
    assert names[1] == "more/a"
    assert names[0].endswith("/a")
    page = write_comparison([two[0], other])
    assert page.parent.parent == two[0].parent


def test_the_command(two: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = map(str, two)
    assert main(["compare", a, b, "-o", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"comparison: {tmp_path / 'out' / 'compare.html'}\n"
    assert main(["compare", a, a]) == 2
    assert "given twice" in capsys.readouterr().err


def test_no_torch_is_needed(two: list[Path]) -> None:
    code = (
        "import sys; from signbridge.report.compare import write_comparison; "
        f"write_comparison({[str(p) for p in two]!r}); "
        "assert not {'torch', 'transformers', 'lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)


def _named(make_results: Make, name: str, classes: list[str]) -> Path:
    return make_results(name, class_names=classes, layers=range(2), per_class=6)


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ("ABCDEF", "ABCD", "their accuracies have different chance levels"),
        ("abcdef", "ABCDEF", "write their names alike; then they can be compared"),
        ("ABCDEF", "GHIKLM", "other classes may be easier or harder to tell apart"),
    ],
)
def test_other_classes_have_another_chance_level_where_they_are_more_or_fewer(
    make_results: Make, first: str, second: str, says: str
) -> None:
    runs = load_runs([_named(make_results, "a", [*first]), _named(make_results, "b", [*second])])
    (text,) = [w for w in warnings_of(runs) if "classes (" in w]
    assert says in text
    assert ("chance" in text) == (len(first) != len(second))


@pytest.mark.parametrize("n", [2, 5, 20, 300])
def test_few_groups_permit_what_they_permit(signers: Make, n: int, tmp_path: Path) -> None:
    folders = [signers(n, signal=0.0), signers(n, signal=1.0)]
    found, notes = differences(load_runs(folders))
    (best,) = [d for d in found if d.family == "best"]
    page = write_comparison(folders, tmp_path / "compared").read_text()
    assert ("Group by group" in page) == (n < 10)
    for k in range(1, n + 1 if n < 10 else 1):
        rows = [
            few_accuracies(load_results(folder), load_results(folder).best_feature)[f"hand{k}"]
            for folder in folders
        ]
        cells = "".join(f"<td>{100 * value:.1f}</td>" for value in rows)
        assert f'<th scope="row">hand{k}</th>{cells}' in page
    if n == 2:
        assert best.relation == ""
        assert any("their 2 groups permit no interval and no test" in note for note in notes)
        assert "paired on the same images; 2 groups permit no test" in page
        assert not re.search(r"\bnan\b", re.sub(r"data:[^\"]*", "", page))
    else:
        # Sign flips of five groups could not fall below 0.0625.
        assert best.p_corrected < 0.05
        assert best.relation == "above"
        assert "is above" in page
