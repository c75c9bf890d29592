"""Every sentence of the findings, with 2, 5, 20 and 300 signers."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from signbridge.report.figures import style
from signbridge.report.figures.layer_curve import layer_curve
from signbridge.report.groups import few_names, groups_of
from signbridge.report.terminal import print_table
from signbridge.report.text.findings import Findings, describe_data, find
from signbridge.report.text.key_figures import key_figures
from signbridge.report.text.page import render_page
from signbridge.results.results import Results, load_results
from signbridge.results.summary import LayerTest, PermutationTest

NUMBERS = (2, 5, 20, 300)
Signers = Callable[..., Path]


def _found(signers: Signers, n: int, signal: float = 1.0) -> tuple[Results, Findings]:
    results = load_results(signers(n, signal=signal))
    return results, find(results)


def _sentence(found: Findings, start: str) -> str:
    return next((s for s in found.details if s.startswith(start)), "")


@pytest.mark.parametrize("n", NUMBERS)
def test_a_clear_accuracy_is_better_than_chance(signers: Signers, n: int) -> None:
    results, found = _found(signers, n)
    assert f"where chance is 25.0{style.PER_CENT}." in found.headline
    assert "nothing shows" not in found.headline
    assert ("95 % interval" in found.headline) == (n > 2)
    assert ("2 signers permit no interval" in found.headline) == (n == 2)
    guess = results.score("majority", None, "accuracy")
    assert guess is not None
    assert math.isnan(guess.ci_low)
    assert math.isnan(guess.ci_high)


@pytest.mark.parametrize("n", NUMBERS)
def test_noise_is_not_said_to_be_more_than_chance(signers: Signers, n: int) -> None:
    _, found = _found(signers, n, signal=0.0)
    assert ("nothing shows that it reads them better" in found.headline) == (n > 2)
    assert "clearly" not in " ".join(found.details)


@pytest.mark.parametrize("n", NUMBERS)
def test_the_layer_against_the_pixels(signers: Signers, n: int) -> None:
    results, found = _found(signers, n)
    text = _sentence(found, "In accuracy")
    (against,) = [c for c in results.family("layers_vs_pixels") if c.layer == 1]
    if n == 2:
        assert "points above the raw pixels; 2 signers permit no test of that." in text
        assert math.isnan(against.p)
        assert against.relation == ""
    else:
        assert text == "In accuracy, layer 1 is clearly above the raw pixels."
        assert against.p_corrected < 0.05
    noise = _sentence(_found(signers, n, signal=0.0)[1], "In accuracy")
    assert ("So nothing shows that the decoder adds" in noise) == (n > 2)


@pytest.mark.parametrize("n", NUMBERS)
def test_each_of_a_few_signers_is_named(signers: Signers, n: int) -> None:
    results, found = _found(signers, n)
    text = _sentence(found, "Layer 1 by signer: ")
    assert bool(text) == (n < 10)
    p = results.predictions
    right = p.predicted("resid_post/1") == p.label
    for k in range(n if n < 10 else 0):
        value = style.format_value("accuracy", right[p.group == k].mean())
        assert f"hand{k + 1} {value}" in text
    best = key_figures(results)[0].detail
    assert (f"{n} signers: " in best) == (n < 10)


@pytest.mark.parametrize("n", NUMBERS)
def test_the_peak(signers: Signers, n: int) -> None:
    results, found = _found(signers, n)
    assert (results.summary.peak is None) == (n == 2)
    assert not _sentence(found, "No layer is excluded")
    results, found = _found(signers, n, signal=0.0)
    text = _sentence(found, "No layer is excluded")
    if n == 5:
        assert text.endswith("from being the peak: 5 signers tell little about its place.")
    elif n == 20:
        assert text.endswith("so the curve shows none.")


@pytest.mark.parametrize("n", NUMBERS)
def test_memorisation_is_measured_where_signers_outnumber_the_classes(
    signers: Signers, n: int
) -> None:
    results, found = _found(signers, n)
    measured = n >= 10
    assert (results.summary.memorisation is not None) == measured
    said = any("memorisation and selectivity were not measured" in w for w in found.warnings)
    assert said != measured
    assert any("memorised" in figure.label for figure in key_figures(results)) == measured


@pytest.mark.parametrize("n", NUMBERS)
def test_the_leakage(signers: Signers, n: int) -> None:
    results, found = _found(signers, n)
    text = _sentence(found, "A random split") or _sentence(found, "No leakage is seen")
    leakage = results.summary.leakage
    assert leakage is not None
    assert math.isnan(leakage.ci[0]) == (n == 2)
    if leakage.ci[0] <= 0 <= leakage.ci[1] and abs(leakage.difference) > 5e-4:
        assert text.endswith("but the two cannot be told apart.")


@pytest.mark.parametrize("n", NUMBERS)
def test_a_leakage_below_nothing_is_explained_and_no_key_figure(signers: Signers, n: int) -> None:
    results, _ = _found(signers, n)
    leakage = results.summary.leakage
    assert leakage is not None
    below = replace(leakage, difference=-0.211, ci=(-0.3, -0.1))
    results = replace(results, summary=replace(results.summary, leakage=below))
    text = _sentence(find(results), "A random split")
    total = len(results.predictions.label)
    assert text == (
        "A random split, which may part a signer, gives 21.1 points less than grouped folds. That "
        f"is no leakage, which cannot be below 0: {total:,} images belong to a signer with images "
        "of several classes, whose other images teach another class."
    )
    assert not any("leakage" in figure.label for figure in key_figures(results))


@pytest.mark.parametrize("n", NUMBERS)
def test_an_interval_that_holds_chance_and_a_permutation_test_that_does_not(
    signers: Signers, n: int
) -> None:
    """Three signers of whom one cannot be read: the t interval is as wide as the scale."""
    results, _ = _found(signers, n)
    scores = tuple(
        replace(s, ci_low=0.2, ci_high=0.99)
        if (s.feature, s.layer, s.metric, s.split) == ("resid_post", 1, "accuracy", "grouped")
        else s
        for s in results.scores
    )
    test = PermutationTest(m=199, p=0.005, by_layer={1: LayerTest(p=0.005, p_corrected=0.005)})
    summary = replace(results.summary, permutation_test=test)
    text = find(replace(results, scores=scores, summary=summary)).headline
    if n < 10:
        assert f"for these {n} signers permuted labels score less (p = 0.005)" in text
        assert "too few to tell of others" in text
        assert "nothing shows" not in text
    else:
        assert text.endswith("so nothing shows that it reads them better than chance.")


def test_a_few_images_that_are_groups_of_their_own_are_not_named(signers: Signers) -> None:
    results, _ = _found(signers, 5)
    p = results.predictions
    fold = np.where(np.arange(len(p.fold)) < 6, p.fold, -1)
    alone = replace(p, group=np.arange(len(p.fold)), fold=fold, group_names=None)
    assert not groups_of(replace(results, predictions=alone)).few
    assert few_names(replace(results, predictions=alone)) == []


@pytest.mark.parametrize("n", NUMBERS)
def test_what_the_intervals_are(signers: Signers, n: int) -> None:
    results, found = _found(signers, n)
    data, protocol = describe_data(results), results.protocol.description
    assert f" of {n:,} signers" in data
    said = {
        2: (
            "2 signers permit no interval and no test",
            "no intervals, since 2 signers permit none",
        ),
        5: (
            "intervals and tests are Student's, with 4 degrees",
            "Student's t of 5 signers (at most 4",
        ),
        20: ("intervals rest on the number of groups", "100 bootstrap draws of whole groups"),
        300: ("intervals rest on the number of groups", "100 bootstrap draws of whole groups"),
    }[n]
    assert said[0] in data
    assert said[1] in protocol
    assert any("permit no interval and no test" in w for w in found.warnings) == (n == 2)


def test_old_results_of_few_signers_draw_nothing_from_the_guess(signers: Signers) -> None:
    """Folders of earlier versions give the constant guess an interval of 0 to 63 %."""
    results, _ = _found(signers, 5)
    guess = results.summary.against_baselines["majority"]
    assert guess.ci[0] > 0.5
    against = {**results.summary.against_baselines, "majority": replace(guess, ci=(-0.2, 0.9))}
    old = replace(results, summary=replace(results.summary, against_baselines=against))
    assert "nothing shows" not in find(old).headline


@pytest.mark.parametrize("n", NUMBERS)
def test_tables_and_the_curve_hold_each_of_a_few_signers(signers: Signers, n: int) -> None:
    results, _ = _found(signers, n)
    plot = layer_curve(results)
    rows = list(csv.DictReader(io.StringIO(plot.csv())))
    p = results.predictions
    told = {(r["feature"], r["layer"], r["group"]): r["value"] for r in rows if r.get("group")}
    few = n if n < 10 else 0
    assert len(told) == 3 * few  # two layers and the pixels
    assert ("group" in rows[0]) == bool(few)
    for k in range(few):
        for feature in ("resid_post/0", "resid_post/1", "pixels"):
            kind, _, layer = feature.partition("/")
            right = (p.predicted(feature) == p.label)[p.group == k].mean()
            assert float(told[kind, layer, f"hand{k + 1}"]) == pytest.approx(right)
    assert ("each signer" in plot.caption) == bool(few)
    page = render_page(results, [plot])
    console = Console(file=io.StringIO(), width=120)
    print_table(results.path, console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    for k in range(1, 4):
        assert (f'<th scope="col">hand{k} %</th>' in page) == (k <= few)
        assert (f"hand{k} " in printed) == (k <= few)
