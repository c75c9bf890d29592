from __future__ import annotations

import h5py
import numpy as np
import pytest
import xarray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedShuffleSplit
from sklearn.preprocessing import StandardScaler

from signbridge.errors import ProbeError, StoreError
from signbridge.probes import load_probes, train_probes
from signbridge.probes import sweep as sweep_module
from signbridge.probes.engines import ExactEngine, HeldOut
from signbridge.probes.summary import commands_of
from signbridge.statistics.bootstrap import ClusterBootstrap
from signbridge.statistics.metrics import METRICS, score
from signbridge.store import open_store

HEADER = "feature,layer,solver,split,task,metric,value,ci_low,ci_high,n_train,n_test,n_classes,C"


def test_planted_signal_is_found_at_its_layer(finished, read, value):
    summary, table = read(finished)
    assert summary["best_layer"]["layer"] == 1
    assert summary["nested"]["layers_chosen"] == [1] * 5
    assert summary["nested"]["accuracy"] == summary["best_layer"]["accuracy"] > 0.8
    for layer in (0, 2):
        assert value(table, "resid_post", layer) < 0.5
        assert value(table, "resid_post", layer, "usable_information") < 0
    assert value(table, "resid_post", 1, "usable_information") > 1
    assert summary["chance"] == value(table, "chance") == 0.25
    assert summary["not_converged"] == []
    assert summary["warnings"] == []


def test_score_table(finished, planted, read, value):
    _, table = read(finished)
    assert ",".join(table[0]) == HEADER
    features = [("resid_post", str(k)) for k in range(3)] + [("pixels", "")]
    for split in ("grouped", "random"):
        for feature in features:
            rows = [
                r
                for r in table
                if (r["feature"], r["layer"]) == feature
                and (r["split"], r["task"]) == (split, "label")
            ]
            besides = ["selectivity"] if split == "random" else []
            assert [row["metric"] for row in rows] == [*METRICS, *besides]
            for row in rows:
                assert float(row["ci_low"]) <= float(row["ci_high"])
                if row["metric"] != "calibration_error":  # biased, so it may lie outside
                    assert float(row["ci_low"]) <= float(row["value"]) <= float(row["ci_high"])
                assert (row["n_train"], row["n_test"], row["n_classes"]) == ("64", "80", "4")
                assert (row["solver"], row["C"]) == ("exact", "1")
    assert value(table, "majority") == 0.25
    assert value(table, "majority", metric="usable_information") == pytest.approx(0, abs=1e-9)
    assert value(table, "majority", metric="calibration_error") == 0
    for row in table:
        assert not row["ci_low"] or float(row["ci_low"]) <= float(row["ci_high"])
    assert value(table, "chance", metric="usable_information") == 0
    assert value(table, "chance", metric="cross_entropy") == pytest.approx(np.log(4))


def test_the_whole_protocol_against_scikit_learn(finished, planted, read, value):
    """Held-out predictions are those of scikit-learn's optimum on scikit-learn's folds."""
    store = open_store(planted)
    folds = list(
        StratifiedGroupKFold(5, shuffle=True, random_state=42).split(
            store.labels, store.labels, store.groups
        )
    )
    with xarray.open_dataset(finished / "predictions.h5", engine="h5netcdf") as found:
        assert found.probability.dims == ("feature", "sample", "class")
        assert list(found.feature_name.values) == [*(f"resid_post/{k}" for k in range(3)), "pixels"]
        assert list(found.class_name.values) == list("ABCD")
        np.testing.assert_array_equal(found.label, store.labels)
        np.testing.assert_array_equal(found.group, store.groups)
        assert list(found.sample_id.values) == store.sample_ids
        fold = np.empty(80, dtype=int)
        for number, (train, test) in enumerate(folds):
            fold[test] = number
            for position, name in enumerate(found.feature_name.values):
                X = store.feature(str(name)).astype(np.float64)
                scaler = StandardScaler().fit(X[train])
                fit = LogisticRegression(tol=1e-10, max_iter=20000)
                fit.fit(scaler.transform(X[train]), store.labels[train])
                np.testing.assert_allclose(
                    found.probability[position, test],
                    fit.predict_proba(scaler.transform(X[test])),
                    atol=2e-6,
                )
        np.testing.assert_array_equal(found.fold, fold)
        _, table = read(finished)
        for name, expected in score(found.probability[1].values, store.labels).items():
            assert value(table, "resid_post", 1, name) == pytest.approx(expected, rel=1e-6)
    with h5py.File(finished / "predictions.h5") as file:
        assert file["random/probability"].shape == (4, 80, 4)
        assert not np.array_equal(file["random/fold"][:], fold)


