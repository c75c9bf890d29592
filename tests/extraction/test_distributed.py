"""Several processes make one store: real ones, through Lightning's own launchers (gloo)."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from signbridge import open_store
from signbridge.extraction.extract import extract_activations
from signbridge.images import open_images

# Shards of 16 images, so that there are several to share out; a pause for the kill to hit.
SCRIPT = """
import os, sys, time
from signbridge.extraction import extract
from signbridge.extraction import module
from signbridge.cli.main import main

extract.run_extraction.__kwdefaults__["shard_size"] = 16
step = module.ExtractionModule.predict_step
def slow(self, batch, batch_idx):
    time.sleep(float(os.environ.get("PAUSE", "0")))
    return step(self, batch, batch_idx)
module.ExtractionModule.predict_step = slow
sys.exit(main(command="extract"))
"""
CHOICE = {"classes": 10, "per_class": 8}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, tiny):
    """What one process makes."""
    path = tmp_path_factory.mktemp("alone") / "a.h5"
    return extract_activations(
        open_images("sample", **CHOICE),
        tiny,
        path,
        quantization="none",
        max_new_tokens=2,
        shard_size=16,
        console=Console(quiet=True),
    )


def command(folder, workers, launcher="lightning"):
    script = folder / "script.py"
    script.write_text(SCRIPT)
    options = ["--classes", "10", "--per_class", "8", "--quantization", "none"]
    options += ["--max_new_tokens", "2", "--output", "a.h5", "--accelerator", "cpu"]
    options += ["--devices", str(workers), "--strategy", "ddp" if workers > 1 else "auto"]
    if launcher == "torchrun":
        run = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={workers}"]
        return [sys.executable, *run, str(script), *options]
    return [sys.executable, str(script), *options]


def start(folder, workers, launcher="lightning", pause=0.0):
    return subprocess.Popen(
        command(folder, workers, launcher),
        cwd=folder,
        env=os.environ | {"PAUSE": str(pause), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process):
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    return said


def assert_same_content(ours, wanted):
    with open_store(ours, verify="full") as a, open_store(wanted) as b:
        assert a.provenance == b.provenance
        assert list(a.sample_ids) == list(b.sample_ids)
        assert a.responses == b.responses
        for name in (*a.layers, *a.baselines):
            np.testing.assert_array_equal(a.feature(name), b.feature(name))


def kill_after_shards(process, folder, count):
    """SIGKILL the whole process group once some shards are there, but not all."""
    parts = folder / "a.h5.parts"
    while process.poll() is None:
        if len(list(parts.glob("shard-*.json"))) >= count:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = len(list(parts.glob("shard-*.json")))
    assert count <= done < 5
    assert not (folder / "a.h5").exists()
    return done


@pytest.mark.slow
def test_two_workers_killed_and_continued_by_one(alone, tmp_path):
    """Five shards: two processes begin, all are killed, one process ends it."""
    done = kill_after_shards(start(tmp_path, 2, pause=0.5), tmp_path, 2)
    said = finish(start(tmp_path, 1))
    assert f"continuing after {done * 16} images that are there and verified" in said
    assert_same_content(tmp_path / "a.h5", alone)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "script.py"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["lightning", "torchrun"])
@pytest.mark.parametrize("workers", [2, 3, 6])
def test_any_number_of_workers_makes_the_same(alone, tmp_path, workers, launcher):
    """Six workers for five shards: one has nothing to do."""
    finish(start(tmp_path, workers, launcher))
    assert_same_content(tmp_path / "a.h5", alone)


@pytest.mark.slow
def test_one_worker_killed_and_continued_by_three(alone, tmp_path):
    kill_after_shards(start(tmp_path, 1, pause=0.3), tmp_path, 1)
    finish(start(tmp_path, 3))
    assert_same_content(tmp_path / "a.h5", alone)


@pytest.mark.slow
def test_overwrite_and_run_with_two_workers(alone, tmp_path):
    """The old store is of another protocol; only the first process trains probes."""
    process = subprocess.run(command(tmp_path, 1) + ["--per_class", "7"], cwd=tmp_path)
    assert process.returncode == 0
    (tmp_path / "run.py").write_text(SCRIPT.replace('"extract"', '"run"'))
    options = command(tmp_path, 2)[2:]
    more = ["--overwrite", "true", "--results", "out", "--folds", "2", "--forced_choice", "false"]
    done = subprocess.run(
        [sys.executable, "run.py", *options, *more],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert_same_content(tmp_path / "a.h5", alone)
    assert done.stdout.count("report: ") == 1
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.slow
def test_an_error_before_the_start_reaches_the_user_once(tmp_path, alone):
    (tmp_path / "a.h5").write_bytes(b"not a store")
    process = start(tmp_path, 2)
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 2
    assert "Traceback" not in said
    assert "a.h5" in said
