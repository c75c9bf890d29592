from __future__ import annotations

import pytest

from signbridge.errors import ProbeError
from signbridge.results.folder import ResultsFolder
from signbridge.results.summary import BestLayer, Protocol, StoreRecord, Summary

FILES = ("scores.csv", "predictions.h5", "probes.safetensors", "probes.json")


def finished(path, identity):
    folder = ResultsFolder(path, identity)
    assert folder.prepare() == "new"
    for name in FILES:
        (path / name).touch()
    folder.write_summary(
        Summary(
            store=StoreRecord(), protocol=Protocol(split="grouped"), best_layer=BestLayer(layer=0)
        )
    )
    folder.remove_parts()


@pytest.mark.parametrize("lost", FILES)
def test_results_that_lost_a_file_are_made_again(tmp_path, lost):
    finished(tmp_path / "out", {"folds": 3})
    assert ResultsFolder(tmp_path / "out", {"folds": 3}).prepare() == "complete"
    (tmp_path / "out" / lost).unlink()
    again = ResultsFolder(tmp_path / "out", {"folds": 3})
    assert again.prepare() == "new"
    assert sorted(file.name for file in again.path.iterdir()) == [".parts"]
    again.unlock()


@pytest.mark.parametrize(
    "damage", [lambda s: s.replace('"1.1"', '"2.0"'), lambda s: s[:90], lambda s: s + "]"]
)
def test_a_summary_that_cannot_be_read_is_said_and_replaced_on_request(tmp_path, damage):
    finished(tmp_path / "out", {"folds": 3})
    path = tmp_path / "out" / "summary.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(ProbeError, match=r"out holds a summary\.json that cannot be read; give"):
        ResultsFolder(tmp_path / "out", {"folds": 3}).prepare()
    again = ResultsFolder(tmp_path / "out", {"folds": 3})
    assert again.prepare(overwrite=True) == "new"
    again.unlock()
    assert not path.exists()


def test_a_summary_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "summary.json").write_text('{"format": "another"}')
    with pytest.raises(ProbeError, match="holds files that are not results"):
        ResultsFolder(tmp_path, {}).prepare()


def test_what_differs_is_said_in_a_persons_terms_first(tmp_path):
    finished(tmp_path / "out", {"store": "a" * 64, "folds": 3})
    with pytest.raises(ProbeError, match=r"\(folds 3 there, 4 here; of a store with other content"):
        ResultsFolder(tmp_path / "out", {"store": "b" * 64, "folds": 4}).prepare()
    with pytest.raises(ProbeError, match=r"another run \(of a store with other content\)"):
        ResultsFolder(tmp_path / "out", {"store": "b" * 64, "folds": 3}).prepare()
