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


OURS = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR....tEXtSoftware\0SignBridge"


def foreign(path):
    """A paper's folder, with files that are called like ours."""
    (path / "figures").mkdir(parents=True)
    for name in ("figures/layer_curve.png", "figures/a.csv", "scores.csv", "report.html", "a.tex"):
        (path / name).write_text("mine")


def content(path):
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_folder_that_never_held_results_is_left_alone(tmp_path):
    foreign(tmp_path)
    before = content(tmp_path)
    for overwrite in (False, True):
        for look in (ResultsFolder.prepare, ResultsFolder.check):
            with pytest.raises(ProbeError, match="holds files that are not results"):
                look(ResultsFolder(tmp_path, {}), overwrite=overwrite)
    assert content(tmp_path) == before


def test_overwriting_results_takes_our_files_alone(tmp_path):
    finished(tmp_path / "out", {"folds": 3})
    figures = tmp_path / "out" / "figures"
    figures.mkdir()
    (figures / "ours.png").write_bytes(OURS)
    (figures / "ours.csv").write_text("layer")
    (figures / "mine.png").write_bytes(OURS.replace(b"SignBridge", b"GIMP 2.10."))
    (figures / "mine.csv").write_text("layer")
    (figures / "link.png").symlink_to(figures / "ours.png")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    (tmp_path / "out" / ".parts").mkdir()
    (tmp_path / "out" / ".parts" / "mine.txt").write_text("mine")
    again = ResultsFolder(tmp_path / "out", {"folds": 4})
    assert again.prepare(overwrite=True) == "new"
    again.remove_parts()
    left = {
        file.name for file in (tmp_path / "out").rglob("*") if file.is_file() or file.is_symlink()
    }
    assert left == {"mine.png", "mine.csv", "link.png", "notes.txt", "mine.txt"}


def test_an_overwriting_that_is_killed_leaves_what_is_known_as_ours(tmp_path, monkeypatch):
    finished(tmp_path / "out", {"folds": 3})
    again = ResultsFolder(tmp_path / "out", {"folds": 4})
    monkeypatch.setattr(ResultsFolder, "_clear", lambda self: (self.path / "summary.json").unlink())
    assert again.prepare(overwrite=True) == "new"
    again.unlock()
    monkeypatch.undo()
    third = ResultsFolder(tmp_path / "out", {"folds": 5})
    assert third.prepare(overwrite=True) == "new"
    third.unlock()


def test_what_cannot_be_written_is_said_before_the_work(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    cases = {
        "file": "is a file",
        "link": "is a link to nowhere, which is not there",
        "file/below": "mixed up",
        "n" * 300: "too long",
        "d/" * 2100: "too long",
    }
    for name, words in cases.items():
        with pytest.raises(ProbeError, match=words):
            ResultsFolder(tmp_path / name, {}).check()
    ResultsFolder(tmp_path / "new" / "folder", {}).check()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "link"]