def test_saved_probes_are_refitted_on_all_samples(finished, planted):
    store = open_store(planted)
    probes = load_probes(finished)
    assert list(probes) == ["resid_post/0", "resid_post/1", "resid_post/2", "pixels"]
    X = store.layer(1).astype(np.float64)
    scaler = StandardScaler().fit(X)
    fit = LogisticRegression(tol=1e-10, max_iter=20000).fit(scaler.transform(X), store.labels)
    np.testing.assert_allclose(
        probes[1].predict_proba(X), fit.predict_proba(scaler.transform(X)), atol=2e-6
    )
    assert probes.provenance["store"]["fingerprint"] == store.fingerprint


def test_summary_holds_what_the_report_needs(finished, planted, read):
    summary, _ = read(finished)
    assert (summary["format"], summary["version"]) == ("signbridge-results", "1.1")
    assert summary["store"]["name"] == "planted"
    assert summary["store"]["provenance"]["model"] == "planted"
    assert summary["store"]["n_groups"] == 40
    assert summary["nested"]["note"].startswith("each fold's layer chosen by")
    assert summary["sklearn_default"]["layer"] == 1
    assert summary["sklearn_default"]["agreement"] > 0.5
    assert f"--store {planted}" in summary["command"]
    assert "--bootstrap 100" in summary["command"]
    assert not (finished / ".parts").exists()


def test_the_commands_of_a_store_are_those_of_its_parts():
    one = {"command": "signbridge extract --layers '[0]' --output 'a b.h5'"}
    more = {"command": "signbridge extract --layers '[1]' --output 'a b.h5'"}
    other = {"command": "signbridge extract --images x --output c.h5"}
    assert commands_of(one, "a b.h5") == [one["command"]]
    extended = {"merged_from": ["a b.h5", "d"], "info_0": one, "info_1": more}
    assert commands_of(extended, "a b.h5") == [one["command"], more["command"]]
    merged = {"merged_from": ["a b.h5", "c.h5"], "info_0": extended, "info_1": other}
    assert commands_of(merged, "e f.h5") == [
        *(one["command"], more["command"], other["command"]),
        "signbridge merge 'a b.h5' c.h5 -o 'e f.h5'",
    ]
    # An older part did not record its command: what is left would make something else.
    assert commands_of({"info_0": one, "info_1": {"device": "cpu"}}, "a.h5") == []
    assert commands_of({"device": "cpu"}, "a.h5") == []
    # A stranger's store says what it likes.
    for said in ("rm -rf ~", "signbridge extract 'x", "signbridge demo --share true", 7):
        assert commands_of({"command": said}, "a.h5") == []
    said = "signbridge extract --images $(id) ; rm -rf ~"
    quoted = "signbridge extract --images '$(id)' ';' rm -rf '~'"
    assert commands_of({"command": said}, "a.h5") == [quoted]
    dangling = {"command": "signbridge extract --output"}
    assert commands_of({"info_0": dangling, "info_1": one}, "a.h5") == []
    nested = one
    for _ in range(900):
        nested = {"info_0": nested}
    assert commands_of(nested, "a.h5") == []


def test_differences_from_baselines_are_paired(finished, planted, read, value):
    """As computed from the written predictions, and of the sign that was planted."""
    summary, table = read(finished)
    assert list(summary["against_baselines"]) == ["pixels", "majority"]
    with h5py.File(finished / "predictions.h5") as file:
        p, y, g = file["probability"][:], file["label"][:], file["group"][:]
    expected = ClusterBootstrap(g, repetitions=100).difference(p[1], p[3], y)
    found = summary["against_baselines"]["pixels"]
    assert found["difference"] == pytest.approx(
        value(table, "resid_post", 1) - value(table, "pixels")
    )
    assert found["ci"] == pytest.approx([expected.low, expected.high])
    assert found["ci"][0] > 0.3
    majority = summary["against_baselines"]["majority"]
    assert majority["difference"] == pytest.approx(value(table, "resid_post", 1) - 0.25)


def test_negative_bits_of_a_single_penalty_are_warned_of(make_store, tmp_path, read, value):
    path = make_store(layers=(0,), baselines=False, hidden=60)
    arguments = {"bootstrap": 20, "compare_random": False}
    summary, table = read(train_probes(str(path), str(tmp_path / "one"), **arguments))
    assert value(table, "resid_post", 0, "usable_information") < 0
    (warning,) = summary["warnings"]
    assert warning.startswith("layer 0 has −")
    assert "--C '[0.0001,0.001,0.01,0.1,1]'" in warning
    values = [0.0001, 0.001, 0.01, 0.1, 1]
    summary, table = read(train_probes(str(path), str(tmp_path / "more"), C=values, **arguments))
    assert summary["warnings"] == []
    assert summary["nested"]["note"].startswith("each fold's layer and C chosen")


