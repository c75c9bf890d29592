"""A real SLURM of two nodes on this machine, where slurm-wlm and munge are installed."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol", "scancel")
PATH = f"{os.environ['PATH']}:/usr/sbin"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(shutil.which(name, path=PATH) for name in PROGRAMS) or os.geteuid() != 0,
        reason="needs slurm-wlm, munge and root",
    ),
]

# Slow enough to be stopped in the middle; says where it runs and with how many threads.
SCRIPT = """
import os, sys, time
from signbridge.cli import commands
from signbridge.cli.main import main
from signbridge.extraction import module
from signbridge.probes.sgd import distributed

step = module.ExtractionModule.predict_step
def slow(self, batch, batch_idx):
    time.sleep(float(os.environ.get("PAUSE", "0")))
    open(f"began-{os.environ.get('SLURM_PROCID', '0')}", "w").close()
    return step(self, batch, batch_idx)
module.ExtractionModule.predict_step = slow
enter = distributed.ProcessGroup.__enter__
def told(self):
    group = enter(self)
    import torch
    print("threads", torch.get_num_threads(), flush=True)
    return group
distributed.ProcessGroup.__enter__ = told
commands.report = lambda *_: None  # takes longer than the rest
sys.exit(main(sys.argv[1:]))
"""
EXTRACT = ["extract", "--layers", "[0,1]", "--batch_size", "4"]  # two shards
ON_TWO_NODES = ["--num_nodes", "2", "--devices", "1", "--strategy", "ddp"]


def free_port() -> int:
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        return int(some.getsockname()[1])


class Cluster:
    """Two slurmd of one machine, with ports and folders of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = os.environ | {
            "PATH": PATH,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "MASTER_ADDR": "127.0.0.1",  # the nodes' names are SLURM's alone
        }
        self.environment.pop("OMP_NUM_THREADS", None)

    def begin(self) -> None:
        here, folder = platform.node(), self.folder
        key = folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        (folder / "state").mkdir()
        (folder / "cgroup.conf").write_text("CgroupMountpoint=/sys/fs/cgroup\n")
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={here} NodeAddr=127.0.0.1 Port={free_port()} CPUs=2"
            for name in ("n1", "n2")
        )
        (folder / "slurm.conf").write_text(
            f"""ClusterName=test
SlurmctldHost={here}(127.0.0.1)
SlurmctldPort={free_port()}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
MpiDefault=none
ReturnToService=2
SlurmdTimeout=10
{nodes}
PartitionName=p Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""
        )
        files = {"key": "key", "socket": "sock", "pid": "pid", "log": "log", "seed": "seed"}
        self._start(
            "munged", "--foreground", "--force", "--key-file", str(key),
            *(f"--{what}{'' if what == 'socket' else '-file'}={folder}/munge.{end}"
              for what, end in files.items() if what != "key"),
        )  # fmt: skip
        wait_until((folder / "munge.sock").exists)
        self._start("slurmctld", "-D", "-c")
        for name in ("n1", "n2"):
            self._start("slurmd", "-D", "-N", name)
        wait_until(lambda: self.ask("sinfo", "-h", "-t", "idle", "-o", "%D").strip() == "2")

    def _start(self, *command: str) -> None:
        with (self.folder / "daemons.log").open("ab") as log:
            self.daemons[" ".join(command[-3:])] = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def end(self) -> None:
        if (self.folder / "slurm.conf").exists():
            self.ask("scancel", "-u", "root", check=False)
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
        for process in processes_with(str(self.folder)):  # slurmstepd and its tasks
            kill(process)

    def ask(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60, check=check
        )
        return done.stdout

    def submit(self, folder: Path, line: str, *options: str, pause: float = 0.0) -> str:
        """Return the number of a job whose output goes to ``out.txt``."""
        folder.mkdir(exist_ok=True)
        (folder / "script.py").write_text(SCRIPT)
        (folder / "job.sh").write_text(f"#!/bin/bash\nexport PAUSE={pause}\nexec {line}\n")
        asked = ["--parsable", "--open-mode=append", "-o", "out.txt", "-D", str(folder), *options]
        return self.ask("sbatch", *asked, str(folder / "job.sh")).strip()

    def finish(self, job: str, folder: Path) -> str:
        """Return the job's last state; ``out.txt`` is shown if it was not what was hoped for."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "TIMEOUT")
        wait_until(lambda: self.state(job) in over, seconds=240)
        print((folder / "out.txt").read_text())
        return self.state(job)

    def state(self, job: str) -> str:
        words = self.ask("scontrol", "show", "job", job).split()
        return next(word[9:] for word in words if word.startswith("JobState="))


def wait_until(what, seconds=180):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def processes_with(text: str, *, in_environment: bool = False) -> list[int]:
    """Processes with ``text`` in their command line or environment, but this one."""
    file = "environ" if in_environment else "cmdline"
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                said = (entry / file).read_bytes()
            except OSError:
                continue
            if text.encode() in said:
                found.append(int(entry.name))
    return found


def kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def python(command: list[str], *options: str) -> str:
    words = [sys.executable, "script.py", *command, *options]
    return " ".join(f"'{word}'" for word in words)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.begin()
        yield cluster
    finally:
        cluster.end()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    (folder / "script.py").write_text(SCRIPT)
    subprocess.run(
        [sys.executable, "script.py", *EXTRACT, "--output", "a.h5"], cwd=folder, check=True
    )
    return folder / "a.h5"


def assert_same(ours: Path, wanted: Path) -> None:
    with h5py.File(ours) as a, h5py.File(wanted) as b:
        assert a.attrs["complete"]
        for name in ("resid_post", "label", "pixels"):
            np.testing.assert_array_equal(a[name][:], b[name][:])


def test_two_nodes_make_the_store_of_one_process(cluster, alone, tmp_path):
    run = "srun " + python(EXTRACT, "--output", "a.h5", *ON_TWO_NODES)
    job = cluster.submit(tmp_path, run, "-N2", "--ntasks-per-node=1")
    assert cluster.finish(job, tmp_path) == "COMPLETED"
    assert_same(tmp_path / "a.h5", alone)


def test_without_srun_a_job_of_two_tasks_is_one_process(cluster, alone, tmp_path):
    job = cluster.submit(tmp_path, python(EXTRACT, "--output", "a.h5"), "-N1", "--ntasks=2")
    assert cluster.finish(job, tmp_path) == "COMPLETED"
    assert_same(tmp_path / "a.h5", alone)


def test_tasks_that_no_node_was_told_of_are_refused_in_a_sentence(cluster, tmp_path):
    job = cluster.submit(tmp_path, "srun " + python(EXTRACT), "-N1", "--ntasks=2")
    assert cluster.finish(job, tmp_path) == "FAILED"
    said = (tmp_path / "out.txt").read_text()
    assert "add --ntasks-per-node" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("way", ["requeue", "SIGUSR1"])
def test_a_job_that_is_stopped_goes_on(cluster, alone, tmp_path, way):
    run = "srun " + python(EXTRACT, "--output", "a.h5", *ON_TWO_NODES)
    options = ("-N2", "--ntasks-per-node=1", "--requeue")
    job = cluster.submit(tmp_path, run, *options, pause=0.5)
    wait_until((tmp_path / "began-1").exists)
    if way == "requeue":
        cluster.ask("scontrol", "requeue", job)
        wait_until(lambda: "Stopped; " in (tmp_path / "out.txt").read_text())

        def runs_again() -> bool:  # two minutes later, unless it is told to at once
            cluster.ask("scontrol", "update", f"JobId={job}", "StartTime=now", check=False)
            return cluster.state(job) in ("RUNNING", "COMPLETED")

        wait_until(lambda: cluster.state(job) == "PENDING")
        wait_until(runs_again)
    else:
        cluster.ask("scancel", "--signal=USR1", job)
        assert cluster.finish(job, tmp_path) == "FAILED"
        assert "Stopped; " in (tmp_path / "out.txt").read_text()
        job = cluster.submit(tmp_path, run, *options)
    assert cluster.finish(job, tmp_path) == "COMPLETED"
    assert "Traceback" not in (tmp_path / "out.txt").read_text()
    assert_same(tmp_path / "a.h5", alone)


def test_a_node_lost_in_the_middle_loses_no_shard(cluster, alone, tmp_path):
    run = "srun --kill-on-bad-exit=1 " + python(EXTRACT, "--output", "a.h5", *ON_TWO_NODES)
    options = ("-N2", "--ntasks-per-node=1")
    job = cluster.submit(tmp_path, run, *options, pause=0.5)
    wait_until((tmp_path / "began-1").exists)
    for process in processes_with("SLURMD_NODENAME=n2", in_environment=True):
        if process in processes_with(str(sys.executable)):
            kill(process)
    assert cluster.finish(job, tmp_path) == "FAILED"
    assert not (tmp_path / "a.h5").exists()
    job = cluster.submit(tmp_path, run, *options)
    assert cluster.finish(job, tmp_path) == "COMPLETED"
    assert_same(tmp_path / "a.h5", alone)


def test_sgd_over_two_nodes_of_one_machine_shares_its_cores(cluster, alone, tmp_path):
    sweep = [
        "train_probes", "--store", str(alone), "--output", "out", "--solver", "sgd",
        "--layers", "[0]", "--baselines", "false", "--folds", "1", "--compare_random", "false",
        "--control_task", "false", "--permutations", "0", "--max_steps", "20", "--device", "cpu",
    ]  # fmt: skip
    job = cluster.submit(
        tmp_path, "srun " + python(sweep, *ON_TWO_NODES), "-N2", "--ntasks-per-node=1"
    )
    assert cluster.finish(job, tmp_path) == "COMPLETED"
    threads = [
        int(line.split()[1])
        for line in (tmp_path / "out.txt").read_text().splitlines()
        if line.startswith("threads")
    ]
    assert sum(threads) <= max(2, len(os.sched_getaffinity(0)))
    assert (tmp_path / "out" / "scores.csv").is_file()
