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
from signbridge.report.html import render_page
from signbridge.report.inputs import Inputs
from signbridge.report.terminal import print_table
from signbridge.report.text.findings import Findings, describe_data, find
from signbridge.report.text.first_screen import MARGIN, headline, tiles, verdicts
from signbridge.results.results import Results, load_results
from signbridge.results.summary import LayerTest, PermutationTest

NUMBERS = (2, 5, 20, 300)
Signers = Callable[..., Path]


def _found(signers: Signers, n: int, signal: float = 1.0) -> tuple[Results, Findings]:
    results = load_results(signers(n, signal=signal))
    return results, find(results)


@pytest.mark.parametrize("n", NUMBERS)
def test_a_clear_accuracy_is_better_than_a_guess(signers: Signers, n: int) -> None:
    results, _ = _found(signers, n)
    assert "Nothing shows" not in headline(results)
    best = tiles(results)[0].detail
    assert ("; " in best) == (n > 2)
    assert best.endswith(f"a guess: 25.0{style.PER_CENT}")
    guess = results.score("majority", None, "accuracy")
    assert guess is not None
    assert math.isnan(guess.ci_low)
    assert math.isnan(guess.ci_high)


@pytest.mark.parametrize("n", NUMBERS)
def test_noise_is_not_said_to_be_more_than_a_guess(signers: Signers, n: int) -> None:
    results, _ = _found(signers, n, signal=0.0)
    assert headline(results).startswith("Nothing shows that layer") == (n > 2)
    assert verdicts(results)[0].answer.startswith(("no", "cannot be told: "))


@pytest.mark.parametrize("n", NUMBERS)
def test_the_layer_against_the_pixels(signers: Signers, n: int) -> None:
    results, _ = _found(signers, n)
    adds = verdicts(results)[0]
    assert "points over the raw pixels" in adds.numbers
    (against,) = [c for c in results.family("layers_vs_pixels") if c.layer == 1]
    if n == 2:
        assert adds.answer == "cannot be told: 2 signers"
        assert "whether the decoder adds to what the image gives away cannot be" in headline(
            results
        )
        assert math.isnan(against.p)
        assert against.relation == ""
    else:
        assert adds.answer == "yes"
        assert headline(results).endswith(", and the decoder adds to what the image gives away.")
        assert against.p_corrected < 0.05


@pytest.mark.parametrize("n", NUMBERS)
def test_the_peak(signers: Signers, n: int) -> None:
    results, found = _found(signers, n)
    assert (results.summary.peak is None) == (n == 2)
    assert "No layer is excluded" not in found.notes["peak"]
    text = _found(signers, n, signal=0.0)[1].notes["peak"]
    if n == 5:
        assert "from being the peak: 5 signers tell little about its place." in text
    elif n == 20:
        assert "so the curve shows none." in text


@pytest.mark.parametrize("n", NUMBERS)
def test_memorisation_is_measured_where_signers_outnumber_the_classes(
    signers: Signers, n: int
) -> None:
    results, found = _found(signers, n)
    measured = n >= 10
    assert (results.summary.memorisation is not None) == measured
    said = any("memorisation and selectivity were not measured" in w for w in found.warnings)
    assert said != measured
    told = verdicts(results)[-1]
    assert "memorise" in told.question
    assert told.answer == f"cannot be told: {n} signers" or measured
    assert ("random labels" in told.numbers) == measured


@pytest.mark.parametrize("n", NUMBERS)
def test_the_leakage(signers: Signers, n: int) -> None:
    results, found = _found(signers, n)
    leakage = results.summary.leakage
    assert leakage is not None
    low, high = leakage.ci
    assert math.isnan(low) == (n == 2)
    expected = "yes" if low > 0 else "no" if high < MARGIN else f"cannot be told: {n} signers"
    assert verdicts(results)[1].answer == expected
    assert "leakage" not in found.notes
    for ends, answer in (
        ((0.01, 0.2), "yes"),
        ((-0.02, 0.04), "no"),
        ((-0.02, 0.06), f"cannot be told: {n} signers"),
    ):
        other = replace(leakage, ci=ends)
        other_results = replace(results, summary=replace(results.summary, leakage=other))
        assert verdicts(other_results)[1].answer == answer


@pytest.mark.parametrize("n", NUMBERS)
def test_a_leakage_below_nothing_is_explained(signers: Signers, n: int) -> None:
    results, _ = _found(signers, n)
    leakage = results.summary.leakage
    assert leakage is not None
    below = replace(leakage, difference=-0.211, ci=(-0.3, -0.1))
    results = replace(results, summary=replace(results.summary, leakage=below))
    total = len(results.predictions.label)
    assert find(results).notes["leakage"] == (
        f"The random split scores less here, which is no leakage: {total:,} images belong to a "
        "signer with images of several classes, whose other images teach another class."
    )
    assert verdicts(results)[1].answer == "no"


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
    text = headline(replace(results, scores=scores, summary=summary))
    assert text.startswith("Nothing shows that layer 1")
    if n < 10:
        assert f"for these {n} signers permuted labels score less (p = 0.005)" in text
        assert "too few to tell of others" in text
    else:
        assert "permuted" not in text


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
    assert "Nothing shows" not in headline(old)


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
    page = render_page(Inputs(results), [plot])
    console = Console(file=io.StringIO(), width=120)
    print_table(results.path, console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    for k in range(1, 4):
        assert (f'<th scope="col">hand{k} %</th>' in page) == (k <= few)
        assert (f"hand{k} " in printed) == (k <= few)
