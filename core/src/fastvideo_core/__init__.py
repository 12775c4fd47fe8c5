"""The names that plug-in authors and notebooks use, imported lazily: `import fastvideo_core` loads neither torch nor pydantic.

They are listed in `__init__.pyi` beside this file, as type checkers read them.
"""

import importlib
import re
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

_LISTED = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
_EXPORTS = {
    name: module for module, name in re.findall(r"^from fastvideo_core\.(\S+) import (\w+)", _LISTED, re.MULTILINE)
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'fastvideo_core' has no attribute '{name}'")
    return getattr(importlib.import_module(f"fastvideo_core.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
