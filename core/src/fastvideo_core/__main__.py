"""`python -m fastvideo_core` is `fastvideo-distill`."""

from __future__ import annotations

import sys

from fastvideo_core.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
