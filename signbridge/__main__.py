"""``python -m signbridge``."""

import sys

from signbridge.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
