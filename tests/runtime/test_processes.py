import sys
from types import SimpleNamespace

import pytest

from signbridge.runtime.processes import is_first_process

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
