"""``python -m signbridge.store FILE`` checks a store and prints its findings as JSON lines."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from signbridge.errors import StoreError
from signbridge.store.verify import check_store


def main(path: str) -> int:
    """Check the store at ``path``; 0 if it is whole, 1 if not, 2 if it is no store."""
    last = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last > 0.2:
            last = time.monotonic()
            print(json.dumps({"progress": [done, total]}), flush=True)

    try:
        problems = check_store(Path(path), progress)
    except StoreError as error:
        print(json.dumps({"refused": str(error)}), flush=True)
        return 2
    print(json.dumps({"problems": [[p.where, p.what] for p in problems], "done": True}), flush=True)
    return 1 if problems else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m signbridge.store FILE")
    sys.exit(main(sys.argv[1]))
