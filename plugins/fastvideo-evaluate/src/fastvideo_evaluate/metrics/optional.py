"""What metrics say that lack a package or a model; nothing is downloaded."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from fastvideo_core.errors import PluginError, Problem


def package(metric: str, module: str, install: str) -> Any:
    """The module of an optional package.

    Raises:
        PluginError: it is not installed (`install` is what pip is told), or importing it fails.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]
        found = f"the metric {metric!r} needs the package {module.partition('.')[0]!r}, "
        found += "which is not installed" if missing else f"and importing it fails: {type(error).__name__}: {error}"
        raise PluginError(Problem(found, fix=f"pip install {install}")) from error


def weights(metric: str, given: str, needs: str, *parts: str) -> Path:
    """The file or folder that the user gave as a metric's model.

    Args:
        needs: what it must be, for messages, and where one gets it.
        parts: files that must be in it.

    Raises:
        PluginError: none was given, it is not there, or lacks a part.
    """
    where, fix = f"--weights {metric}={given}" if given else "", f"--weights {metric}=PATH"
    if not given:
        raise PluginError(Problem(f"the metric {metric!r} needs a model, and none is given", allowed=needs, fix=fix))
    path = Path(given).expanduser()
    if not path.exists():
        raise PluginError(Problem("there is no such file or folder", where=where, allowed=needs, fix=fix))
    if missing := [part for part in parts if not (path / part).exists()]:
        raise PluginError(Problem(f"it lacks {', '.join(missing)}", where=where, allowed=needs, fix=fix))
    return path
