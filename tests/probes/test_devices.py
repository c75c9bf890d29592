"""A GPU gives what the CPU gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from signbridge.probes import fit_logistic
from signbridge.probes.dataset.features import FeatureSource
from signbridge.probes.engines import ExactEngine
from signbridge.probes.sgd.engine import SgdEngine
from signbridge.results.features import Feature
from signbridge.store import open_store

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
FOLD = (np.arange(60), np.arange(60, 80))


@pytest.mark.parametrize("shape", [(60, 200), (1300, 40)])
def test_exact_fits(shape):
    rng = np.random.default_rng(0)
    X, y = torch.as_tensor(rng.normal(size=(2, *shape))), np.arange(shape[0]) % 5
    cpu, gpu = (fit_logistic(X.to(device), y, [0.01, 1.0]) for device in ("cpu", "cuda"))
    assert gpu.coef.device.type == "cuda"
    assert bool(gpu.converged.all())
    torch.testing.assert_close(gpu.coef.cpu(), cpu.coef, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("memory_bytes", [2**30, 64 * 3 * 24 * 4])
@pytest.mark.parametrize("kind", [ExactEngine, SgdEngine])
def test_engines(planted, kind, memory_bytes):
    """Also where sgd streams the features."""
    store = open_store(planted)
    labels = np.asarray(store.labels, dtype=np.int64)
    features = [Feature("resid_post", k) for k in range(3)]
    found = []
    for device in ("cpu", "cuda"):
        source = FeatureSource(store, features, memory_bytes)
        engine = kind(device, memory_bytes)
        held = next(engine.held_out(source, labels, 4, [FOLD], [0.01, 1.0]))
        found.append((held.probability, engine.refit(source, labels, 4, [0.1]).weight))
    np.testing.assert_allclose(found[0][0], found[1][0], atol=2e-3)
    np.testing.assert_allclose(found[0][1], found[1][1], atol=2e-3)
