from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

from signbridge.errors import ProbeError
from signbridge.probes import load_probes, train_probes
from signbridge.probes.engines import ExactEngine
from signbridge.probes.selection import choose_layers, lower_median
from signbridge.store import open_store


def test_penalty_is_chosen_inside_the_training_part(make_store, tmp_path, read):
    """The same choice as scikit-learn's fits make on inner folds of the training part alone."""
    path = make_store(signal={0: 2.0}, layers=(0,), baselines=False)
    values = [1e-4, 0.1, 100.0]
    folder = train_probes(
        str(path), str(tmp_path / "out"), C=values, bootstrap=20, compare_random=False
    )
    summary, _ = read(folder)
    store = open_store(path)
    X, y, g = store.layer(0).astype(np.float64), store.labels, store.groups
    chosen = []
    for train, _ in StratifiedGroupKFold(5, shuffle=True, random_state=42).split(X, y, g):
        inner = StratifiedGroupKFold(3, shuffle=True, random_state=42)
        loss = np.zeros(3)
        for a, b in inner.split(train, y[train], g[train]):
            fit_rows, check = train[a], train[b]
            scaler = StandardScaler().fit(X[fit_rows])
            for k, C in enumerate(values):
                fit = LogisticRegression(C=C, tol=1e-9, max_iter=20000)
                fit.fit(scaler.transform(X[fit_rows]), y[fit_rows])
                p = fit.predict_proba(scaler.transform(X[check]))
                loss[k] -= np.log(p[np.arange(len(check)), y[check]]).sum()
        chosen.append(values[int(loss.argmin())])
    assert summary["C_chosen"]["resid_post/0"] == chosen
    assert lower_median(chosen) == load_probes(folder)[0].C
    assert "chosen among 0.0001, 0.1, 100" in summary["protocol"]["description"]


def test_labels_of_a_test_part_change_nothing_but_their_scores(make_store, tmp_path, monkeypatch):
    """Scrambling what is scored leaves that fold's predictions as they were."""
    path = make_store(signal={0: 2.0}, layers=(0,), baselines=False)
    y, groups = open_store(path).labels, open_store(path).groups
    folds = [(np.flatnonzero(groups % 4 != k), np.flatnonzero(groups % 4 == k)) for k in range(4)]
    from signbridge.probes.dataset.features import FeatureSource
    from signbridge.probes.dataset.splits import Split, inner_split
    from signbridge.probes.selection import evaluate
    from signbridge.results.features import Feature

    def predicted(labels):
        split = Split("grouped", tuple(folds), len(y))
        inner = [inner_split(a, labels, groups, split="grouped", folds=3, seed=0) for a, _ in folds]
        source = FeatureSource(open_store(path), [Feature("resid_post", 0)])
        return evaluate(ExactEngine(), source, labels, 4, [(split, inner)], (0.01, 1.0))[0]

    scrambled = y.copy()
    test = folds[0][1]
    scrambled[test] = np.random.default_rng(0).integers(4, size=len(test))
    first, second = predicted(y), predicted(scrambled)
    np.testing.assert_array_equal(first.probability[:, test], second.probability[:, test])
    assert first.inner_accuracy[0, 0] == second.inner_accuracy[0, 0]
    assert first.C[0, 0] == second.C[0, 0]


def test_training_part_too_small_to_choose_in(make_store, tmp_path, read):
    path = make_store(labels=np.array([0, 0, 1, 1]), n_classes=2, layers=(0,), baselines=False)
    arguments = {"split": "random", "folds": 2, "bootstrap": 20}
    summary, _ = read(train_probes(str(path), str(tmp_path / "one"), **arguments))
    assert summary["nested"] is None
    assert any("nested selection" in warning for warning in summary["warnings"])
    with pytest.raises(ProbeError, match="give one value of C"):
        train_probes(str(path), str(tmp_path / "several"), C=[0.1, 1.0], **arguments)


def test_choice_of_the_layer():
    accuracy = np.array([[0.5, 0.9], [0.8, 0.9], [0.8, 0.1]])
    entropy = np.array([[1.0, 2.0], [0.7, 1.0], [0.6, 3.0]])
    np.testing.assert_array_equal(choose_layers(accuracy, entropy), [2, 1])
    accuracy[0, 0] = np.nan
    assert choose_layers(accuracy, entropy) is None


def test_lower_median():
    assert lower_median([3.0, 1.0, 2.0, 10.0]) == 2.0
