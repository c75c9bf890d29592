import os

import pytest

pytest_plugins = ("fixtures.gpu", "fixtures.models", "fixtures.results")

# One thread a process: the tests' matrices are small, and two busy cores make OpenMP wait for
# itself. No test may reach for the network.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(autouse=True, scope="session")
def _elsewhere(tmp_path_factory):
    """No test may find the stores and results that a developer has made in the checkout."""
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("cwd"))
    yield
    os.chdir(before)