@pytest.mark.parametrize("solver", ["exact", "sgd"])
def test_class_missing_from_a_training_part_leaves_no_nan(make_store, tmp_path, solver, read):
    """Class D lies in one group, so the fold that tests it trains without it."""
    labels = np.r_[np.repeat(np.arange(3), 12), [3, 3, 3]]
    path = make_store(labels=labels, groups=np.r_[np.arange(36), [36] * 3], signal={0: 4.0},
                      layers=(0,), baselines=False)  # fmt: skip
    folder = train_probes(
        str(path), str(tmp_path / "out"), solver=solver, folds=3, bootstrap=50,
        inner_folds=2, compare_random=False, max_steps=60,
    )  # fmt: skip
    with h5py.File(folder / "predictions.h5") as file:
        p = file["probability"][0]
    assert np.isfinite(p).all()
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    assert (p[labels == 3][:, 3] == 0).all()
    _, table = read(folder)
    assert all(np.isfinite(float(row["value"])) for row in table)
    assert "NaN" not in (folder / "summary.json").read_text()
    assert np.isfinite(load_probes(folder)[0].predict_proba(open_store(path).layer(0))).all()


def test_shuffled_labels_are_at_chance(make_store, tmp_path, read, value):
    rng = np.random.default_rng(5)
    path = make_store(
        labels=np.repeat(rng.permutation(np.repeat(np.arange(5), 24)), 2),
        groups=np.repeat(np.arange(120), 2),
        layers=(0, 1),
        hidden=160,
        group_offset=3.0,
    )
    summary, table = read(train_probes(str(path), str(tmp_path / "out"), bootstrap=200, C=0.01))
    for layer in (0, 1):
        assert abs(value(table, "resid_post", layer) - 0.2) < 0.08  # 3 standard errors
    assert summary["leakage"]["random"] > 0.5


def test_random_split_leaks_where_groups_are_recognised(make_store, tmp_path, read, value):
    path = make_store(group_offset=4.0, per_group=4, hidden=96, layers=(0, 1))
    summary, table = read(train_probes(str(path), str(tmp_path / "out"), bootstrap=200))
    leak = summary["leakage"]
    assert leak["random"] > 0.95
    assert leak["grouped"] < 0.5
    assert leak["difference"] == pytest.approx(leak["random"] - leak["grouped"])
    assert leak["ci"][0] > 0.3
    assert value(table, "resid_post", leak["layer"], split="random") == pytest.approx(
        leak["random"]
    )


def test_original_protocol(make_store, tmp_path, read, value):
    labels = np.repeat(np.arange(6), 15)
    path = make_store(labels=labels, signal={1: 3.0})
    folder = train_probes(str(path), str(tmp_path / "out"), split="random", folds=1, bootstrap=50)
    summary, table = read(folder)
    split = StratifiedShuffleSplit(n_splits=1, test_size=0.2, random_state=42)
    train, test = next(split.split(labels, labels))
    X = open_store(path).layer(1).astype(np.float64)
    scaler = StandardScaler().fit(X[train])
    fit = LogisticRegression(tol=1e-10, max_iter=20000).fit(
        scaler.transform(X[train]), labels[train]
    )
    expected = fit.score(scaler.transform(X[test]), labels[test])
    assert value(table, "resid_post", 1, split="random") == pytest.approx(expected)
    assert summary["leakage"] is None
    row = table[0]
    assert (row["n_train"], row["n_test"]) == ("72", "18")
    with h5py.File(folder / "predictions.h5") as file:
        np.testing.assert_array_equal(np.flatnonzero(file["fold"][:] == 0), np.sort(test))
        assert np.isnan(file["probability"][0][train]).all()
        assert "random" not in file


def test_little_memory_changes_no_score(planted, finished, tmp_path, read):
    folder = train_probes(str(planted), str(tmp_path / "out"), bootstrap=100, memory_gb=1e-5)
    for one, other in zip(read(finished)[1], read(folder)[1], strict=True):
        if one["value"]:
            assert float(one["value"]) == pytest.approx(float(other["value"]), abs=1e-6)


