"""benchmarks/peers.py with the bundled model: other ways to read the layers find our vectors."""

import mmap
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def peers(script):
    return script("peers")


@pytest.fixture(scope="module")
def setting(peers):
    return peers.Setting("tiny", n_images=5, batch_size=3)


@pytest.fixture(scope="module")
def results(peers, setting):
    class Broken:
        def first(self):
            raise peers.PeerError("ImportError: not for this model")

    names = ("capture", "extraction", "hooks", "careful_hooks", "hidden_states")
    players = {name: peers.Here(name, setting) for name in names}
    peers.WAYS["broken"] = replace(peers.WAYS["hooks"], label="Broken")
    players["broken"] = Broken()
    return {name: peers.measure(player, repeats=2) for name, player in players.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["extraction", "hooks", "careful_hooks"])
def test_every_way_reads_the_same_vectors(results, name):
    ours = results["capture"].first.vectors
    assert ours.shape[0] == 5
    np.testing.assert_array_equal(results[name].first.vectors, ours)


@pytest.mark.slow
def test_the_last_hidden_state_is_the_norm_of_the_last_layer(peers, setting, results):
    ours, theirs = (results[name].first.vectors for name in ("capture", "hidden_states"))
    np.testing.assert_array_equal(theirs[:, :-1], ours[:, :-1])
    assert np.abs(theirs[:, -1] - ours[:, -1]).max() > 0.1
    np.testing.assert_array_equal(theirs[:, -1], peers.normed(ours[:, -1], setting))


@pytest.mark.slow
def test_table_has_a_row_for_each_way_and_says_what_does_not_run(peers, setting, results):
    lines = [line.strip("| ").split(" | ") for line in peers.table(results, setting)]
    assert [cells[0] for cells in lines[2:]][:3] == [
        "SignBridge, capture",
        "SignBridge, images prepared and stored too",
        "forward hooks",
    ]
    assert lines[4][-1] == "0"
    assert results["hooks"].seconds.shape == (4, 2, 2)
    assert results["extraction"].seconds.shape == (4, 2, 2)
    assert lines[-1][:2] == ["Broken", "does not run: ImportError: not for this model"]


@pytest.mark.slow
def test_the_slower_way_has_the_smaller_ratio(peers, setting, results):
    seconds = np.array([[[3.0, 6.0], [6.0, 24.0]], [[2.0, 4.0], [4.0, 16.0]]])
    timed = peers.Result(None, results["hooks"].first, seconds)
    line = peers.table({**results, "hooks": timed}, setting)[4]
    assert line.split(" | ")[1:5] == ["0.50", "1.00", "0.500", "0.250"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_sees_memory_that_is_gone_again(peers):
    peers.forget_peak()
    before = peers.resident("VmHWM")
    with mmap.mmap(-1, 64_000_000) as memory:  # not from what the process keeps for its arrays
        memory.write(bytes(64_000_000))
    assert peers.resident("VmHWM") - before > 50
    peers.forget_peak()
    assert peers.resident("VmHWM") - before < 30


def test_peers_that_are_not_installed_are_named(peers, monkeypatch, capsys):
    absent = replace(peers.WAYS["nnsight"], package="no-such-package-anywhere")
    monkeypatch.setitem(peers.WAYS, "nnsight", absent)
    assert peers.installed(["capture", "nnsight"]) == ["capture"]
    assert "no-such-package-anywhere is not installed" in capsys.readouterr().err


@pytest.mark.slow
def test_command_runs_each_way_in_a_process_of_its_own():
    command = [sys.executable, str(FOLDER / "peers.py"), "--model", "tiny"]
    options = ["--images", "2", "--repeats", "1", "--ways", "hooks", "hidden_states"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == 5
    assert rows[3].endswith("| 0 |")
    assert "has passed the final norm" in done.stdout
