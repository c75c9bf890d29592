"""An extraction stopped by Ctrl-C or SIGTERM."""

import os
import signal
import subprocess
import sys

import pytest

from signbridge.errors import Interrupted
from signbridge.extraction.module import ExtractionModule

COMMAND = """
import sys
from signbridge.extraction import module
from signbridge.cli.main import main

step = module.ExtractionModule.predict_step
def slow(self, batch, batch_idx):
    import time
    print("batch", flush=True)
    time.sleep(0.2)
    return step(self, batch, batch_idx)
module.ExtractionModule.predict_step = slow
sys.exit(main(sys.argv[1:], command="extract"))
"""


@pytest.mark.parametrize(
    ("number", "status"),
    [
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 143, marks=pytest.mark.slow),
        (signal.SIGUSR1, 143),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_and_sigterm_stop_cleanly_and_say_how_to_continue(tmp_path, number, status):
    """The whole process group gets it, loader processes too, as from a terminal or SLURM."""
    options = ["--batch_size", "4", "--num_workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *options],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # nohup has it ignored
    )
    assert process.stdout.readline() == "batch\n"
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=100)
    assert process.returncode == status, said
    assert said.splitlines()[-1].startswith("Stopped; ")
    assert "run the same command to continue" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert "kernels" not in said  # a package that bitsandbytes does without
    assert not (tmp_path / "activations" / "tiny-sample.h5").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_consolidation_keeps_every_shard(
    few, tiny, tmp_path, monkeypatch, number, extract
):
    def consolidate(self):
        os.kill(os.getpid(), number)

    path = tmp_path / "a.h5"
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr("signbridge.extraction.output.StoreWriter.consolidate", consolidate)
        with pytest.raises(Interrupted, match="run the same command") as caught:
            extract(few, tiny, path, layers=[0])
    assert caught.value.exit_status == 128 + number
    assert signal.getsignal(signal.SIGTERM) == before
    monkeypatch.setattr(
        ExtractionModule, "predict_step", lambda *_: pytest.fail("a shard was made again")
    )
    extract(few, tiny, path, layers=[0])
    assert path.is_file()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_model_is_loaded_ends_the_run_at_once(
    few, tiny, tmp_path, monkeypatch, number, extract
):
    """Lightning has not yet taken note of SIGTERM then, and ends the process itself on Ctrl-C."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(
        "signbridge.extraction.module.load_model", lambda *_, **__: os.kill(os.getpid(), number)
    )
    monkeypatch.setattr(ExtractionModule, "predict_step", lambda *_: pytest.fail("ran"))
    with pytest.raises(Interrupted, match=r"the finished shards of .* are kept") as caught:
        extract(few, tiny, tmp_path / "a.h5", layers=[0])
    assert caught.value.exit_status == 128 + number
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
