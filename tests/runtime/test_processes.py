import sys
from types import SimpleNamespace

import pytest

from signbridge.errors import ModelError
from signbridge.extraction.extract import _trainer
from signbridge.runtime.processes import is_first_process, process_settings

NAMES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
LIGHTNING = "lightning.fabric.utilities.rank_zero"


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "4", "LOCAL_RANK": "0"}, False),
        ({"LOCAL_RANK": "1"}, False),
        ({"SLURM_PROCID": "0"}, True),
        ({"SLURM_PROCID": "3"}, False),
    ],
)
def test_one_process_speaks(environment, first, monkeypatch):
    monkeypatch.delitem(sys.modules, LIGHTNING, raising=False)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() == first


@pytest.mark.parametrize(("rank", "first"), [(0, True), (5, False)])
def test_lightning_knows_better_than_the_environment(rank, first, monkeypatch):
    # the first process of another machine has the local rank 0 too
    monkeypatch.setenv("LOCAL_RANK", "0")
    loaded = SimpleNamespace(rank_zero_only=SimpleNamespace(rank=rank))
    monkeypatch.setitem(sys.modules, LIGHTNING, loaded)
    assert is_first_process() == first


SLURM = {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "x", "SLURM_JOB_ID": "1", "SLURM_PROCID": "0"}
LSF = {
    "LSB_JOBID": "1",
    "LSB_DJOB_RANKFILE": "absent.txt",
    "JSM_NAMESPACE_LOCAL_RANK": "0",
    "JSM_NAMESPACE_SIZE": "2",
}


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, "LightningEnvironment"),
        (SLURM, "LightningEnvironment"),  # every command of a batch script without srun
        (SLURM | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}, "SLURMEnvironment"),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "2"}, "add --ntasks-per-node"),
        (LSF, "LSF job are set, but its ranks cannot be read .*absent.txt.*: start it with jsrun"),
    ],
)
def test_a_clusters_job_is_known_or_refused_in_a_sentence(variables, found, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if found.endswith("Environment"):
        plugin = process_settings("cpu", 1, 1)["plugins"]
        assert type(plugin).__name__ in (found, "NoneType")
        assert (plugin is None) == (not variables)
    else:
        with pytest.raises(ModelError, match=found):
            _trainer("cpu", 1, 1, "auto")
