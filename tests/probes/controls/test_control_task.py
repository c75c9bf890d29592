"""The control task: random labels of groups, against scikit-learn, and what it shows."""

import h5py
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from signbridge import open_store
from signbridge.probes import ClusterBootstrap, make_split, train_probes
from signbridge.probes.controls.control_task import evaluate_control, make_control_task
from signbridge.probes.dataset.features import FeatureSource
from signbridge.probes.engines import ExactEngine
from signbridge.results.features import Feature


def control_rows(table, metric="accuracy"):
    return {
        (r["feature"], r["layer"]): float(r["value"])
        for r in table
        if r["task"] == "group_control" and r["metric"] == metric
    }


def test_labels_are_of_groups_and_from_the_labels_own_distribution():
    y, g = np.repeat([0, 0, 0, 1], 500), np.arange(2000) // 2
    split = make_split(y, g, split="random", folds=5)
    task, note = make_control_task(y, g, split, seed=3)
    assert note is None
    np.testing.assert_array_equal(task.labels[::2], task.labels[1::2])
    # 1,000 groups are drawn; four deviations of the share of class 1.
    assert task.labels.mean() == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 1000))
    assert abs(np.corrcoef(task.labels, y)[0, 1]) < 4 / np.sqrt(1000)
    same, _ = make_control_task(y, g, split, seed=3)
    other, _ = make_control_task(y, g, split, seed=4)
    np.testing.assert_array_equal(task.labels, same.labels)
    assert (task.labels != other.labels).any()


def test_shared_are_images_whose_group_was_trained_on():
    y, g = np.arange(12) % 2, np.r_[np.arange(8), 8, 8, 9, 9]
    split = make_split(y, g, split="random", folds=3)
    fold = split.fold_of_sample
    task, _ = make_control_task(y, g, split)
    expected = [any(g[j] == g[i] and fold[j] != fold[i] for j in range(12)) for i in range(12)]
    np.testing.assert_array_equal(task.shared, expected)


def test_it_says_nothing_where_every_image_is_a_group_of_its_own():
    y = np.arange(30) % 3
    task, note = make_control_task(y, np.arange(30), make_split(y, split="random", folds=3))
    assert task is None
    assert "every image is a group of its own" in note


@pytest.mark.parametrize(
    ("n_groups", "n_classes", "measured"),
    [(1, 2, False), (5, 36, False), (5, 2, False), (10, 5, True), (20, 11, False), (72, 36, True)],
)
def test_a_random_label_of_few_groups_is_their_name(n_groups, n_classes, measured):
    g = np.repeat(np.arange(n_groups), 2 * n_classes)
    y = np.tile(np.arange(n_classes), 2 * n_groups)
    task, note = make_control_task(y, g, make_split(y, g, split="random", folds=2))
    assert (task is not None) == measured
    if not measured:
        groups = "1 group" if n_groups == 1 else f"{n_groups} groups"
        assert f"with {groups} for {n_classes} classes a random label" in note
        assert f"{max(10, 2 * n_classes)} groups or more are needed" in note


def test_answers_are_scikit_learns_at_the_penalty_of_each_fold(make_store):
    path = make_store(group_offset=1.0, layers=(0, 1), hidden=20)
    with open_store(path) as store:
        y, g = np.asarray(store.labels, dtype=np.int64), np.asarray(store.groups)
        split = make_split(y, g, split="random", folds=3)
        task, _ = make_control_task(y, g, split)
        source = FeatureSource(store, [Feature("resid_post", 0), Feature("resid_post", 1)])
        C = np.array([[0.1, 1.0, 0.1], [1.0, 1.0, 0.01]])
        found = evaluate_control(ExactEngine(), source, task, 4, C)
        assert not found.not_converged
        for layer in range(2):
            X = store.layer(layer).astype(np.float64)
            for number, (train, test) in enumerate(split):
                scaler = StandardScaler().fit(X[train])
                fit = LogisticRegression(C=C[layer, number], tol=1e-10, max_iter=20000)
                fit.fit(scaler.transform(X[train]), task.labels[train])
                np.testing.assert_allclose(
                    found.probability[layer, test][:, fit.classes_],
                    fit.predict_proba(scaler.transform(X[test])),
                    atol=1e-5,
                )


