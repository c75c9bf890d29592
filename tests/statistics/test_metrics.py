"""The metrics: against scikit-learn and torchmetrics, and what every entry of the table claims."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score

from signbridge.cli import commands
from signbridge.statistics.layer_scores import LayerScores
from signbridge.statistics.metrics import COMPARED, METRICS, equal_mass_bins, outcomes, score


def predictions(n=300, n_classes=6, seed=0, sharpness=2.0):
    rng = np.random.default_rng(seed)
    y = rng.integers(n_classes, size=n)
    logits = rng.normal(size=(n, n_classes)) * sharpness
    logits[np.arange(n), y] += 1.5
    p = np.exp(logits)
    return (p / p.sum(1, keepdims=True)).astype(np.float32), y


@pytest.mark.parametrize("n_classes", [2, 3, 24])
def test_against_scikit_learn(n_classes):
    p, y = predictions(n_classes=n_classes)
    mine = score(p, y)
    answer, every = p.argmax(1), np.arange(n_classes)
    assert list(mine) == list(METRICS)
    assert mine["accuracy"] == pytest.approx(reference.accuracy_score(y, answer), abs=1e-7)
    assert mine["balanced_accuracy"] == pytest.approx(
        reference.balanced_accuracy_score(y, answer), abs=1e-12
    )
    assert mine["macro_f1"] == pytest.approx(
        reference.f1_score(y, answer, average="macro"), abs=1e-6
    )
    assert mine["cross_entropy"] == pytest.approx(reference.log_loss(y, p, labels=every), rel=1e-6)
    if n_classes > 2:
        top = reference.top_k_accuracy_score(y, p, k=3, labels=every)
        assert mine["top3_accuracy"] == pytest.approx(top, abs=1e-7)
    else:
        assert mine["top3_accuracy"] == 1


@pytest.mark.parametrize("n_classes", [3, 24])
def test_against_torchmetrics(n_classes):
    p, y = predictions(n_classes=n_classes)
    mine, given = score(p, y), (torch.tensor(p), torch.tensor(y), n_classes)
    for name, value in {
        "accuracy": multiclass_accuracy(*given, average="micro"),
        "balanced_accuracy": multiclass_accuracy(*given, average="macro"),
        "top3_accuracy": multiclass_accuracy(*given, average="micro", top_k=3),
        "macro_f1": multiclass_f1_score(*given, average="macro"),
    }.items():
        assert mine[name] == pytest.approx(value.item(), abs=1e-6), name


@pytest.mark.parametrize("n_classes", [2, 7, 60])
def test_chance_is_what_a_guess_scores(n_classes):
    """All classes alike but for a grain that decides the order."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(n_classes), 24_000 // n_classes)
    p = 1 / n_classes + 1e-9 * rng.random((len(y), n_classes))
    found, count = score(p, y), np.bincount(y)
    for name, metric in METRICS.items():
        if metric.chance is not None:
            assert metric.chance(n_classes, count) == pytest.approx(found[name], abs=0.015), name


def test_every_metric_keeps_its_bounds_and_knows_which_way_is_better():
    p, y = predictions(n_classes=9, sharpness=1.0)
    fair, sure = score(p, y), score(np.eye(9)[y], y)
    wrong = score(np.eye(9)[(y + 1) % 9], y)
    for name, metric in METRICS.items():
        low, high = metric.bounds
        values = [wrong[name], fair[name], sure[name]]
        assert all(low - 1e-9 <= value <= high + 1e-9 for value in values), name
        better = values if metric.higher_is_better else values[::-1]
        assert better == sorted(better), name
        assert better[0] < better[2], name


def test_equal_probabilities_favour_the_first_class():
    """The rank, the answer and what scikit-learn's stable sort says agree on ties."""
    rng = np.random.default_rng(0)
    p = rng.integers(3, size=(200, 5)) / 8
    y = rng.integers(5, size=200)
    found = outcomes(p, y)
    order = np.argsort(-p, axis=1, kind="stable")
    np.testing.assert_array_equal(order[np.arange(200), found.rank - 1], y)
    np.testing.assert_array_equal(found.answer == y, found.rank == 1)
    on_device = outcomes(torch.tensor(p), torch.tensor(y), torch)
    np.testing.assert_array_equal(on_device.rank.numpy(), found.rank)
    np.testing.assert_array_equal(on_device.answer.numpy(), found.answer)


