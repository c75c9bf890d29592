from __future__ import annotations

import csv
import json

import h5py
import numpy as np
import pytest

from signbridge.errors import ProbeError
from signbridge.probes import load_probes, train_probes
from signbridge.probes import sweep as sweep_module
from signbridge.probes.dataset.features import FeatureSource
from signbridge.results.features import Feature
from signbridge.store import open_store

QUICK = {"bootstrap": 20, "permutations": 0, "control_task": False}
RANDOM = {"model": "planted", "weights": "random", "weights_seed": 3}


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def held_out(folder, where="/"):
    with h5py.File(folder / "predictions.h5") as file:
        names = list(file["feature_name"].asstr())
        return dict(zip(names, file[where]["probability"][:], strict=True))


@pytest.fixture(scope="module")
def planted(make_store):
    """Eighty samples; the class is shown in layer 1, not clearly."""
    return make_store(signal={1: 3.0})


@pytest.fixture(scope="module")
def control(make_store):
    """The samples of ``planted``; the class is shown in layer 2, and more clearly than there."""
    return make_store(signal={2: 12.0}, seed=5, hidden=16, provenance=RANDOM)


@pytest.fixture(scope="module")
def finished(planted, control, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "both"
    return train_probes(str(planted), str(folder), control=str(control), C=[0.01, 1.0], **QUICK)


def test_the_control_is_probed_as_a_store_of_its_own(finished, control, tmp_path):
    """Its layers have the folds, penalties and answers of a sweep over the control alone."""
    alone = train_probes(str(control), str(tmp_path / "r"), C=[0.01, 1.0], baselines=False, **QUICK)
    for where in ("/", "/random"):
        ours, theirs = held_out(finished, where), held_out(alone, where)
        for k in range(3):
            np.testing.assert_allclose(
                ours[f"random_weights/{k}"], theirs[f"resid_post/{k}"], atol=2e-6
            )
    chosen = summary(finished)["C_chosen"]
    for k in range(3):
        same = summary(alone)["C_chosen"][f"resid_post/{k}"]
        assert chosen[f"random_weights/{k}"] == same

    def rows(folder, feature):
        with (folder / "scores.csv").open() as file:
            for row in csv.DictReader(file):
                if row["feature"] == feature and row["metric"] == "accuracy":
                    yield (
                        (row["split"], row["layer"]),
                        (row["value"], row["ci_low"], row["ci_high"]),
                    )

    assert dict(rows(finished, "random_weights")) == dict(rows(alone, "resid_post"))
    assert len(dict(rows(finished, "random_weights"))) == 6


def test_the_control_chooses_nothing(finished, planted, tmp_path):
    without = train_probes(str(planted), str(tmp_path / "r"), C=[0.01, 1.0], **QUICK)
    ours, theirs = summary(finished), summary(without)
    assert ours["best_layer"] == theirs["best_layer"]
    assert ours["best_layer"]["layer"] == 1
    assert ours["nested"] == theirs["nested"]
    assert ours["leakage"] == theirs["leakage"]
    assert theirs["control"] is None
    probability = held_out(finished)
    better = probability["random_weights/2"].argmax(1) == open_store(planted).labels
    assert better.mean() > ours["best_layer"]["accuracy"]


def test_what_is_recorded(finished, control):
    found = summary(finished)
    with open_store(control) as store:
        assert found["control"]["fingerprint"] == store.fingerprint
        assert found["run"]["control"] == found["control"]["content_sha256"] == store.content_sha256
    assert found["control"]["path"] == str(control)
    assert found["control"]["weights_seed"] == 3
    assert found["control"]["layers"] == [0, 1, 2]
    assert found["control"]["differing"] == ["hidden_size"]
    assert any(
        "differs in more than its weights (hidden_size" in text for text in found["warnings"]
    )
    assert f"--control {control}" in found["command"]


def test_saved_probes_name_the_control_apart(finished, control):
    probes = load_probes(finished)
    assert probes.layers == (0, 1, 2)
    assert [name for name in probes if name.startswith("random_weights")] == [
        f"random_weights/{k}" for k in range(3)
    ]
    assert probes["random_weights/2"].n_features == 16
    assert json.loads((finished / "probes.json").read_text())["layers"] == [0, 1, 2]


def test_the_control_decides_which_run_it_is(finished, planted, control, make_store, tmp_path):
    before = (finished / "summary.json").read_bytes()
    moved = tmp_path / "moved.h5"
    moved.write_bytes(control.read_bytes())
    options = {"C": [0.01, 1.0], **QUICK}
    train_probes(str(planted), str(finished), control=str(moved), **options)
    assert (finished / "summary.json").read_bytes() == before
    other = make_store(seed=6, provenance=RANDOM)
    with pytest.raises(ProbeError, match=r"another run .*control"):
        train_probes(str(planted), str(finished), control=str(other), **options)
    with pytest.raises(ProbeError, match="another run"):
        train_probes(str(planted), str(finished), **options)


def test_a_stopped_sweep_is_continued_in_the_control(planted, control, tmp_path, monkeypatch):
    options = {"control": str(control), "memory_gb": 1e-5, "baselines": False, "folds": 2, **QUICK}
    whole = train_probes(str(planted), str(tmp_path / "whole"), **options)
    real, calls = sweep_module._probe_batch, []

    def stops(*arguments):
        (batch,) = [one for one in arguments if isinstance(one, list)]
        calls.append([feature.name for feature in batch])
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(sweep_module, "_probe_batch", stops)
    with pytest.raises(KeyboardInterrupt):
        train_probes(str(planted), str(tmp_path / "stopped"), **options)
    assert calls[3:] == [["random_weights/0"], ["random_weights/1"]]
    again = train_probes(str(planted), str(tmp_path / "stopped"), **options)
    assert calls[5:] == [["random_weights/1"], ["random_weights/2"]]
    for name in ("scores.csv", "probes.safetensors"):
        assert (whole / name).read_bytes() == (again / name).read_bytes()


@pytest.mark.slow
def test_sgd_probes_the_control_too(planted, control, tmp_path):
    options = {"solver": "sgd", "max_steps": 60, "learning_rate": 0.3, "folds": 2, **QUICK}
    options |= {"layers": [2], "baselines": False, "compare_random": False}
    train_probes(str(planted), str(tmp_path / "r"), control=str(control), **options)
    answers = held_out(tmp_path / "r")
    labels = open_store(planted).labels
    assert np.mean(answers["random_weights/2"].argmax(1) == labels) > 0.9
    assert np.mean(answers["resid_post/2"].argmax(1) == labels) < 0.6


def test_only_common_layers_are_probed_and_that_is_said(planted, make_store, tmp_path):
    some = make_store(layers=(1, 2, 9), provenance=RANDOM)
    train_probes(str(planted), str(tmp_path / "r"), control=str(some), **QUICK)
    found = summary(tmp_path / "r")
    assert found["control"]["layers"] == [1, 2]
    assert any(
        "lacks layers 0, so random weights are probed at 1, 2" in w for w in found["warnings"]
    )
    assert set(held_out(tmp_path / "r")) >= {"random_weights/1", "random_weights/2", "resid_post/0"}
    with pytest.raises(ProbeError, match=r"holds layers 1, 2, 9 and none of 0;"):
        train_probes(str(planted), str(tmp_path / "s"), control=str(some), layers=[0], **QUICK)


LABELS = np.arange(80) // 20
GROUPS = np.repeat(np.arange(40), 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"provenance": {"model": "m"}}, "made with the weights of m and not with random ones"),
        ({"class_names": ("A", "B", "C", "E")}, "its classes are A, B, C, E and not A, B, C, D"),
        ({"labels": LABELS[:78], "groups": GROUPS[:78]}, "it holds 78 samples and not 80"),
        (
            {"sample_id": [f"train/{k}" for k in (0, 2, 1, *range(3, 80))]},
            "the id of sample 1 is train/2 and not train/1",
        ),
        (
            {"labels": np.roll(LABELS, 1), "groups": GROUPS},
            "the label of sample train/0 is 3 and not 0",
        ),
        (
            {"labels": LABELS, "groups": np.r_[GROUPS[:79], 38]},
            "the group of sample train/79 is 38 and not 39",
        ),
        (
            {"image_sha256": ["f" * 64] + [f"{k:064x}" for k in range(1, 80)]},
            "the image of sample train/0 is ffffffffffff... and not 000000000000...",
        ),
    ],
)
def test_stores_that_are_no_control(changes, message, planted, make_store, tmp_path):
    other = make_store(**({"provenance": RANDOM} | changes))
    with pytest.raises(ProbeError) as error:
        train_probes(str(planted), str(tmp_path / "r"), control=str(other), **QUICK)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "r").exists()


def test_a_store_is_not_its_own_control(control, tmp_path):
    with pytest.raises(ProbeError, match="is the store itself"):
        train_probes(str(control), str(tmp_path / "r"), control=str(control), **QUICK)


def test_features_of_a_control_are_read_by_their_layer(control):
    assert Feature.parse("random_weights/2") == Feature("random_weights", 2)
    with open_store(control) as store:
        source = FeatureSource(store, [Feature("random_weights", 2)])
        np.testing.assert_array_equal(source.array(source.features[0]), store.layer(2))
    with pytest.raises(ProbeError, match="needs a layer number, as in random_weights/5"):
        Feature.parse("random_weights")
