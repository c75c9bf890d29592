from __future__ import annotations

import numpy as np
import pytest
from filelock import FileLock

from signbridge.errors import ProbeError
from signbridge.probes import SweepConfig, load_probes, run_sweep, train_probes
from signbridge.probes import sweep as sweep_module
from signbridge.probes.engines import ExactEngine

MEASURED = ("control task", "permutations")


def test_two_sweeps_in_one_folder(planted, tmp_path):
    folder = tmp_path / "out"
    (folder / ".parts").mkdir(parents=True)
    arguments = {"layers": [1], "baselines": False, "bootstrap": 20, "compare_random": False}
    with FileLock(folder / ".parts" / "lock"):
        for overwrite in (False, True):
            with pytest.raises(ProbeError, match=r"another train_probes is writing .*out; wait"):
                train_probes(str(planted), str(folder), overwrite=overwrite, **arguments)
    train_probes(str(planted), str(folder), **arguments)
    assert not (folder / ".parts").exists()


def test_a_failed_sweep_gives_its_folder_free(planted, tmp_path):
    def fail(*_):
        raise RuntimeError("stop")

    config = SweepConfig(str(planted), str(tmp_path / "out"), bootstrap=20)
    with pytest.raises(RuntimeError):
        run_sweep(config, fail)
    with FileLock(tmp_path / "out" / ".parts" / "lock", timeout=0):
        pass


def test_the_same_command_again_returns_at_once(finished, planted, monkeypatch, hashes):
    before = hashes(finished)
    monkeypatch.setattr(ExactEngine, "held_out", lambda *_: pytest.fail("fitted again"))
    assert train_probes(str(planted), str(finished), bootstrap=100) == finished
    assert hashes(finished) == before


def test_another_protocol_is_refused_and_replaced_on_request(planted, tmp_path, read):
    folder = tmp_path / "out"
    train_probes(str(planted), str(folder), layers=[1], bootstrap=20, folds=3)
    with pytest.raises(ProbeError, match=r"folds 3 there, 4 here.*overwrite=true"):
        train_probes(str(planted), str(folder), layers=[1], bootstrap=20, folds=4)
    (folder / "report.html").write_text("old")
    (folder / "answers.csv").write_text("of a store with answers")
    (folder / "notes.txt").write_text("mine")
    train_probes(str(planted), str(folder), layers=[1], bootstrap=20, folds=4, overwrite=True)
    assert read(folder)[0]["protocol"]["folds"] == 4
    assert not (folder / "report.html").exists()
    assert not (folder / "answers.csv").exists()
    assert (folder / "notes.txt").read_text() == "mine"


def test_another_store_is_refused(planted, make_store, tmp_path):
    train_probes(str(planted), str(tmp_path / "out"), layers=[1], bootstrap=20)
    other = make_store(signal={1: 6.0}, seed=9)
    with pytest.raises(ProbeError, match="results of another run"):
        train_probes(str(other), str(tmp_path / "out"), layers=[1], bootstrap=20)


def test_folder_of_something_else_is_refused(planted, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ProbeError, match="holds files that are not results"):
        train_probes(str(planted), str(tmp_path))
    with pytest.raises(ProbeError, match="is a file"):
        train_probes(str(planted), str(tmp_path / "thesis.txt"))
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_stopped_sweep_is_continued(planted, tmp_path, monkeypatch, read, hashes):
    monkeypatch.setattr(sweep_module, "_batches", lambda c, s, features: [[f] for f in features])
    folder = tmp_path / "out"
    config = SweepConfig(str(planted), str(folder), bootstrap=100)
    started = []

    def stop(name, done, total):
        started.append(name)
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(config, stop)
    assert not (folder / "summary.json").exists()
    # a file that was damaged meanwhile is made again
    (folder / ".parts" / "resid_post-1.safetensors").write_bytes(b"half")
    resumed = []
    run_sweep(config, lambda name, done, total: resumed.append(name))
    stages = ("grouped split and random split", "all images")
    names = ("resid_post/1", "resid_post/2", "pixels")
    expected = [f"{stage}, {name}" for name in names for stage in stages]
    measured = [f"{kind}, {name}" for name in ("resid_post/0", *names) for kind in MEASURED]
    measured.remove("permutations, pixels")  # the test is of the layers
    assert resumed == [*expected, *measured, "scores and intervals"]
    # ... and nothing tells the results from those of an undisturbed run
    whole = train_probes(str(planted), str(tmp_path / "whole"), bootstrap=100)
    assert hashes(folder)[0] == hashes(whole)[0]
    first, second = load_probes(whole), load_probes(folder)
    for name in first:
        np.testing.assert_array_equal(first[name].weight, second[name].weight)
    assert read(whole)[0]["nested"] == read(folder)[0]["nested"]


def test_results_are_the_same_for_a_seed(planted, tmp_path, hashes):
    folders = [
        train_probes(str(planted), str(tmp_path / name), bootstrap=50, seed=seed)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert hashes(folders[0]) == hashes(folders[1])
    assert hashes(folders[0])[0] != hashes(folders[2])[0]


def test_results_do_not_depend_on_the_number_of_threads(planted, tmp_path, hashes):
    """Several features at once, on as many threads as torch has, give what one at a time gives."""
    import torch

    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            folder = tmp_path / str(threads)
            train_probes(str(planted), str(folder), bootstrap=20, description_length=True)
            assert torch.get_num_threads() == threads
            found.append(hashes(folder))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]
