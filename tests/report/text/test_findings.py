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

from signbridge.report.terminal import print_table
from signbridge.report.text.findings import describe_data, find
from signbridge.report.text.key_figures import key_figures
from signbridge.report.text.page import fit_rows
from signbridge.results.results import Results, load_results
from signbridge.store.provenance import grouping


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


def _against(folder: Path, **differences: tuple[float, float, float]) -> str:
    entries = {
        name: {"difference": value, "ci": [low, high]}
        for name, (value, low, high) in differences.items()
    }
    return find(_summary(folder, against_baselines=entries)).details[0]


def test_baselines_are_compared_by_paired_differences(make_results: Callable[..., Path]) -> None:
    folder = make_results()
    layer = load_results(folder).best_layer
    text = _against(
        folder,
        pixels=(-0.212, -0.281, -0.146),
        vision=(0.072, 0.018, 0.126),
        projector=(0.015, -0.043, 0.07),
    )
    assert f"layer {layer} is clearly below the raw pixels (" in text
    assert "−21.2 points, −28.1 to −14.6)" in text
    assert "it is clearly above the vision tower (" in text
    assert "+7.2 points, +1.8 to +12.6)" in text
    assert "it cannot be told apart from the projector (" in text
    assert text.endswith(
        "A linear probe reads the classes worse at this layer and position than from the raw "
        "pixels."
    )
    assert "harder" not in text


def test_no_difference_shows_no_gain(make_results: Callable[..., Path]) -> None:
    text = _against(
        make_results(baselines=("pixels", "vision")),
        pixels=(0.1, 0.02, 0.18),
        vision=(0.01, -0.05, 0.07),
    )
    assert text.endswith("nothing shows that the decoder adds to what was there before it.")


def test_a_layer_above_all_baselines_was_picked_for_it(make_results: Callable[..., Path]) -> None:
    folder = make_results(baselines=("pixels",))
    assert "is clearly above the raw pixels" in _against(folder, pixels=(0.1, 0.02, 0.18))
    assert any(
        "chosen on the images that score it" in s for s in find(load_results(folder)).details
    )


def test_overlapping_intervals_decide_nothing(make_results: Callable[..., Path]) -> None:
    """Without paired differences the values are given and not compared."""
    text = find(_summary(make_results(), against_baselines=None)).details[0]
    assert "was not compared with" in text
    assert "clearly" not in text
    assert "told apart" not in text


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
    assert any("chosen on the images that score it" in sentence for sentence in details)


def test_leakage_is_that_of_the_samples_both_splits_score(
    make_results: Callable[..., Path],
) -> None:
    folder = make_results()
    layer = load_results(folder).best_layer
    leakage = {"layer": layer, "difference": 0.1234, "ci": [-0.01, 0.25]}
    results = _summary(folder, leakage=leakage)
    text = " ".join(find(results).details)
    assert "12.3 points more" in text
    assert "but the two cannot be told apart" in text
    (figure,) = [f for f in key_figures(results) if f.label.startswith("leakage")]
    assert (figure.value, figure.detail) == ("+12.3 points", "−1.0 to +25.0")
    leakage["ci"] = [0.05, 0.2]
    assert "told apart" not in " ".join(find(_summary(folder, leakage=leakage)).details)


def test_warnings_name_unscored_samples_and_failed_fits(make_results: Callable[..., Path]) -> None:
    folder = make_results()
    with h5py.File(folder / "predictions.h5", "r+") as file:
        fold = file["fold"][...]
        fold[:7] = -1
        file["fold"][...] = fold
    results = _summary(folder, not_converged=[{"feature": "resid_post/3", "fold": 2}])
    text = " ".join(find(results).warnings)
    assert "7 of 288 images were never scored" in text
    assert "1 fit ended short of the tolerance" in text
    assert "summary.json: resid_post/3." in text


def test_a_random_main_split_is_warned_of(results_dir: Path) -> None:
    results = load_results(results_dir)
    protocol = replace(results.protocol, split="random")
    results = replace(results, summary=replace(results.summary, protocol=protocol))
    assert any(
        "The main split is random, which may part a group" in w for w in find(results).warnings
    )


@pytest.mark.parametrize(
    ("groups", "n_groups", "says"),
    [
        ("near_duplicates 0.95", 144, " in 144 groups of near-duplicates (pixels correlated 0.95"),
        ("near_duplicates 0.95", 288, " in 288 groups of near-duplicates"),
        ("class/signer", 12, " of 12 signers (folders class/signer), 24 each: intervals rest"),
        ("class/{signer}_*", 12, " of 12 signers (folders class/{signer}_*), 24 each: intervals"),
        ("pattern (?P<signer>x)", 12, " of 12 signers (as (?P<signer>x) finds them), 24 each: "),
        ("pattern p([0-9]+)", 30, " in 30 groups (as p([0-9]+) finds them), 9.6 each: intervals"),
        ("mine.csv", 30, " in 30 groups (as given in mine.csv), 9.6 each: intervals rest on"),
        ("none", 288, ", each counted as independent: near-duplicates were not looked for."),
        ("", 144, "; what makes a group was not recorded."),
        ("", None, "; their groups were not recorded."),
    ],
)
def test_data_in_words(results_dir: Path, groups: str, n_groups: int | None, says: str) -> None:
    results = load_results(results_dir)
    provenance = dict(results.provenance, groups=groups)
    store = replace(results.store, n_groups=n_groups, provenance=provenance)
    protocol = replace(results.protocol, description="")
    summary = replace(results.summary, store=store, protocol=protocol)
    text = describe_data(replace(results, summary=summary))
    assert text.startswith("288 images")
    assert says in text
    assert "photograph" not in text
    # How groups were found stands in the protocol's description, where there is one.
    protocol = replace(protocol, description="288 images; 5 folds.")
    text = describe_data(replace(results, summary=replace(summary, protocol=protocol)))
    assert grouping(provenance).many in text
    assert not any(found in text for found in ("correlated", "folders", "as given"))


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ([100, 100], "at its default settings, stopped by max_iter=100, gives 30.0"),
        ([100, 40], "stopped by max_iter=100 in 1 of 2 folds, else by its tolerance (tol=0.0001)"),
        ([30, 40], "stopped by its tolerance (tol=0.0001), gives"),
        (None, "at its default settings gives 30.0"),
    ],
)
def test_what_stopped_scikit_learn(
    make_results: Callable[..., Path], steps: list[int] | None, says: str
) -> None:
    default = {"accuracy": 0.3, "optimum_accuracy": 0.4, "tol": 1e-4, "max_iter": 100}
    folder = make_results()
    results = _summary(folder, sklearn_default=default | {"n_iter": steps})
    text = " ".join(find(results).details)
    assert says in text
    assert ", the optimum 40.0" in text
    assert "before the optimum" not in text
    fits = dict(fit_rows(results))
    assert fits["its limits"] == "max_iter=100, tol=0.0001"
    assert fits["accuracy of scikit-learn's default fit"].startswith("30.0")
    # The same accuracy needs no sentence.
    same = _summary(folder, sklearn_default=default | {"optimum_accuracy": 0.3})
    assert "scikit-learn" not in " ".join(find(same).details)


def test_majority_is_a_hurdle_too(make_results: Callable[..., Path]) -> None:
    entries = {"majority": {"difference": 0.02, "ci": [-0.01, 0.05]}}
    assert "nothing shows" in find(_summary(make_results(), against_baselines=entries)).headline


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
