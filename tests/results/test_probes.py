from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import safetensors.numpy
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
        ({"features": [{"name": "resid_post/x", "C": 1}]}, "needs a layer number"),
        ({"features": []}, "names no feature"),
        ({"features": [{"name": "pixels", "C": 1}] * 2}, "no feature, or one twice"),
        ({"features": [{"name": "pixels"}]}, r"lacks 'features\[0\].C'"),
        ({"features": [{"name": 5, "C": 1}]}, r"gives 5 as features\[0\].name, not a text"),
        ({"features": {"name": "pixels"}}, "as features, not a list"),
        ({"features": "pixels"}, "gives 'pixels' as features, not a list"),
        ({"features": [["pixels"]]}, r"as features\[0\], not an object"),
        ({"class_names": None}, "lacks 'class_names'"),
        ({"class_names": [1, 2, 3]}, r"gives 1 as class_names\[0\], not a text"),
        ({"class_names": ["A", "B"]}, r"of shape \(3, 7\), not float64 of \(2, 7\)"),
        ({"class_names": ["A", "B", "C", "D"]}, r"of shape \(3, 7\), not float64 of \(4, 7\)"),
        ({"class_names": ["A", "B", "A"]}, "names no class, or one twice"),
        ({"class_names": []}, "are incomplete"),
        ({"provenance": [1]}, "as provenance, not an object"),
        ({"sha256": 3}, "gives 3 as sha256, not a text"),
    ],
)
def test_words_that_do_not_fit(saved, change, message):
    folder, _ = saved
    path = folder / "probes.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ProbeError, match=message) as error:
        load_probes(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"null", b"[]", b"\xff", b'{"format": 1e999}'])
def test_words_that_are_none(content, saved):
    (saved[0] / "probes.json").write_bytes(content)
    with pytest.raises(ProbeError, match=r"probes\.json (cannot be read|does not describe)"):
        load_probes(saved[0])


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("weight", np.nan, "weight of resid_post/5 holds what no fit gives"),
        ("weight", np.inf, "weight of resid_post/5 holds what no fit gives"),
        ("mean", np.nan, "mean of resid_post/5 holds what no fit gives"),
        ("deviation", 0, "deviation of resid_post/5 holds what no fit gives"),
        ("deviation", -1, "deviation of resid_post/5 holds what no fit gives"),
        ("bias", np.nan, "bias of resid_post/5 holds what no fit gives"),
        ("bias", np.inf, "bias of resid_post/5 holds what no fit gives"),
        ("bias", -np.inf, "resid_post/5 knows no class"),
    ],
)
def test_numbers_that_no_fit_gives(part, value, message, tmp_path):
    probe = a_probe()
    getattr(probe, part)[:] = value
    save_probes(tmp_path, [probe], ["A", "B", "C"])
    with pytest.raises(ProbeError, match=message):
        load_probes(tmp_path)


@pytest.mark.parametrize("part", ["weight", "bias", "mean", "deviation"])
@pytest.mark.parametrize(
    "change",
    [lambda a: a[:-1], lambda a: a[None], lambda a: a.astype(np.float16), lambda a: a[..., :0]],
)
def test_tensors_of_another_shape_or_type(part, change, saved):
    folder, _ = saved
    file, words = folder / "probes.safetensors", folder / "probes.json"
    tensors = safetensors.numpy.load_file(file)
    key = f"resid_post/5.{part}"
    tensors[key] = np.ascontiguousarray(change(tensors[key]))
    safetensors.numpy.save_file(tensors, file)
    content = json.loads(words.read_text())
    content["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    words.write_text(json.dumps(content))
    with pytest.raises(ProbeError, match="are incomplete") as error:
        load_probes(folder)
    assert "\n" not in str(error.value)
