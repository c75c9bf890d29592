"""Standardisation against scikit-learn's StandardScaler."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from signbridge.probes.dataset.standardise import standardisation


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
