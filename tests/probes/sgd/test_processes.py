"""Several real processes train the same probes (gloo), and a killed training goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

# Counts the steps that each process makes; a pause for the kill to hit.
SCRIPT = """
import atexit, os, sys, time
from signbridge.cli import commands
from signbridge.cli.main import main
from signbridge.probes.sgd import module
from signbridge.probes.sgd import checkpoint

checkpoint.Checkpoints.__init__.__defaults__ = (0.0,)  # a checkpoint after every epoch
made = 0
step = module.LinearProbes.training_step
def counted(self, batch, batch_idx):
    global made
    made += 1
    time.sleep(float(os.environ.get("PAUSE", "0")))
    return step(self, batch, batch_idx)
module.LinearProbes.training_step = counted
commands.report = lambda *_: print("report: left out")  # takes longer than the rest
atexit.register(lambda: os.write(1, f"\\nsteps {made}\\n".encode()))  # whole lines
sys.exit(main(command="train_probes"))
"""
OPTIONS = {
    "solver": "sgd", "layers": "[0,1]", "C": "[0.01,1]", "baselines": "false", "folds": "1",
    "inner_folds": "2", "compare_random": "false", "control_task": "false", "permutations": "0",
    "bootstrap": "20", "batch_size": "16", "max_steps": "120", "learning_rate": "[0.1,1]",
    "device": "cpu", "output": "out",
}  # fmt: skip


def start(folder, store, devices=1, launcher="lightning", pause=0.0, **options):
    folder.mkdir(exist_ok=True)
    (folder / "script.py").write_text(SCRIPT)
    run = [sys.executable]
    if launcher == "torchrun":
        run += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={devices}"]
    given = {"store": str(store), "devices": str(devices), **OPTIONS, **options}
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    return subprocess.Popen(
        [*run, str(folder / "script.py"), *words],
        cwd=folder,
        env=os.environ | {"PAUSE": str(pause), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process, status=0):
    said, _ = process.communicate(timeout=280)
    assert process.returncode == status, said
    assert "Traceback" not in said
    return said


def steps_in(said):
    return [int(line.split()[1]) for line in said.splitlines() if line.startswith("steps")]


def predictions(folder):
    with h5py.File(folder / "out" / "predictions.h5") as file:
        return file["probability"][:]


def fits(folder):
    return json.loads((folder / "out" / "summary.json").read_text())["sgd"]["fits"]


@pytest.fixture(scope="module")
def many(make_store):
    """300 samples, so five chunks of a store to share."""
    return make_store(n_classes=5, groups_per_class=20, per_group=3, signal={1: 4.0})


@pytest.fixture(scope="module")
def alone(many, tmp_path_factory):
    """What one process makes, and the steps that it took."""
    folder = tmp_path_factory.mktemp("alone")
    said = finish(start(folder, many))
    return folder, steps_in(said)[0]


def kill_in_the_second_fold(process, folder):
    """SIGKILL the process group once one fold is done and the next has a checkpoint."""
    parts, until = folder / "out" / ".parts", time.monotonic() + 200
    while process.poll() is None and time.monotonic() < until:
        if list(parts.glob("sgd-*.safetensors")) and list(parts.glob("sgd-*.ckpt")):
            break
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert list(parts.glob("sgd-*.ckpt"))
    assert not (folder / "out" / "summary.json").exists()


@pytest.mark.slow
def test_a_killed_training_goes_on_in_the_middle_of_a_fold(many, alone, tmp_path):
    folder, whole = alone
    kill_in_the_second_fold(start(tmp_path, many, pause=0.01), tmp_path)
    said = finish(start(tmp_path, many))
    assert 0 < steps_in(said)[0] < whole
    np.testing.assert_array_equal(predictions(tmp_path), predictions(folder))
    assert fits(tmp_path) == fits(folder)
    assert not (tmp_path / "out" / ".parts").exists()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["lightning", "torchrun"])
def test_two_processes_make_what_one_makes(many, alone, tmp_path, launcher):
    """The same batches, each process with its share of every batch."""
    folder, whole = alone
    said = finish(start(tmp_path, many, devices=2, launcher=launcher))
    assert steps_in(said) == [whole, whole]
    assert said.count("report: ") == 1
    np.testing.assert_allclose(predictions(tmp_path), predictions(folder), atol=2e-5)
    for mine, wanted in zip(fits(tmp_path), fits(folder), strict=True):
        assert mine["objective"] == pytest.approx(wanted["objective"], rel=1e-6)
        assert (mine["steps"], mine["learning_rate"]) == (wanted["steps"], wanted["learning_rate"])
    assert not (tmp_path / "out" / ".parts").exists()


@pytest.mark.slow
def test_two_killed_processes_are_continued_by_one(many, alone, tmp_path):
    folder, whole = alone
    kill_in_the_second_fold(start(tmp_path, many, devices=2, pause=0.01), tmp_path)
    said = finish(start(tmp_path, many))
    assert 0 < steps_in(said)[0] < whole
    np.testing.assert_allclose(predictions(tmp_path), predictions(folder), atol=2e-5)


@pytest.mark.slow
def test_what_does_not_fit_in_memory_is_streamed_by_two(many, tmp_path):
    one, options = tmp_path / "one", {"memory_gb": "1e-5", "layers": "[1]"}
    finish(start(one, many, **options))
    finish(start(tmp_path, many, devices=2, **options))
    np.testing.assert_allclose(predictions(tmp_path), predictions(one), atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_sigterm_ends_all_processes_with_one_line(many, tmp_path, devices):
    """As SLURM sends it, to the first process alone."""
    process = start(tmp_path, many, devices=devices, pause=0.01)
    parts, until = tmp_path / "out" / ".parts", time.monotonic() + 200
    while process.poll() is None and not list(parts.glob("sgd-*")) and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGTERM)
    said = finish(process, status=128 + signal.SIGTERM)
    assert said.count("Stopped; what is trained is kept: run the same command to continue.") == 1
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


@pytest.mark.slow
def test_a_refusal_is_said_once(many, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("")
    said = finish(start(tmp_path, many, devices=2), status=2)
    assert said.count("holds files that are not results") == 1


@pytest.mark.slow
def test_the_exact_solver_uses_one_device(many, tmp_path):
    said = finish(start(tmp_path, many, devices=2, solver="exact"), status=2)
    assert "the exact solver uses one device; leave out devices" in said