@pytest.mark.slow
def test_sgd_solver_comes_to_the_exact_scores(planted, tmp_path, read, value):
    folder = train_probes(
        str(planted),
        str(tmp_path / "out"),
        solver="sgd",
        layers=[1],
        baselines=False,
        compare_random=False,
        folds=2,
        inner_folds=2,
        max_steps=300,
        bootstrap=20,
    )
    summary, table = read(folder)
    exact = read(
        train_probes(
            str(planted),
            str(tmp_path / "exact"),
            layers=[1],
            folds=2,
            baselines=False,
            bootstrap=20,
        )
    )[1]
    for metric in ("accuracy", "cross_entropy"):
        assert value(table, "resid_post", 1, metric) == pytest.approx(
            value(exact, "resid_post", 1, metric), abs=0.01
        )
    assert summary["sklearn_default"] is None
    assert table[0]["solver"] == "sgd"


def test_fits_that_are_not_converged_are_reported(planted, tmp_path, monkeypatch, read):
    class Stubborn(ExactEngine):
        def held_out(self, source, labels, n_classes, folds, penalties):
            for part in super().held_out(source, labels, n_classes, folds, penalties):
                converged = part.converged.copy()
                # The first of the main split, of the random one, and of the control task.
                converged[0, 0] = part.fold not in (0, 20)
                yield HeldOut(part.fold, part.probability, converged, part.relative_tolerance)

    monkeypatch.setattr(sweep_module, "make_engine", lambda *_: Stubborn())
    folder = train_probes(
        str(planted), str(tmp_path / "out"), layers=[1], baselines=False, bootstrap=20
    )
    summary, _ = read(folder)
    assert [
        (r["feature"], r["layer"], r["fold"], r["split"]) for r in summary["not_converged"]
    ] == [
        ("resid_post", 1, 0, "grouped"),
        ("resid_post", 1, 0, "random"),
        ("resid_post", 1, 0, "random"),
    ]
    assert summary["not_converged"][-1]["part"] == "control task"
    assert "3 fits missed their tolerance" in summary["warnings"][0]


def test_classes_of_one_image_or_group_are_survived(make_store, tmp_path, read, value):
    labels = np.r_[np.repeat(np.arange(3), 12), 3, [4, 4]]
    groups = np.r_[np.arange(36), 36, [37, 37]]
    path = make_store(
        labels=labels, groups=groups, signal={1: 6.0}, class_names=("A", "B", "C", "D", "E", "F")
    )
    summary, table = read(train_probes(str(path), str(tmp_path / "grouped"), bootstrap=50))
    assert any("classes D, E have each one group only" in w for w in summary["warnings"])
    assert value(table, "resid_post", 1) <= 36 / 39 + 1e-9
    assert np.isfinite(value(table, "resid_post", 1, "cross_entropy"))
    assert table[0]["n_classes"] == "5"  # no sample is an F
    summary, table = read(
        train_probes(str(path), str(tmp_path / "random"), split="random", folds=2, bootstrap=50)
    )
    assert any("class D has a single image" in w for w in summary["warnings"])
    p = load_probes(tmp_path / "random")[1].predict_proba(open_store(path).layer(1))
    assert (p[:, 5] == 0).all()


def test_two_classes(make_store, tmp_path, read, value):
    path = make_store(n_classes=2, signal={0: 5.0}, layers=(0,))
    _, table = read(train_probes(str(path), str(tmp_path / "out"), bootstrap=50))
    assert value(table, "resid_post", 0) > 0.9
    assert value(table, "resid_post", 0, "top3_accuracy") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"solver": "svm"}, "solver 'svm' is not known"),
        ({"split": "signer"}, "split 'signer' is not known"),
        ({"C": 0.0}, "C must be above 0"),
        ({"C": []}, "C must be above 0"),
        ({"C": [1.0, float("nan")]}, "C must be above 0"),
        ({"C": float("inf")}, "C must be above 0"),
        ({"folds": 0}, "folds must be 1"),
        ({"folds": 41}, "grouped folds need as many groups"),
        ({"inner_folds": 1}, "inner_folds must be 2"),
        ({"bootstrap": 0}, "bootstrap must be 1"),
        ({"seed": -1}, "seed must lie"),
        ({"memory_gb": 0}, "memory_gb must be above 0"),
        ({"layers": [1, 1]}, r"layers is \[1, 1\]: give at least one layer, and each once"),
        ({"layers": [3]}, "holds no layer 3; it holds 0, 1, 2"),
        ({"layers": "some"}, "layers must be all"),
        ({"device": "tpu"}, "device 'tpu' is not known"),
    ],
)
def test_arguments_that_cannot_be_used(planted, tmp_path, arguments, message):
    with pytest.raises(ProbeError, match=message):
        train_probes(str(planted), str(tmp_path / "out"), **arguments)
    assert not (tmp_path / "out").exists()


def test_store_that_is_not_there(tmp_path):
    with pytest.raises(StoreError):
        train_probes(str(tmp_path / "none.h5"), str(tmp_path / "out"))
