#!/usr/bin/env python
"""Write the residual stream of a vision-language model to an activation store."""

import sys

from signbridge.cli.main import main

if __name__ == "__main__":
    sys.exit(main(command="extract"))
