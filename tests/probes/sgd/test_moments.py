from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from signbridge.probes.dataset.features import FeatureSource
from signbridge.probes.dataset.standardise import alone, standardisation_of
from signbridge.probes.sgd.optimizer import Preconditioner, curvature_of
from signbridge.results.features import Feature
from signbridge.store import open_store


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


def test_the_preconditioner_is_the_inverse_hessian_where_the_sketch_is_whole(source):
    """With no more features than columns of the sketch: (a S + lambda)^-1 G, by numpy."""
    X = source.block(0, 300)
    sketch = curvature_of((x for _, x in cut(X, (100, 200))), 2, 24, 300, 0, alone)
    preconditioner = Preconditioner(2, 24)
    preconditioner.take(sketch)
    rng = np.random.default_rng(0)
    G = rng.normal(size=(2, 3, 4, 24)).astype(np.float32)
    a = rng.uniform(0.01, 0.2, size=(2, 3, 4)).astype(np.float32)
    lam = rng.uniform(0.01, 1, size=(2, 3)).astype(np.float32)
    found = preconditioner(*map(torch.as_tensor, (G, np.arange(2), a, lam))).numpy()
    for layer in range(2):
        S = X[:, layer].astype(np.float64).T @ X[:, layer] / 300
        for s in range(3):
            for k in range(4):
                H = a[layer, s, k] * S + lam[layer, s] * np.eye(24)
                np.testing.assert_allclose(
                    found[layer, s, k], np.linalg.solve(H, G[layer, s, k]), rtol=1e-3, atol=1e-4
                )
