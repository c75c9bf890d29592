import os
import signal
import subprocess
import sys
import time

import pytest

from signbridge.errors import Interrupted
from signbridge.runtime.stopping import advice, stoppable


def wait_for_it():
    for _ in range(500):
        time.sleep(0.01)
    pytest.fail("was not stopped")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train_probes", "run the same command to continue"),
        ("report", "run the same command to write it"),
        ("verify", "nothing was changed: run the same command"),
        ("merge", "nothing was changed: run the same command"),
        ("info", "Stopped"),
        (None, "Stopped"),
    ],
)
def test_both_signals_say_how_to_go_on(command, words, number):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match=words) as stopped, stoppable(advice(command)):
        os.kill(os.getpid(), number)
        wait_for_it()
    assert stopped.value.exit_status == 128 + number
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_a_closed_terminal_and_a_clusters_warning_stop_as_sigterm_does(name):
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)  # nohup has SIGHUP ignored
    inner, outer = stoppable(advice("extract")), stoppable(advice("run"))
    with pytest.raises(Interrupted, match="run the same command") as stopped, outer, inner:
        os.kill(os.getpid(), number)
        wait_for_it()
    assert stopped.value.exit_status == 143
    assert signal.signal(number, before) is signal.SIG_DFL


def test_what_is_ignored_stays_ignored():
    """As nohup asks for."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable(advice("extract")):
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.05)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_is_open_is_closed_on_sigterm():
    closed = []
    with pytest.raises(Interrupted), stoppable(advice("merge")):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            wait_for_it()
        finally:
            closed.append(True)
    assert closed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_python_drops_in_a_destructor_comes_again(number):
    class Slow:
        def __del__(self):
            os.kill(os.getpid(), number)
            wait_for_it()

    with pytest.raises(Interrupted) as stopped, stoppable(advice("report")):
        Slow()
        wait_for_it()
    assert stopped.value.exit_status == 128 + number


def test_lightnings_own_exit_on_ctrl_c_is_one():
    with pytest.raises(Interrupted) as stopped, stoppable(advice("train_probes")):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)
    assert stopped.value.exit_status == 130
    with pytest.raises(SystemExit), stoppable(advice("train_probes")):
        sys.exit(0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_loads_its_libraries_stops_with_one_line(number, tmp_path):
    command = [sys.executable, "-m", "signbridge", "extract", "--images", "sample"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPROFILEIMPORTTIME": "1"},
    )
    assert process.stderr is not None
    for line in process.stderr:  # it has gone past the checks and loads torch
        if line.endswith("| torch._C\n") or "torch.torch_version" in line:
            break
    process.send_signal(number)
    rest = process.stderr.read()
    assert process.wait(60) == 128 + number
    lines = [line for line in rest.splitlines() if not line.startswith("import time:")]
    assert lines == ["Stopped; what is finished is kept: run the same command to continue."]
    assert list(tmp_path.iterdir()) == []
