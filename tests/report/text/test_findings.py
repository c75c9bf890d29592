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
from signbridge.report.text.first_screen import Verdict, headline, tiles, verdicts
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


def _summary(folder: Path, **changes: Any) -> Results:
    path = folder / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return load_results(folder)


def _adds(folder: Path, **differences: tuple[float, float, float]) -> Verdict:
    entries = {
        name: {"difference": value, "ci": [low, high]}
        for name, (value, low, high) in differences.items()
    }
    return verdicts(_summary(folder, against_baselines=entries))[0]


@pytest.mark.parametrize(
    ("vision", "answer"),
    [
        ((0.072, 0.018, 0.126), "yes"),
        ((-0.072, -0.126, -0.018), "no"),
        ((0.01, -0.02, 0.04), "no"),
        ((0.01, -0.05, 0.07), "cannot be told: 144 groups"),
    ],
)
def test_the_decoder_adds_where_it_is_above_every_baseline(
    make_results: Callable[..., Path], vision: tuple[float, float, float], answer: str
) -> None:
    told = _adds(
        make_results(baselines=("pixels", "vision")), pixels=(0.212, 0.146, 0.281), vision=vision
    )
    assert told.answer.startswith(answer)
    sign = "+" if vision[0] > 0 else "−"
    assert told.numbers.startswith(f"{sign}{abs(100 * vision[0]):.1f} points over the vision tower")


def test_without_paired_differences_nothing_is_told(make_results: Callable[..., Path]) -> None:
    results = _summary(make_results(), against_baselines=None)
    told = verdicts(results)[0]
    assert told.answer.startswith("cannot be told: ")
    assert told.numbers == "not compared"
    assert "cannot be told" in headline(results)


def test_the_first_tile_gives_value_interval_and_a_guess(results_dir: Path) -> None:
    results = _with(load_results(results_dir), low=0.45, high=0.55)
    best = tiles(results)[0]
    assert (best.value, best.detail) == (
        "50.0\u00a0%", "45.0 to 55.0\u00a0%; a guess: 4.2\u00a0%"
    )  # fmt: skip
    assert "Nothing shows" not in headline(results)
    assert len(tiles(results)) <= 4


def test_the_headline_of_a_guess_says_so(results_dir: Path) -> None:
    results = _with(load_results(results_dir), value=0.06, low=0.03, high=0.09)
    assert headline(results).startswith("Nothing shows")
    for part in ("24 classes", "6.0\u00a0%", "3.0 to 9.0\u00a0%", "a guess 4.2\u00a0%"):
        assert part in headline(results)


@pytest.mark.parametrize(
    ("ci", "words"),
    [
        ([0.4, 1.2], "0.8 bits (0.4 to 1.2) are known and not said, and the decoder adds"),
        ([-1.2, -0.4], "more is said than a linear probe finds there, by 0.8 bits"),
        ([-0.4, 1.2], "the difference of 0.8 bits (−0.4 to 1.2) may be chance"),
        ([None, None], "permit no test of the difference"),
    ],
)
def test_known_against_said_in_one_sentence(
    make_results: Callable[..., Path], ci: list[float | None], words: str
) -> None:
    said = {
        "layer": 5, "known": {"bits": 2.9}, "class_entropy": 4.6,
        "text": {"bits": 2.1, "known_minus_said": {"bits": 0.8, "ci": ci}},
    }  # fmt: skip
    against = {"pixels": {"difference": 0.3, "ci": [0.2, 0.4]}}
    results = _summary(make_results(baselines=("pixels",)), said=said, against_baselines=against)
    text = headline(results)
    assert text.startswith("Layer 5 knows 2.9 of the 4.6 bits that tell the class, and the answer")
    assert words in text


def test_without_nested_selection_the_flattery_is_said(make_results: Callable[..., Path]) -> None:
    found = find(_summary(make_results(), nested=None))
    assert "chosen on the images that score it" in found.notes["peak"]


def test_leakage_is_that_of_the_samples_both_splits_score(
    make_results: Callable[..., Path],
) -> None:
    folder = make_results()
    leakage = {"layer": load_results(folder).best_layer, "difference": 0.1234, "ci": [-0.01, 0.25]}
    told = verdicts(_summary(folder, leakage=leakage))[1]
    assert told.answer.startswith("cannot be told: ")
    assert told.numbers == "+12.3 points (−1.0 to +25.0)"


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
    text = find(results).notes["fits"]
    assert says in text
    assert ", the optimum 40.0" in text
    assert "before the optimum" not in text
    fits = dict(fit_rows(results))
    assert fits["its limits"] == "max_iter=100, tol=0.0001"
    assert fits["accuracy of scikit-learn's default fit"].startswith("30.0")
    # The same accuracy needs no sentence.
    same = _summary(folder, sklearn_default=default | {"optimum_accuracy": 0.3})
    assert "fits" not in find(same).notes


def test_majority_is_a_hurdle_too(make_results: Callable[..., Path]) -> None:
    entries = {"majority": {"difference": 0.02, "ci": [-0.01, 0.05]}}
    assert "Nothing shows" in headline(_summary(make_results(), against_baselines=entries))


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
