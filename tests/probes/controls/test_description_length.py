"""Online description length against a direct implementation with scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from signbridge import open_store
from signbridge.probes import train_probes
from signbridge.probes.controls.description_length import code_lengths, online_order
from signbridge.probes.dataset.features import FeatureSource
from signbridge.probes.engines import ExactEngine
from signbridge.results.features import Feature
from signbridge.statistics.bootstrap import mean_interval


def test_blocks_are_whole_groups_that_double():
    g = np.repeat(np.arange(100), 3)
    y = g % 6
    order = online_order(y, g, seed=1)
    assert order.n_groups == (7, 6, 12, 25, 50)  # ends after 7, 13, 25, 50 and 100 groups
    assert order.n_classes == 6
    np.testing.assert_array_equal(np.sort(np.concatenate(order.blocks)), np.arange(300))
    block = np.empty(300, dtype=int)
    for number, rows in enumerate(order.blocks):
        block[rows] = number
    np.testing.assert_array_equal(block[::3], block[1::3])
    again, other = online_order(y, g, seed=1), online_order(y, g, seed=2)
    np.testing.assert_array_equal(order.blocks[0], again.blocks[0])
    assert order.blocks[0].tolist() != other.blocks[0].tolist()


def test_there_are_at_most_ten_halvings():
    order = online_order(np.arange(5000) % 2, np.arange(5000))
    assert len(order.blocks) == 11
    assert len(order.blocks[0]) == math.ceil(5000 / 2**10)


def test_only_the_rows_asked_for_are_sent():
    y, g = np.arange(60) % 3, np.arange(60) // 2
    order = online_order(y, g, np.arange(10, 50))
    np.testing.assert_array_equal(order.rows, np.arange(10, 50))
    assert sum(order.n_groups) == 20


def test_two_groups_of_one_class_each_cannot_be_sent():
    assert online_order([0, 0, 1, 1], [0, 0, 1, 1]) is None


def by_hand(X, y, order, C):
    """Bits of every label, with the optimum of scikit-learn."""
    K, bits = order.n_classes, np.full(len(y), np.log2(order.n_classes))
    for number in range(1, len(order.blocks)):
        train, block = np.concatenate(order.blocks[:number]), order.blocks[number]
        scaler = StandardScaler().fit(X[train])
        fit = LogisticRegression(C=C, tol=1e-10, max_iter=20000)
        fit.fit(scaler.transform(X[train]), y[train])
        p = np.zeros((len(block), y.max() + 1))
        p[:, fit.classes_] = fit.predict_proba(scaler.transform(X[block]))
        groups, absent = sum(order.n_groups[:number]), K - len(fit.classes_)
        p *= groups / (groups + absent)
        p[:, np.setdiff1d(np.unique(y), fit.classes_)] = 1 / (groups + absent)
        np.testing.assert_allclose(p.sum(1), 1)  # a code: no probability is given twice
        bits[block] = -np.log2(p[np.arange(len(block)), y[block]])
    return bits


@pytest.mark.parametrize("rare", [False, True])
def test_bits_are_those_of_scikit_learns_probes(make_store, rare):
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(60), 2)
    labels = rng.integers(0, 4 if rare else 2, 60)[groups]
    if rare:  # classes that the first probes have not seen
        labels[groups >= 54] = 4 + (groups[groups >= 54] - 54) // 2
    path = make_store(labels=labels, groups=groups, signal={1: 3.0}, layers=(0, 1), hidden=12)
    values = [0.01, 1.0]
    with open_store(path) as store:
        y = np.asarray(store.labels, dtype=np.int64)
        order = online_order(y, groups, seed=2)
        missing = [order.n_classes - len(np.unique(y[train])) for train, _ in order.folds]
        assert any(missing) == rare
        source = FeatureSource(store, [Feature("resid_post", 0), Feature("resid_post", 1)])
        found = code_lengths(ExactEngine(), source, y, len(store.class_names), order, values)
        for layer in range(2):
            X = store.layer(layer).astype(np.float64)
            each = [by_hand(X, y, order, C) for C in values]
            best = int(np.argmin([bits.sum() for bits in each]))
            assert found.C[layer] == values[best]
            np.testing.assert_allclose(
                found.bits[layer], each[best] + 1 / len(y), rtol=1e-5, atol=1e-5
            )
            assert found.bits[layer].sum() == pytest.approx(each[best].sum() + 1, rel=1e-6)


def test_a_layer_that_shows_the_class_gives_the_shorter_code(make_store, tmp_path, read):
    path = make_store(signal={1: 8.0}, groups_per_class=25)
    folder = train_probes(
        str(path), str(tmp_path / "out"), description_length=True, C=[0.01, 1.0], bootstrap=100
    )
    summary, table = read(folder)
    rows = {
        (r["feature"], r["layer"], r["metric"]): r
        for r in table
        if r["metric"] in ("description_length", "compression")
    }
    assert len(rows) == 2 * 4  # three layers and the pixels
    length = {key[:2]: float(r["value"]) for key, r in rows.items() if key[2] != "compression"}
    assert min(length, key=length.get) == ("resid_post", "1")
    # Two bits a label are what a uniform code takes; noise costs more, as probes are wrong.
    assert length["resid_post", "1"] < 1.2
    assert length["pixels", ""] > 1.9
    for key in length:
        one, other = (rows[(*key, name)] for name in ("description_length", "compression"))
        assert float(one["value"]) * float(other["value"]) == pytest.approx(2)
        assert float(one["ci_low"]) * float(other["ci_high"]) == pytest.approx(2)
        assert float(one["ci_low"]) < float(one["value"]) < float(one["ci_high"])
        assert (one["split"], one["task"], one["n_test"]) == ("grouped", "label", "200")
    blocks = summary["description_length"]
    assert sum(blocks["blocks"]) == 200
    assert blocks["uniform"] == 2
    assert blocks["groups"] == [4, 3, 6, 12, 25, 50]


def test_it_is_measured_only_where_asked_for(planted, tmp_path, read):
    summary, table = read(
        train_probes(str(planted), str(tmp_path / "out"), layers=[1], bootstrap=20)
    )
    assert summary["description_length"] is None
    assert not any(r["metric"] == "compression" for r in table)


def test_interval_of_a_mean_covers_the_mean():
    """Bits are skewed; groups of three are alike. 300 samples of 40 groups."""
    rng = np.random.default_rng(5)
    covered = 0
    for seed in range(300):
        x = np.repeat(rng.exponential(size=40), 3)
        interval = mean_interval(x, np.arange(120) // 3, repetitions=300, seed=seed)
        covered += interval.low <= 1 <= interval.high
    assert 0.92 <= covered / 300 <= 0.98
    alone = mean_interval([1.0, 2.0], [0, 0])
    assert alone.value == 1.5
    assert math.isnan(alone.low)