def test_a_probability_that_is_not_a_number_is_placed_last():
    p = np.array([[np.nan, 0.5, 0.5], [0.2, np.nan, 0.8]])
    assert outcomes(p, np.array([0, 2])).rank.tolist() == [3, 2]


def test_every_metric_is_explained():
    page = (Path(__file__).parents[2] / "docs" / "method.md").read_text()
    assert [name for name in METRICS if f"**`{name}`**" not in page] == []


def test_the_command_line_offers_what_can_be_compared():
    assert get_args(get_type_hints(commands.compare)["metric"]) == COMPARED
    assert all(METRICS[name].mean_of for name in COMPARED)


def test_the_table_is_read_without_torch():
    code = "import sys, signbridge.statistics.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("n_classes", [2, 5, 6, 60])
def test_top5_accuracy_against_scikit_learn(n_classes):
    p, y = predictions(n_classes=n_classes)
    expected = 1.0
    if n_classes > 5:
        expected = reference.top_k_accuracy_score(y, p, k=5, labels=np.arange(n_classes))
    assert score(p, y)["top5_accuracy"] == pytest.approx(expected, abs=1e-12)
    assert METRICS["top5_accuracy"].shown(n_classes) == (n_classes == 60)


@pytest.mark.parametrize("n_classes", [2, 6, 60])
def test_mean_reciprocal_rank_against_scikit_learn(n_classes):
    """With one label a sample and no ties it is the label ranking average precision."""
    p, y = predictions(n_classes=n_classes)
    expected = reference.label_ranking_average_precision_score(np.eye(n_classes)[y], p)
    assert score(p, y)["mean_reciprocal_rank"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("row", [[0.25, 0.25, 0.25, 0.25], [0, 0, 0, 1], [0.5, 0.5, 0, 0]])
def test_a_constant_predictor_has_the_mean_reciprocal_rank_of_chance(row):
    y = np.repeat(np.arange(4), 5)
    found = score(np.tile(row, (20, 1)), y)["mean_reciprocal_rank"]
    assert found == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)


def test_class_that_never_occurs_but_is_answered():
    p = np.eye(4, dtype=np.float32)[[0, 0, 3, 1]]
    y = np.array([0, 0, 1, 1])
    mine = score(p, y)
    assert mine["balanced_accuracy"] == reference.balanced_accuracy_score(y, p.argmax(1))
    assert mine["macro_f1"] == pytest.approx(reference.f1_score(y, p.argmax(1), average="macro"))


def test_probability_zero_costs_a_finite_amount():
    p = np.array([[1.0, 0.0], [1.0, 0.0]], dtype=np.float32)
    y = np.array([0, 1])
    assert score(p, y)["cross_entropy"] == pytest.approx(reference.log_loss(y, p), rel=1e-6)


def test_usable_information_of_known_predictors():
    y = np.repeat(np.arange(4), [8, 4, 2, 2])
    sure = np.eye(4, dtype=np.float32)[y]
    shares = np.tile(np.float32([0.5, 0.25, 0.125, 0.125]), (16, 1))
    uniform = np.full((16, 4), 0.25, dtype=np.float32)
    assert score(sure, y)["usable_information"] == pytest.approx(1.75, abs=1e-6)
    assert score(shares, y)["usable_information"] == pytest.approx(0, abs=1e-6)
    assert score(uniform, y)["usable_information"] == pytest.approx(1.75 - 2, abs=1e-6)


def test_calibration_against_scikit_learns_quantile_bins():
    p, y = predictions(n=1500)
    confidence, correct = p.max(1).astype(np.float64), p.argmax(1) == y
    truth, mean = calibration_curve(correct, confidence, n_bins=15, strategy="quantile")
    expected = np.abs(truth - mean).mean()  # 1,500 distinct values: all bins hold 100
    assert score(p, y)["calibration_error"] == pytest.approx(expected, abs=2e-4)