@pytest.fixture(scope="module")
def recognised(make_store, tmp_path_factory):
    """Groups that every layer shows and classes that none does."""
    path = make_store(group_offset=4.0, per_group=4, hidden=96, layers=(0, 1))
    return train_probes(str(path), str(tmp_path_factory.mktemp("r") / "out"), bootstrap=100)


def test_recognised_groups_are_memorised(recognised, read):
    summary, table = read(recognised)
    found = summary["memorisation"]
    assert found["layer"] == summary["best_layer"]["layer"]
    assert found["control_accuracy"] > 0.9
    assert abs(found["selectivity"]) < 0.1
    assert found["shared"] > 0.95
    assert found["n_groups"] == 40
    accuracy = control_rows(table)
    assert set(accuracy) == {("resid_post", "0"), ("resid_post", "1"), ("pixels", "")}
    assert accuracy["resid_post", str(found["layer"])] == pytest.approx(found["control_accuracy"])
    # The pixels of this store are noise, in which no group can be recognised.
    assert accuracy["pixels", ""] < 0.45
    assert summary["permutation_test"]["p"] > 0.05  # the grouped split is not taken in


def test_selectivity_is_the_paired_difference(recognised, read):
    _, table = read(recognised)
    (row,) = [
        r
        for r in table
        if (r["feature"], r["layer"], r["metric"]) == ("resid_post", "1", "selectivity")
    ]
    assert (row["split"], row["task"]) == ("random", "label")
    labels = {
        (r["feature"], r["layer"]): float(r["value"])
        for r in table
        if (r["task"], r["split"], r["metric"]) == ("label", "random", "accuracy")
    }
    control = control_rows(table)["resid_post", "1"]
    assert float(row["value"]) == pytest.approx(labels["resid_post", "1"] - control)
    assert float(row["ci_low"]) <= float(row["value"]) <= float(row["ci_high"])


def test_selectivity_interval_by_hand(make_store, tmp_path, read):
    """As ClusterBootstrap says of the predictions of both tasks."""
    path = make_store(group_offset=2.0, signal={0: 2.0}, layers=(0,), baselines=False)
    folder = train_probes(str(path), str(tmp_path / "out"), bootstrap=80)
    summary, _ = read(folder)
    with open_store(path) as store, h5py.File(folder / "predictions.h5") as file:
        y, g = np.asarray(store.labels, dtype=np.int64), np.asarray(store.groups)
        split = make_split(y, g, split="random", folds=5)
        task, _ = make_control_task(y, g, split)
        source = FeatureSource(store, [Feature("resid_post", 0)])
        drawn = evaluate_control(ExactEngine(), source, task, 4, np.ones((1, 5))).probability[0]
        true = file["random/probability"][0]
    bootstrap = ClusterBootstrap(g, repetitions=80)
    interval = bootstrap.difference(true, drawn, y, "accuracy", other_labels=task.labels)
    found = summary["memorisation"]
    assert found["selectivity"] == pytest.approx(interval.value)
    assert found["selectivity_ci"] == pytest.approx([interval.low, interval.high])
    accuracy = bootstrap.intervals(drawn, task.labels)["accuracy"]
    assert found["ci"] == pytest.approx([accuracy.low, accuracy.high])


def test_a_random_main_split_is_the_one_that_it_is_scored_under(make_store, tmp_path, read):
    path = make_store(group_offset=4.0, hidden=96, layers=(0,), baselines=False)
    summary, table = read(
        train_probes(str(path), str(tmp_path / "out"), split="random", bootstrap=20)
    )
    assert summary["memorisation"]["control_accuracy"] > 0.6
    assert len(control_rows(table)) == 1


@pytest.mark.parametrize("option", [{"control_task": False}, {"compare_random": False}])
def test_without_a_control_task(make_store, tmp_path, option, read):
    path = make_store(layers=(0,), baselines=False)
    summary, table = read(train_probes(str(path), str(tmp_path / "out"), bootstrap=20, **option))
    assert summary["memorisation"] is None
    assert {r["task"] for r in table} == {"label"}
    assert not any(r["metric"] == "selectivity" for r in table)
    assert not any("memorisation" in warning for warning in summary["warnings"])


def test_independent_images_are_said_to_leave_it_unmeasured(make_store, tmp_path, read):
    path = make_store(per_group=1, groups_per_class=20, layers=(0,), baselines=False)
    summary, _ = read(train_probes(str(path), str(tmp_path / "out"), bootstrap=20))
    assert summary["memorisation"] is None
    assert any("memorisation was not measured" in warning for warning in summary["warnings"])
