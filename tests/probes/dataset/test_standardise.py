"""Standardisation against scikit-learn's StandardScaler."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from signbridge.probes.dataset.features import FeatureSource
from signbridge.probes.dataset.standardise import alone, standardisation, standardisation_of
from signbridge.results.features import Feature
from signbridge.store import open_store


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("samples", [1, 7, 9000])  # 9000: more than one block
def test_equals_standard_scaler(dtype, samples, monkeypatch):
    monkeypatch.setattr("signbridge.probes.dataset.standardise._BLOCK_BYTES", 1 << 17)
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(samples, 5)) * [1, 1e-3, 50, 1, 1] + [0, 3, 2000, 7, 0]).astype(dtype)
    X[:, 3] = 0.1  # constant, and not representable
    scaler = StandardScaler().fit(X.astype(np.float64))
    ours = standardisation(torch.from_numpy(X))
    # scikit-learn's mean is one pass, so its own rounding is 1e-13 of the value here.
    np.testing.assert_allclose(ours.mean, scaler.mean_, rtol=1e-12)
    np.testing.assert_allclose(ours.deviation, scaler.scale_, rtol=1e-11)
    assert ours.deviation[3] == 1
    np.testing.assert_allclose(
        ours.apply(torch.from_numpy(X)), scaler.transform(X.astype(np.float64)), atol=1e-10
    )


def test_uses_only_the_rows_given_and_keeps_leading_axes():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(3, 20, 4))
    rows = [2, 3, 5, 7, 11]
    ours = standardisation(torch.from_numpy(X), torch.tensor(rows))
    assert ours.mean.shape == (3, 4)
    for layer in range(3):
        scaler = StandardScaler().fit(X[layer, rows])
        np.testing.assert_allclose(ours.mean[layer], scaler.mean_, atol=1e-15)
        np.testing.assert_allclose(ours.deviation[layer], scaler.scale_, rtol=1e-13)


def test_large_float16_values_do_not_overflow():
    X = torch.tensor([[60000.0], [-60000.0]] * 300, dtype=torch.float16)
    assert float(standardisation(X).deviation) == pytest.approx(float(X[0, 0]))


def test_offset_far_above_the_deviation():
    X = 1e6 + np.random.default_rng(2).normal(size=(500, 2))
    ours = standardisation(torch.from_numpy(X))
    np.testing.assert_allclose(ours.deviation, X.std(0), rtol=1e-9)


def test_no_samples():
    with pytest.raises(ValueError, match="at least one sample"):
        standardisation(torch.zeros(0, 3))


def cut(X, sizes):
    start = 0
    for size in sizes:
        yield np.arange(start, start + size), torch.as_tensor(X[start : start + size])
        start += size


@pytest.fixture(scope="module")
def source(make_store):
    path = make_store(n_classes=2, groups_per_class=50, per_group=3, layers=(0, 1))
    return FeatureSource(open_store(path), [Feature("resid_post", k) for k in (0, 1)])


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_one_pass_in_blocks_gives_scikit_learns_moments(source, offset):
    X = source.block(0, 300).astype(np.float64) + offset
    X[:, 0, 5] = 0.1  # constant
    found = standardisation_of(source, cut(X, (1, 64, 100, 135)), alone)
    for layer in range(2):
        scaler = StandardScaler().fit(X[:, layer])
        np.testing.assert_allclose(found.mean[layer], scaler.mean_, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(found.deviation[layer], scaler.scale_, rtol=1e-10)
    assert found.deviation[0, 5] == 1


def test_processes_add_up_to_one(source):
    """The sums that three processes exchange, played one after the other."""
    X = source.block(0, 300).astype(np.float64)
    shares = [X[rank::3] for rank in range(3)]
    exchanged = [[], [], []]

    def play(rank, round_of):
        calls = iter(range(100))

        def reduce(values, how):
            number = next(calls)
            if number == len(exchanged[rank]):
                exchanged[rank].append(values.clone())
            if number >= round_of:
                raise StopIteration
            others = [exchanged[k][number] for k in range(3)]
            return sum(others) if how == "sum" else torch.stack(others).max(0).values

        return reduce

    for step in range(5):
        for rank in range(3):
            try:
                found = standardisation_of(source, cut(shares[rank], (100,)), play(rank, step))
            except StopIteration:
                found = None
    whole = standardisation_of(source, cut(X, (300,)), alone)
    torch.testing.assert_close(found.mean, whole.mean, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(found.deviation, whole.deviation, rtol=1e-12, atol=0)
