"""The documentation's own modules, for tests of what they write."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

EXTENSIONS = Path(__file__).parents[1] / "docs" / "_ext"


def docs_extension(name: str) -> Any:
    """A module of docs/_ext, found there as Sphinx finds it."""
    sys.path.insert(0, str(EXTENSIONS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(EXTENSIONS))
