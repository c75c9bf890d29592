from __future__ import annotations

import numpy as np
import pytest

from signbridge.errors import ProbeError
from signbridge.probes.config import SweepConfig
from signbridge.probes.dataset.features import FeatureSource
from signbridge.probes.engines import ExactEngine
from signbridge.probes.sgd import optimum
from signbridge.probes.sgd.checkpoint import Checkpoints
from signbridge.probes.sgd.distributed import ProcessGroup
from signbridge.probes.sgd.engine import SgdEngine
from signbridge.probes.sgd.summary import sgd_summary
from signbridge.results.features import Feature
from signbridge.results.folder import ResultsFolder
from signbridge.store import open_store

FOLD = (np.arange(60), np.arange(60, 80))
SMALL = 64 * 2 * 24 * 4


@pytest.fixture
def source(planted):
    return FeatureSource(open_store(planted), [Feature("resid_post", k) for k in (1, 2)])


def labels_of(source):
    return np.asarray(source.store.labels, dtype=np.int64)


@pytest.mark.parametrize("memory_bytes", [2**30, SMALL])
def test_its_predictions_are_the_exact_solvers(source, memory_bytes):
    """Also where the features are streamed, and in the order of the test part."""
    y, fold = labels_of(source), (FOLD[0], FOLD[1][::-1].copy())
    engine = SgdEngine(memory_bytes=memory_bytes, batch_size=16, learning_rates=[0.1, 1.0])
    mine = next(engine.held_out(source, y, 4, [fold], [0.01, 1.0]))
    exact = next(ExactEngine().held_out(source, y, 4, [fold], [0.01, 1.0]))
    np.testing.assert_allclose(mine.probability, exact.probability, atol=0.01)
    assert mine.converged.all()


def test_the_labels_that_it_is_given_count(source):
    """A control task has labels of its own."""
    y = np.roll(labels_of(source), 20)
    mine = next(SgdEngine(max_steps=100).held_out(source, y, 4, [FOLD], [0.01]))
    exact = next(ExactEngine().held_out(source, y, 4, [FOLD], [0.01]))
    np.testing.assert_allclose(mine.probability, exact.probability, atol=0.01)


def test_refit_is_the_exact_solvers(source):
    y, rows = labels_of(source), np.arange(0, 80, 2)
    mine = SgdEngine(batch_size=16).refit(source, y, 4, [0.1], rows)
    exact = ExactEngine().refit(source, y, 4, [0.1], rows)
    for name in ("mean", "deviation"):
        np.testing.assert_allclose(getattr(mine, name), getattr(exact, name), rtol=1e-9)
    np.testing.assert_allclose(mine.weight, exact.weight, atol=2e-3)


def test_engine_reports_a_fit_that_is_far_from_its_optimum(source):
    few, many = (
        next(SgdEngine(max_steps=steps).held_out(source, labels_of(source), 4, [FOLD], [1.0]))
        for steps in (3, 600)
    )
    assert not few.converged.any()
    assert many.converged.all()
    assert many.relative_tolerance.max() < few.relative_tolerance.min() / 10


def test_records_say_how_far_from_the_optimum(source):
    """Objectives of both solvers, and the share of the test part with the same answer."""
    found = {}
    for steps in (20, 600):
        engine = SgdEngine(max_steps=steps, learning_rates=[0.03], batch_size=16)
        list(engine.held_out(source, labels_of(source), 4, [FOLD], [0.1, 1.0]))
        assert list(engine.records) == ["resid_post/1", "resid_post/2"]
        found[steps] = [record for fits in engine.records.values() for record in fits]
    for few, many in zip(found[20], found[600], strict=True):
        assert few["optimum"] == many["optimum"]
        assert few["gap"] > 2 * many["gap"] > 0
        assert few["gap"] == pytest.approx(few["objective"] / few["optimum"] - 1)
        assert 0 < few["agreement"] <= 1
        assert many["agreement"] == 1
        assert few["steps"] <= 40
        assert few["learning_rate"] == 0.03
    assert found[20][1]["stopped_by"] == "max_steps"


def test_layers_that_are_affordable(source, monkeypatch):
    arguments = (source, 60, 4, 1, 2**20)
    assert optimum.affordable(*arguments) == [0, 1]
    monkeypatch.setattr(optimum, "WORK", 60 * 24 * 4)
    assert optimum.affordable(*arguments) == [0]
    monkeypatch.setattr(optimum, "WORK", 60 * 24 * 4 - 1)
    assert optimum.affordable(*arguments) == []
    monkeypatch.undo()
    assert optimum.affordable(source, 60, 4, 1, 100) == []  # a layer does not fit
    engine = SgdEngine(max_steps=20, memory_bytes=100)
    list(engine.held_out(source, labels_of(source), 4, [FOLD], [1.0]))
    assert engine.records["resid_post/1"][0]["gap"] is None


class Result:
    def __init__(self, sgd):
        self.sgd = sgd


def record(gap, agreement=1.0):
    return {"feature": "resid_post/3", "C": 0.5, "gap": gap, "agreement": agreement}


def test_words():
    config = SweepConfig(solver="sgd")
    assert sgd_summary(SweepConfig(), [], []) == (None, [])
    near = [Result([record(1e-4), record(None, None)])]
    summary, said = sgd_summary(config, near, [])
    assert said == []
    assert (summary.n_compared, summary.largest_gap) == (1, 1e-4)
    far = [Result([record(0.042, 0.9), record(1e-4), record(1e-4, 0.98)])]
    summary, said = sgd_summary(config, far, [{}])
    assert said == [
        "1 sgd fit ended before coming close to the optimum (not_converged in summary.json lists "
        "it); raise max_steps.",
        "2 of 3 sgd fits compared with the exact solver are far from the optimum (the worst, "
        "resid_post/3 with C = 0.5, has an objective 4.2 % above it and gives 90.0 % of the "
        "held-out images the same answer); raise max_steps or use solver=exact.",
    ]
    assert summary.least_agreement == 0.9


def test_finished_folds_are_not_trained_again(source, tmp_path, monkeypatch):
    folder = ResultsFolder(tmp_path / "out", {})
    folder.prepare()
    try:
        folds = [FOLD, (np.arange(20, 80), np.arange(20))]
        made = []
        for _ in range(2):
            engine = SgdEngine(max_steps=20, checkpoints=Checkpoints(folder))
            made.append(list(engine.held_out(source, labels_of(source), 4, folds, [1.0])))
            monkeypatch.setattr(engine, "_train", None)
            monkeypatch.setattr(SgdEngine, "_train", lambda *_: pytest.fail("trained again"))
        for first, again in zip(*made, strict=True):
            np.testing.assert_array_equal(first.probability, again.probability)
            np.testing.assert_array_equal(first.converged, again.converged)
        assert engine.records["resid_post/1"][0]["gap"] is not None
        assert len(list(folder.parts.glob("sgd-*.safetensors"))) == 2
        assert not list(folder.parts.glob("*.ckpt"))
    finally:
        folder.unlock()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "cpu", "devices": "many"}, "devices 'many'.*cannot be had"),
        ({"device": "cpu", "devices": 0}, "devices 0.*cannot be had"),
        ({"strategy": "fsdp"}, "use auto or ddp"),
    ],
)
def test_devices_that_cannot_be_had(arguments, message):
    with pytest.raises(ProbeError, match=message):
        ProcessGroup(**arguments)
