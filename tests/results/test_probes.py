from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from signbridge.errors import ProbeError
from signbridge.results.features import Feature
from signbridge.results.probes import Probe, load_probes, save_probes


def a_probe(name="resid_post/5", n_features=7, n_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return Probe(
        Feature.parse(name),
        rng.normal(size=(n_classes, n_features)),
        rng.normal(size=n_classes),
        rng.normal(size=n_features),
        rng.uniform(0.5, 2, size=n_features),
        0.1,
    )


@pytest.fixture
def saved(tmp_path):
    probes = [a_probe(), a_probe("resid_post/11", seed=1), a_probe("pixels", 9, seed=2)]
    save_probes(tmp_path, probes, ["A", "B", "C"], {"store": {"name": "s"}})
    return tmp_path, probes


def test_predictions_are_the_same_to_the_bit(saved):
    folder, probes = saved
    loaded = load_probes(folder)
    assert list(loaded) == ["resid_post/5", "resid_post/11", "pixels"]
    assert loaded.layers == (5, 11)
    assert loaded.class_names == ("A", "B", "C")
    assert loaded.provenance == {"store": {"name": "s"}}
    for probe in probes:
        X = np.random.default_rng(3).normal(size=(20, probe.n_features)).astype(np.float16)
        again = loaded[probe.feature.name]
        np.testing.assert_array_equal(again.predict_proba(X), probe.predict_proba(X))
        np.testing.assert_array_equal(again.predict(X), probe.predict(X))
        assert again.C == probe.C
    assert loaded[5].feature == Feature("resid_post", 5)
    assert "vision" not in loaded


def test_a_scikit_learn_fit_predicts_the_same_as_a_probe(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 5)) * [1, 10, 100, 1, 1] + [0, 5, 1000, 0, 0]
    y = np.arange(60) % 3
    scaler = StandardScaler().fit(X)
    theirs = LogisticRegression().fit(scaler.transform(X), y)
    probe = Probe(
        Feature("pixels"), theirs.coef_, theirs.intercept_, scaler.mean_, scaler.scale_, 1.0
    )
    save_probes(tmp_path, [probe], ["A", "B", "C"])
    np.testing.assert_allclose(
        load_probes(tmp_path)["pixels"].predict_proba(X),
        theirs.predict_proba(scaler.transform(X)),
        rtol=1e-10,
    )


def test_class_without_training_samples_has_probability_zero(tmp_path):
    probe = a_probe()
    probe.weight[1], probe.bias[1] = 0, -np.inf
    save_probes(tmp_path, [probe], ["A", "B", "C"])
    p = load_probes(tmp_path)[5].predict_proba(np.zeros((2, 7)))
    assert (p[:, 1] == 0).all()
    np.testing.assert_allclose(p.sum(1), 1)


def test_nothing_is_pickled(saved):
    folder, _ = saved
    assert sorted(file.name for file in folder.iterdir()) == ["probes.json", "probes.safetensors"]
    header = (folder / "probes.safetensors").read_bytes()[8:200]
    assert b"F64" in header or b"__metadata__" in header
    json.loads((folder / "probes.json").read_text())


def test_wrong_width_is_named():
    with pytest.raises(ProbeError, match=r"resid_post/5 takes rows of 7 values"):
        a_probe().predict_proba(np.zeros((2, 8)))


@pytest.mark.parametrize("name", ["probes.json", "probes.safetensors"])
def test_missing_file(saved, name):
    folder, _ = saved
    (folder / name).unlink()
    with pytest.raises(ProbeError, match=rf"{name} does not exist"):
        load_probes(folder)


def test_damaged_files(saved):
    folder, _ = saved
    tensors = folder / "probes.safetensors"
    data = bytearray(tensors.read_bytes())
    data[-3] ^= 1
    tensors.write_bytes(data)
    with pytest.raises(ProbeError, match=r"is not what probes\.json records"):
        load_probes(folder)
    (folder / "probes.json").write_text("{")
    with pytest.raises(ProbeError, match="cannot be read"):
        load_probes(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "else"}, "does not describe probes"),
        ({"version": "2.0"}, "format version 2.0"),
        ({"features": [{"name": "resid_post/9", "C": 1}]}, "are incomplete"),
        ({"class_names": None}, "are incomplete"),
    ],
)
def test_words_that_do_not_fit(saved, change, message):
    folder, _ = saved
    path = folder / "probes.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ProbeError, match=message):
        load_probes(folder)
