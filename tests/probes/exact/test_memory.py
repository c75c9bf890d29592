"""The solver's memory, as the system sees it."""

import json
import subprocess
import sys

import pytest

FIT = """
import json, resource, sys
import numpy as np
from signbridge.probes import fit_logistic
samples, features, layers, limit = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
y = np.arange(samples) % 24
X = rng.standard_normal((layers, samples, features), dtype=np.float32)
train = np.stack([np.arange(samples) % 5 != fold for fold in range(5)])
options = dict(train=train, standardise=True, coef=False, decision=True, max_iter=6)
fit_logistic(X[:1, :200, :8], y[:200], 0.1, **options | {"train": train[:, :200]})  # libraries load
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
fit_logistic(X, y, 0.1, memory_limit=limit, **options)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = 8 * 5 * layers * samples * 24
print(json.dumps((after - before) * 1024 - result - X.nbytes // layers))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is counted in other units")
@pytest.mark.parametrize(
    ("samples", "features", "layers"),
    [(6000, 256, 3), pytest.param(900, 900, 4, marks=pytest.mark.slow)],
)
def test_side_by_side_fits_stay_inside_the_limit(samples, features, layers):
    """One fit takes some 50 and 30 MB, so that the limit decides how many go together."""
    limit = 300_000_000
    numbers = map(str, (samples, features, layers, limit))
    done = subprocess.run(
        [sys.executable, "-c", FIT, *numbers], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) < limit
