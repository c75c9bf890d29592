#!/usr/bin/env python
"""Train and score linear probes on every layer of an activation store."""

import sys

from signbridge.cli.main import main

if __name__ == "__main__":
    sys.exit(main(command="train_probes"))
