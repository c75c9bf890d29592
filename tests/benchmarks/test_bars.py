"""benchmarks/bars.py with little data: every promise of the activation store gets its ratio."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

BARS = Path(__file__).parents[2] / "benchmarks" / "bars.py"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read as Linux tells it")
def test_one_command_prints_every_ratio_beside_its_bar(tmp_path):
    done = subprocess.run(
        [sys.executable, str(BARS), "--quick"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    for bar in (
        r"\| write shards / numpy\.save \| \d+\.\d\d \| 0\.8 \|",
        r"\| read layers / numpy\.memmap \| \d+\.\d\d \| 0\.7 \|",
        r"\| streamed epoch / SQLite \| \d+\.\d\d \|",
        r"bare forward pass \(bar: at most 1\.05\)  by the clock \d\.\d+",
        r"many images / few \(bar: flat\) \d+\.\d+",
    ):
        assert len(re.findall(bar, done.stdout)) == 1, (bar, done.stdout)
