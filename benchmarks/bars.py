"""All that the activation store promises, measured in one run, each as a ratio beside its bar.

    python benchmarks/bars.py [--quick]

Runs ``store.py``, then ``extraction.py`` for the overhead and for the memory: ten minutes on
two cores, which should be idle. ``--quick`` does the same with little data in a minute; such
numbers say that it runs, no more.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

PARTS = (
    (("store.py",), ("--samples", "256", "--repeats", "1")),
    (("extraction.py", "--case", "overhead"), ("--images", "16", "--repeats", "1")),
    (("extraction.py", "--case", "memory"), ("--sizes", "64", "640")),
)


def main() -> None:
    """Run the parts, each in a process of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="little data")
    quick = parser.parse_args().quick
    for (script, *options), less in PARTS:
        command = [script, *options, *(less if quick else ())]
        print("\n##", *command, "\n", flush=True)
        path = Path(__file__).with_name(script)
        status = subprocess.run([sys.executable, str(path), *command[1:]], check=False).returncode
        if status:
            sys.exit(status)


if __name__ == "__main__":
    main()