def test_calibration_by_hand():
    p = np.array([[0.6, 0.4], [0.6, 0.4], [0.1, 0.9], [0.1, 0.9]])
    # bins {0.6 wrong, 0.6 right} and {0.9 right, 0.9 wrong}
    value = score(p, [1, 0, 1, 0])["calibration_error"]
    assert value == pytest.approx((abs(1 - 1.2) + abs(1 - 1.8)) / 4)


@pytest.mark.parametrize("counts", [[40, 40, 40, 40], [50, 30, 17, 3]])
def test_constant_predictor_that_knows_its_accuracy_is_calibrated(counts):
    y = np.repeat(np.arange(4), counts)  # sorted by class, as stores are
    shares = np.tile(np.array(counts) / len(y), (len(y), 1))
    assert score(shares, y)["calibration_error"] == pytest.approx(0, abs=1e-15)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 80), st.integers(1, 6))
def test_calibration_ignores_the_order_of_samples(seed, n, n_values):
    rng = np.random.default_rng(seed)
    confidence = rng.choice(np.linspace(0.5, 1, n_values), size=n)
    p, y = np.stack([confidence, 1 - confidence], axis=1), rng.integers(2, size=n)
    order = rng.permutation(n)
    one, other = (score(p[rows], y[rows])["calibration_error"] for rows in (slice(None), order))
    assert one == pytest.approx(other, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 20))
def test_bins_hold_whole_ties_at_their_mean_rank(values, n_bins):
    bins = equal_mass_bins(np.array(values, dtype=float), n_bins)
    expected = np.floor((rankdata(values) - 1) * n_bins / len(values) + 1e-9)
    np.testing.assert_array_equal(bins, expected)


def test_calibration_of_fewer_samples_than_bins():
    p, y = predictions(n=3)
    expected = np.abs((p.argmax(1) == y) - p.max(1)).mean()
    assert score(p, y)["calibration_error"] == pytest.approx(expected, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 40), st.integers(2, 5))
def test_batches_and_layers_do_not_matter(seed, n, n_classes):
    first, y = predictions(n, n_classes, seed)
    second, _ = predictions(n, n_classes, seed + 1)
    layers = LayerScores(2, n_classes)
    both = torch.tensor(np.stack([first, second], axis=1))
    for start in range(0, n, 7):
        layers.update(both[start : start + 7], torch.tensor(y[start : start + 7]))
    values = layers.compute()
    for number, p in enumerate((first, second)):
        for name, value in score(p, y).items():
            assert values[name][number].item() == pytest.approx(value, rel=1e-6, abs=1e-9)
    alone = LayerScores(1, n_classes)
    alone.update(both[:, :1], torch.tensor(y))
    assert {name: value.shape for name, value in alone.compute().items()} == dict.fromkeys(
        METRICS, (1,)
    )
    layers.reset()
    layers.update(both[:2], torch.tensor(y[:2]))
    assert layers.compute()["accuracy"][0].item() == pytest.approx(
        score(first[:2], y[:2])["accuracy"]
    )


def score_a_part(rank, file, probabilities, labels):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{file}", rank=rank, world_size=2
    )
    scores = LayerScores(2, probabilities.shape[-1])
    rows = slice(0, 30) if rank else slice(30, None)  # parts of unequal size
    for part in (slice(0, 20), slice(20, None)):
        scores.update(probabilities[rows][part], labels[rows][part])
    found = scores.compute()
    torch.save(found, f"{file}.{rank}")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_score_the_samples_of_all(tmp_path):
    first, y = predictions(90, 4, 0)
    second, _ = predictions(90, 4, 1)
    p = torch.tensor(np.stack([first, second], axis=1))
    file = tmp_path / "meeting"
    torch.multiprocessing.spawn(score_a_part, (str(file), p, torch.tensor(y)), nprocs=2)
    expected = [score(one, y) for one in (first, second)]
    for rank in range(2):
        found = torch.load(f"{file}.{rank}", weights_only=True)
        for name in METRICS:
            values = [one[name] for one in expected]
            assert found[name].tolist() == pytest.approx(values, rel=1e-9, abs=1e-12), name
