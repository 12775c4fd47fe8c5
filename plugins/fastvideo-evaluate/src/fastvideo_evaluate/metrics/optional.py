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
    top = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == top
        why = "which is not installed" if missing else f"and importing it fails: {type(error).__name__}: {error}"
        raise PluginError(
            Problem(f"the metric {metric!r} needs the package {top!r}, {why}", fix=f"pip install {install}")
        ) from error


def weights(metric: str, given: str, needs: str, get: str, *parts: str) -> Path:
    """The file or folder that the user gave for a metric's model.

    Args:
        given: as typed, or "".
        needs: what it must be.
        get: how one comes by it.
        parts: one of them is the file that is meant, where a folder is given.

    Raises:
        PluginError: none was given, or it is not there.
    """
    option = f"--metric-weights {metric}={given or 'PATH'}"
    path = Path(given).expanduser()
    if given and path.is_dir() and parts:
        path = next((path / part for part in parts if (path / part).exists()), path / parts[0])
    if given and path.exists():
        return path
    found = f"{path} does not exist" if given else f"the metric {metric!r} needs a model, and none is given"
    raise PluginError(
        Problem(found, where=option if given else "", allowed=needs, fix=f"{get}; {option}" if not given else get)
    )


def unreadable(metric: str, given: str, needs: str, get: str, why: object) -> PluginError:
    """The error about a model that is there and cannot be read."""
    said = str(why).strip().partition("\n")[0]
    named = f"{type(why).__name__}: {said}" if isinstance(why, BaseException) else said
    return PluginError(
        Problem(f"it cannot be read: {named}", where=f"--metric-weights {metric}={given}", allowed=needs, fix=get)
    )
