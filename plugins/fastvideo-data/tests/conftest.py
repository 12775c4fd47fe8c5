"""Makes `tiny_data` importable for the tests beside it (pytest's importlib mode leaves sys.path alone)."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
