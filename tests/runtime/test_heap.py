import json
import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import json, resource, sys
import numpy as np
from signbridge.runtime.heap import keep_freed_memory
kept = sys.argv[1] == "keep" and keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(5_000_000)
before = faults()
for _ in range(20):
    np.ones(5_000_000)
print(json.dumps([kept, faults() - before]))
"""


def run(*words, **environment):
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, *words],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | environment,
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_the_next_array_takes_the_pages_of_the_last():
    _, faults = run("leave")
    kept, fewer = run("keep")
    assert kept
    assert fewer < faults / 5
    assert run("keep", MALLOC_TRIM_THRESHOLD_="100000")[0] is False
