"""A results folder is read as written, and every kind of damage is named."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from fixtures import hostile

from signbridge.errors import ProbeError
from signbridge.results.predictions import read_predictions, write_predictions
from signbridge.results.results import load_results
from signbridge.results.summary import Summary


def _edit_summary(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    edit(summary)
    path.write_text(json.dumps(summary))


def test_scores_are_those_of_the_file(results_dir: Path) -> None:
    results = load_results(results_dir)
    with (results_dir / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(results.scores) == len(rows)
    for score, row in zip(results.scores, rows, strict=True):
        assert score.feature == row["feature"]
        assert score.layer == (int(row["layer"]) if row["layer"] else None)
        assert score.value == float(row["value"])
        assert math.isnan(score.ci_low) == (row["ci_low"] == "")
    assert results.splits == ("grouped", "random")
    assert results.layers == tuple(range(8))


def test_predictions_are_those_of_the_file(results_dir: Path) -> None:
    results = load_results(results_dir)
    with h5py.File(results_dir / "predictions.h5") as file:
        names = list(file["feature_name"].asstr()[...])
        expected = file["probability"][names.index("pixels")].argmax(axis=1)
    np.testing.assert_array_equal(results.predictions.predicted("pixels"), expected)


def test_unscored_samples_have_no_prediction(make_results: Callable[..., Path]) -> None:
    folder = make_results()
    with h5py.File(folder / "predictions.h5", "r+") as file:
        file["probability"][:, 3] = np.nan
    predicted = load_results(folder).predictions.predicted("pixels")
    assert predicted[3] == -1
    assert (np.delete(predicted, 3) >= 0).all()


def test_unknown_feature_is_named(results_dir: Path) -> None:
    with pytest.raises(ProbeError, match=r"no predictions for 'resid_post/99'.*pixels"):
        load_results(results_dir).predictions.probability("resid_post/99")


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=r"nothing is not a folder: give a results folder"):
        load_results(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["scores.csv", "summary.json", "predictions.h5"])
def test_missing_file(make_results: Callable[..., Path], name: str) -> None:
    folder = make_results()
    (folder / name).unlink()
    with pytest.raises(ProbeError, match=rf"has no {name}"):
        load_results(folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.update(format="other"), "does not say format"),
        (lambda s: s.update(version="2.0"), r"format version 2\.0"),
        (lambda s: s.pop("version"), "format version unknown"),
        (lambda s: s.pop("store"), "lacks 'store'"),
        (lambda s: s["protocol"].pop("split"), r"lacks 'protocol\.split'"),
        (lambda s: s["best_layer"].update(layer="five"), "gives 'five' as best_layer"),
        (lambda s: s["best_layer"].update(layer=99), "names layer 99 as the best"),
        (lambda s: s["store"]["class_names"].reverse(), "name different classes"),
        (lambda s: s["store"].update(n_samples="many"), r"'many' as store\.n_samples, not a whole"),
        (
            lambda s: s["protocol"].update(folds=True),
            r"True as protocol\.folds, not a whole",
        ),
        (
            lambda s: s.update(best_layer=[5]),
            r"gives \[5\] as best_layer, not an object: run train",
        ),
    ],
)
def test_bad_summary(
    make_results: Callable[..., Path], edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    folder = make_results()
    _edit_summary(folder, edit)
    with pytest.raises(ProbeError, match=message):
        load_results(folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.update(nested="none"), "gives 'none' as nested, not an object"),
        (lambda s: s["nested"].pop("accuracy"), "lacks 'nested.accuracy'"),
        (lambda s: s["nested"].update(ci=[0.1]), "gives [0.1] as nested.ci, not a list of 2"),
        (lambda s: s["nested"].update(layers_chosen=[1, 2.5]), "2.5 as nested.layers_chosen[1]"),
        (lambda s: s.update(chance=True), "gives True as chance, not a number"),
        (lambda s: s.update(chance=math.inf), "gives inf as chance, not a number"),
        (lambda s: s.update(chance=10**400), "as chance, not a number"),
        (lambda s: s.update(not_converged=[1]), "gives 1 as not_converged[0], not an object"),
        (lambda s: s.update(versions="all"), "gives 'all' as versions, not an object"),
    ],
)
def test_a_damaged_part_of_the_summary_is_left_out_and_told(
    make_results: Callable[..., Path], edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    folder = make_results()
    before = load_results(folder).summary
    _edit_summary(folder, edit)
    after = load_results(folder).summary
    (note,) = set(after.warnings) - set(before.warnings)
    assert note.startswith("summary.json ")
    assert message in note
    assert note.endswith("; that part is left out.")
    kept = [f.name for f in fields(Summary) if f.name != "warnings"]
    differing = [k for k in kept if repr(getattr(before, k)) != repr(getattr(after, k))]
    assert len(differing) <= 1


@pytest.mark.parametrize(
    "content", [b'{"format": "signbridge-\xff', b"[" * 100_000, b'{"run":' * 100_000, b""]
)
def test_summary_that_is_no_json(make_results: Callable[..., Path], content: bytes) -> None:
    folder = make_results()
    (folder / "summary.json").write_bytes(content)
    with pytest.raises(ProbeError, match=r"summary\.json is not readable JSON"):
        load_results(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("feature,layer", "feature,depth", "lacks the column 'layer'"),
        (",accuracy,0", ",accuracy,nought", r"line 2: value is 'nought0?.*', not a number"),
        ("resid_post,0,", "resid_post,0.5,", "line 2: layer is not a whole number"),
        ("resid_post,0,", "resid_post,-1,", "line 2: layer is not a whole number"),
    ],
)
def test_bad_scores(make_results: Callable[..., Path], old: str, new: str, message: str) -> None:
    path = make_results() / "scores.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ProbeError, match=message):
        load_results(path.parent)


@pytest.mark.parametrize("content", ["", "feature,layer,solver,split,metric\n"])
def test_truncated_scores_header(make_results: Callable[..., Path], content: str) -> None:
    path = make_results() / "scores.csv"
    path.write_text(content)
    with pytest.raises(ProbeError, match="lacks the column"):
        load_results(path.parent)


def test_truncated_scores_row(make_results: Callable[..., Path]) -> None:
    path = make_results() / "scores.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], "resid_post,1,exact"]))
    with pytest.raises(ProbeError, match="line 5: the row is too short"):
        load_results(path.parent)


def test_scores_of_version_1_0_are_of_the_labels(make_results: Callable[..., Path]) -> None:
    path = make_results() / "scores.csv"
    with path.open(newline="") as file:
        rows = [{k: v for k, v in row.items() if k != "task"} for row in csv.DictReader(file)]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert {score.task for score in load_results(path.parent).scores} == {"label"}


@pytest.mark.skipif(sys.platform == "win32", reason="no such files there")
@pytest.mark.parametrize("name", ["summary.json", "scores.csv", "comparisons.csv"])
def test_files_that_never_end(make_results: Callable[..., Path], name: str) -> None:
    folder = make_results(full=True)
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    with pytest.raises(ProbeError, match=f"{name}.* (is a pipe or a device|has no {name})|has no"):
        load_results(folder)


def test_scores_without_rows(make_results: Callable[..., Path]) -> None:
    path = make_results() / "scores.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(ProbeError, match="holds no scores"):
        load_results(path.parent)


def test_truncated_predictions(make_results: Callable[..., Path]) -> None:
    path = make_results() / "predictions.h5"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ProbeError, match="not a whole predictions file"):
        load_results(path.parent)


@pytest.mark.parametrize(
    ("name", "replacement", "message"),
    [
        ("probability", np.zeros((2, 3, 4), np.float32), "its own coordinates say"),
        ("label", np.full(288, 24), "label that names no class"),
        ("fold", np.zeros(5, int), "one fold for each sample"),
        ("group", None, "not a whole predictions file"),
        ("group", np.full(288, -1), "negative group or fold"),
        ("fold", np.full(288, -2), "negative group or fold"),
        ("label", np.full(288, 1.5), "label holds float64, not whole numbers"),
        ("class_name", [b"A"] * 24, "class_name holds a text twice"),
        ("sample_id", [b"A"] * 288, "sample_id holds a text twice"),
        ("feature_name", np.zeros(8), "not a whole predictions file"),
        ("probability", h5py.SoftLink("/label"), "probability is a link to another place"),
        ("probability", h5py.ExternalLink("o.h5", "/x"), "is a link to another file"),
        ("sample_id", h5py.SoftLink("/sample_id"), "sample_id is a link to another place"),
    ],
)
def test_contradicting_predictions(
    make_results: Callable[..., Path],
    name: str,
    replacement: np.ndarray | None,
    message: str,
) -> None:
    folder = make_results()
    with h5py.File(folder / "predictions.h5", "r+") as file:
        del file[name]
        if replacement is not None:
            file[name] = replacement
    with pytest.raises(ProbeError, match=message):
        load_results(folder)


def test_probabilities_outside_their_range(make_results: Callable[..., Path]) -> None:
    folder = make_results()
    with h5py.File(folder / "predictions.h5", "r+") as file:
        file["probability"][0, 0, 0] = 1.5
        name = file["feature_name"].asstr()[0]
    with pytest.raises(ProbeError, match=r"outside 0\.\.1"):
        load_results(folder).predictions.probability(name)


def test_names_of_groups_are_kept_beside_their_numbers(tmp_path: Path) -> None:
    samples = {"label": [0, 1, 0], "group": [0, 1, 1], "sample_id": ["a", "b", "c"]}
    splits = {"/": (np.full((1, 3, 2), 0.5, np.float32), np.zeros(3, np.int64))}
    for names in (None, ("Ada", "Bo"), ("Ada",)):
        path = tmp_path / f"{names}.h5"
        write_predictions(path, ["pixels"], ["A", "B"], samples, splits, names)
        if names == ("Ada",):
            with pytest.raises(ProbeError, match="a group that has no name"):
                read_predictions(path)
        else:
            assert read_predictions(path).group_names == names


@pytest.mark.skipif(sys.platform != "linux", reason="another system has another limit")
@pytest.mark.parametrize("most", [0, 1000, 5000])
def test_predictions_that_find_no_room_leave_nothing(tmp_path: Path, most: int) -> None:
    import resource

    samples = {"label": [0, 1, 0], "group": [0, 1, 1], "sample_id": ["a", "b", "c"]}
    splits = {"/": (np.full((1, 3, 2), 0.5, np.float32), np.zeros(3, np.int64))}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_predictions(tmp_path / "predictions.h5", ["pixels"], ["A", "B"], samples, splits)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_predictions_over_themselves_do_not_end_the_process(
    make_results: Callable[..., Path],
) -> None:
    folder = make_results()
    with h5py.File(folder / "predictions.h5", "r+") as file:
        hostile.over_itself(file, "probability")
    code = "import sys, signbridge.results.results as r; r.load_results(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "the values of probability lie elsewhere, as a virtual dataset" in done.stderr
