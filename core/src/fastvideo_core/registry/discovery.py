"""Find plug-ins among the installed distributions, without importing any of them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import importlib_metadata

from fastvideo_core.registry.specs import KINDS, Kind


@dataclass(frozen=True)
class Provenance:
    """Where a plug-in comes from.

    Attributes:
        kind: models, methods, callbacks or commands.
        name: of the entry point, or as registered.
        distribution: pip name; of a plug-in that was registered in-process, its file or module.
        version: of the distribution; "" when registered in-process.
        value: `module:attr` of the spec; of a plug-in that was registered in-process, of the decorated object.
        installed: False when it was registered in-process.
    """

    kind: Kind
    name: str
    distribution: str
    version: str
    value: str
    installed: bool = True

    def __str__(self) -> str:
        if not self.installed:
            return f"{self.value} registered by {self.distribution}"
        return f"{self.distribution} {self.version} (entry point fastvideo.{self.kind}: {self.name} = {self.value})"


ALLOWED = "FASTVIDEO_DISTILL_PLUGINS"
"""Environment variable: the distributions whose plug-ins are seen, comma-separated; "" sees none, unset sees all."""


def allowed_distributions() -> frozenset[str] | None:
    """What the environment variable allows, as normalized names; None is everything."""
    value = os.environ.get(ALLOWED)
    return None if value is None else frozenset(normalized(name.strip()) for name in value.split(",") if name.strip())


def hidden_by_environment() -> tuple[Provenance, ...]:
    """What is installed, but not allowed by the environment variable."""
    allowed = allowed_distributions()
    if allowed is None:
        return ()
    return tuple(item for item in _every_entry_point() if normalized(item.distribution) not in allowed)


def allowed_without_plugins() -> tuple[str, ...]:
    """What the environment variable names and no installed plug-in is of: misspelt, or not installed."""
    known = {normalized(item.distribution) for item in _every_entry_point()}
    return tuple(sorted((allowed_distributions() or frozenset()) - known))


def find_installed() -> tuple[Provenance, ...]:
    """Every entry point of our groups that FASTVIDEO_DISTILL_PLUGINS allows; the same distribution and value twice is one."""
    allowed = allowed_distributions()
    if allowed is not None and not allowed:
        return ()
    return tuple(item for item in _every_entry_point() if allowed is None or normalized(item.distribution) in allowed)


def _every_entry_point() -> tuple[Provenance, ...]:
    found: dict[tuple[str, str, str, str], Provenance] = {}
    entry_points = importlib_metadata.entry_points()
    for kind in KINDS:
        for entry in entry_points.select(group=f"fastvideo.{kind}"):
            name, version = _identity(entry.dist)
            provenance = Provenance(kind, entry.name, name, version, entry.value)
            found.setdefault((kind, entry.name, normalized(name), entry.value), provenance)
    return tuple(found.values())


def _identity(distribution: importlib_metadata.Distribution | None) -> tuple[str, str]:
    """Name and version; damaged metadata must not hide the plug-in from the listing."""
    if distribution is None:
        return "an unnamed distribution", "of unknown version"
    try:
        name, version = distribution.name, distribution.version
    except Exception:
        name, version = None, None
    return name or "an unnamed distribution", version or "of unknown version"


def normalized(distribution: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def module_exists(name: str) -> bool:
    """Whether `import name` would find a module; imports nothing, not even its parents."""
    if name in sys.modules:
        return True
    path: Iterable[str] | None = None
    prefix = ""
    for part in name.split("."):
        prefix = f"{prefix}.{part}" if prefix else part
        spec = None
        for finder in sys.meta_path:
            spec = finder.find_spec(prefix, list(path) if path is not None else None)
            if spec is not None:
                break
        if spec is None:
            return False
        path = spec.submodule_search_locations
        if path is None:
            return prefix == name
    return True
