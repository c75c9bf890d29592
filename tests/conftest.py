import os

# One thread a process: the tests' matrices are small, and two busy cores make OpenMP wait for
# itself. No test may reach for the network.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
