from __future__ import annotations

import numpy as np
import torch

from signbridge.probes.dataset.features import FeatureSource
from signbridge.probes.dataset.standardise import alone
from signbridge.probes.sgd.optimizer import Preconditioner
from signbridge.results.features import Feature
from signbridge.store import open_store


def test_the_preconditioner_is_the_inverse_hessian_where_the_sketch_is_whole(make_store):
    """With no more features than columns of the sketch: (a S + lambda)^-1 G, by numpy."""
    path = make_store(n_classes=2, groups_per_class=50, per_group=3, layers=(0, 1))
    features = [Feature("resid_post", k) for k in (0, 1)]
    X = FeatureSource(open_store(path), features).block(0, 300)
    preconditioner = Preconditioner(2, 24)
    preconditioner.measure(map(torch.as_tensor, (X[:100], X[100:])), 300, 0, alone)
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
