"""The sentences say what the numbers say."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import pytest
from rich.console import Console

from signbridge.report.findings import describe_data, find
from signbridge.report.results import Results, load_results
from signbridge.report.terminal import print_table


def _with(
    results: Results, *, low: float, high: float, value: float = 0.5, pixels: float = 0.4
) -> Results:
    """The results with other accuracies for the best layer and one baseline."""
    scores = []
    for s in results.scores:
        if s.metric != "accuracy" or s.split != "grouped" or s.feature in ("vision", "projector"):
            continue
        if s.feature == "pixels":
            s = replace(s, value=pixels)
        elif s.layer == results.best_layer:
            s = replace(s, value=value, ci_low=low, ci_high=high)
        scores.append(s)
    return replace(results, scores=tuple(scores))


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (0.40, "is above the best baseline, the raw pixels (40.0"),
        (0.50, "which lies inside that interval"),
        (0.60, "more than any decoder layer"),
    ],
)
def test_comparison_with_the_best_baseline(results_dir: Path, pixels: float, says: str) -> None:
    results = _with(load_results(results_dir), low=0.45, high=0.55, pixels=pixels)
    assert says in find(results).details[0]


def test_headline_gives_value_interval_and_chance(results_dir: Path) -> None:
    text = find(_with(load_results(results_dir), low=0.45, high=0.55)).headline
    for part in ("24 classes", "50.0\u00a0%", "45.0 to 55.0\u00a0%", "chance is 4.2\u00a0%"):
        assert part in text
    assert "nothing shows" not in text


def test_headline_at_chance_says_so(results_dir: Path) -> None:
    results = _with(load_results(results_dir), value=0.06, low=0.03, high=0.09)
    assert "nothing shows" in find(results).headline


def _summary(folder: Path, **changes: Any) -> Results:
    path = folder / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return load_results(folder)


def test_without_nested_selection_the_flattery_is_said(make_results: Callable[..., Path]) -> None:
    details = find(_summary(make_results(), nested=None)).details
    assert any("chosen on the data that scores it" in sentence for sentence in details)


def test_leakage_is_that_of_the_samples_both_splits_score(
    make_results: Callable[..., Path],
) -> None:
    folder = make_results()
    layer = load_results(folder).best_layer
    leakage = {"layer": layer, "difference": 0.1234, "ci": [-0.01, 0.25]}
    text = " ".join(find(_summary(folder, leakage=leakage)).details)
    assert "12.3 points more" in text
    assert "−1.0 to 25.0, which shows no leakage" in text


def test_warnings_name_unscored_samples_and_failed_fits(make_results: Callable[..., Path]) -> None:
    folder = make_results()
    with h5py.File(folder / "predictions.h5", "r+") as file:
        fold = file["fold"][...]
        fold[:7] = -1
        file["fold"][...] = fold
    results = _summary(folder, not_converged=[{"feature": "resid_post/3", "fold": 2}])
    text = " ".join(find(results).warnings)
    assert "7 of 288 images were never scored" in text
    assert "feature resid_post/3 fold 2" in text


def test_a_random_main_split_is_warned_of(results_dir: Path) -> None:
    results = load_results(results_dir)
    protocol = dict(results.protocol, split="random")
    results = replace(results, summary=dict(results.summary, protocol=protocol))
    assert any("recognition of photographs" in w for w in find(results).warnings)


@pytest.mark.parametrize(
    ("n_groups", "says"),
    [(144, "144 independent photographs"), (288, "each counted"), (None, "was not determined")],
)
def test_data_in_words(results_dir: Path, n_groups: int | None, says: str) -> None:
    results = load_results(results_dir)
    store = dict(results.store, n_groups=n_groups)
    text = describe_data(replace(results, summary=dict(results.summary, store=store)))
    assert text.startswith("288 images of 24 classes")
    assert says in text


def _printed(folder: Path, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_table(folder, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_table_fits_eighty_columns_and_holds_every_layer(results_dir: Path) -> None:
    text = _printed(results_dir, 80)
    assert "…" not in text
    results = load_results(results_dir)
    for layer in results.layers:
        score = results.score("resid_post", layer, "accuracy")
        assert score is not None
        line = next(s for s in text.splitlines() if s.strip().startswith(f"layer {layer}"))
        assert f"{100 * score.value:.1f}" in line
        assert ("(best)" in line) == (layer == results.best_layer)


def test_many_layers_are_thinned_with_the_best_kept(make_results: Callable[..., Path]) -> None:
    folder = make_results(layers=range(80), class_names=["A", "B", "C"], per_class=4)
    text = _printed(folder, 120)
    shown = {int(s.split()[1]) for s in text.splitlines() if s.strip().startswith("layer ")}
    assert {0, 79, load_results(folder).best_layer} <= shown
    assert len(shown) <= 18
    assert f"{80 - len(shown)} more layers in" in text


def test_names_from_data_are_not_markup(make_results: Callable[..., Path]) -> None:
    folder = _summary(make_results(), warnings=["class '[red]' [/nonsense] has one image."]).path
    assert "[red]' [/nonsense]" in _printed(folder, 200)
