"""`python -m fastvideo_core` is `fastvideo-distill`."""

import sys

from fastvideo_core.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
