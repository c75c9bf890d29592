"""The measurements of a sweep: what they keep, write and fill."""

import csv
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from signbridge.errors import ProbeError
from signbridge.probes import SweepConfig, controls, run_sweep, train_probes
from signbridge.probes import sweep as sweep_module
from signbridge.probes.controls.measurement import Measurement
from signbridge.probes.controls.registry import MEASUREMENTS
from signbridge.statistics.bootstrap import Interval


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def test_a_sweep_stopped_among_its_measurements_goes_on_there(planted, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_module, "_batches", lambda c, s, features: [[f] for f in features])
    config = SweepConfig(
        str(planted), str(tmp_path / "out"), bootstrap=20, permutations=19, description_length=True
    )

    def stop(what, done, total):
        if what == "permutations, resid_post/1":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(config, stop)
    resumed = []
    folder = run_sweep(config, lambda what, done, total: resumed.append(what))
    kinds = ("control task", "permutations", "description length")
    names = ("resid_post/1", "resid_post/2", "pixels")
    expected = [f"{kind}, {name}" for name in names for kind in kinds][1:]
    expected.remove("permutations, pixels")  # the test is of the layers
    assert resumed == [*expected, "scores and intervals"]
    whole = train_probes(
        str(planted),
        str(tmp_path / "whole"),
        bootstrap=20,
        permutations=19,
        description_length=True,
    )
    one, other = (hashlib.sha256((f / "scores.csv").read_bytes()) for f in (folder, whole))
    assert one.digest() == other.digest()
    for key in ("permutation_test", "memorisation", "description_length"):
        assert summary_of(folder)[key] == summary_of(whole)[key]


def test_permutation_test_of_a_planted_layer(planted, tmp_path):
    folder = train_probes(str(planted), str(tmp_path / "out"), bootstrap=20, permutations=199)
    found = summary_of(folder)["permutation_test"]
    assert (found["m"], found["p"], found["layer"]) == (199, 1 / 200, 1)
    assert found["structure"] == "between groups"
    assert found["by_layer"]["1"]["p_corrected"] == 1 / 200
    assert found["by_layer"]["0"]["p_corrected"] > 0.05
    assert found["null_mean"] == pytest.approx(0.25, abs=0.03)
    assert found["null_quantile_95"] > found["null_mean"]
    assert (found["n_groups"], found["n_moving"], found["split"]) == (40, 40, "grouped")


def test_no_permutations(planted, tmp_path):
    folder = train_probes(
        str(planted), str(tmp_path / "out"), layers=[1], bootstrap=20, permutations=0
    )
    summary = summary_of(folder)
    assert summary["permutation_test"] is None
    assert not any("permutation" in warning for warning in summary["warnings"])


def test_a_test_that_cannot_be_made_says_why(make_store, tmp_path):
    labels = np.repeat(np.arange(3), 60)
    path = make_store(labels=labels, groups=np.repeat(np.arange(9), 20), layers=(0,))
    folder = train_probes(str(path), str(tmp_path / "out"), split="random", bootstrap=20)
    summary = summary_of(folder)
    assert summary["permutation_test"] is None
    assert any("the permutation test was not made" in note for note in summary["warnings"])


@pytest.mark.parametrize("value", [-1, True, "many"])
def test_numbers_of_permutations_that_make_no_sense(value):
    with pytest.raises(ProbeError, match="permutations must be auto or 0 or more"):
        SweepConfig(permutations=value)


def test_what_is_measured_belongs_to_the_run(planted, tmp_path):
    """Another number of permutations is another run, which does not overwrite the first."""
    options = {"layers": [1], "bootstrap": 20, "baselines": False}
    train_probes(str(planted), str(tmp_path / "out"), permutations=9, **options)
    with pytest.raises(ProbeError, match="permutations"):
        train_probes(str(planted), str(tmp_path / "out"), permutations=19, **options)


def test_every_measurement_is_one_file_that_is_registered():
    folder = Path(controls.__file__).parent
    defined = {
        (file.stem, name)
        for file in folder.glob("*.py")
        for name in re.findall(r"^class (\w+)\(Measurement\):", file.read_text(), re.MULTILINE)
    }
    assert {(kind.__module__.rpartition(".")[2], kind.__name__) for kind in MEASUREMENTS} == defined
    assert len({module for module, _ in defined}) == len(MEASUREMENTS)


def test_parts_have_the_names_of_the_released_code():
    """A sweep that another version began is continued only if its parts are found."""
    names = [kind.name for kind in MEASUREMENTS if kind.name]
    assert names == ["control_task", "permutations", "description_length"]


def test_a_measurement_of_ones_own(planted, tmp_path, monkeypatch):
    """One class is all it takes: its parts, rows and place in the summary come with it."""

    class ShareOfZeros(Measurement):
        name = "zeros"

        def takes(self, feature):
            return feature.kind == "pixels"

        def compute(self, source, results):
            for feature in source.features:
                yield {"share": np.mean(source.array(feature) == 0, axis=1)}, []

        def rows(self, scored):
            for feature, part in self.parts.items():
                share = Interval(float(part["share"].mean()), 0.0, 1.0)
                yield scored.main.row(feature, "zeros", share)

        def summary(self, scored):
            return {"control": {"zeros": list(map(str, self.parts))}}

    monkeypatch.setattr(sweep_module, "MEASUREMENTS", (*MEASUREMENTS, ShareOfZeros))
    folder = train_probes(str(planted), str(tmp_path / "out"), bootstrap=20, permutations=0)
    with (folder / "scores.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "zeros"]
    assert [(row["feature"], row["ci_high"]) for row in rows] == [("pixels", "1")]
    assert summary_of(folder)["control"]["zeros"] == ["Feature(kind='pixels', layer=None)"]
