"""Find plug-ins among the installed distributions, without importing any of them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import importlib_metadata

from fastvideo_core.registry.specs import KINDS, Kind, Spec

SpecType = TypeVar("SpecType", bound=Spec, covariant=True)

ALLOWED = "FASTVIDEO_DISTILL_PLUGINS"
"""Environment variable: the distributions whose plug-ins are seen, comma-separated; "" sees none, unset sees all."""


@dataclass(frozen=True)
class Provenance:
    """Where a plug-in comes from: its entry point, or (not `installed`) the decorated object of running code.

    Of the latter, `distribution` is the file or module, `version` is "", and `value` is the object's `module:attr`.
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


@dataclass(frozen=True)
class Plugin(Generic[SpecType]):
    """A plug-in whose spec is loaded; `objects` are the targets that were registered in-process as objects, by field."""

    spec: SpecType
    provenance: Provenance
    objects: Mapping[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def kind(self) -> Kind:
        return self.provenance.kind


def find_installed() -> tuple[Provenance, ...]:
    """Every entry point of our groups that FASTVIDEO_DISTILL_PLUGINS allows; the same distribution and value twice is one."""
    return tuple(item for item in _every_entry_point() if _is_allowed(item))


def hidden_by_environment() -> tuple[Provenance, ...]:
    """What is installed, but not allowed by the environment variable."""
    return tuple(item for item in _every_entry_point() if not _is_allowed(item))


def allowed_without_plugins() -> tuple[str, ...]:
    """What the environment variable names and no installed plug-in is of: misspelt, or not installed."""
    known = {normalized(item.distribution) for item in _every_entry_point()}
    return tuple(sorted((_allowed_distributions() or frozenset()) - known))


def _allowed_distributions() -> frozenset[str] | None:
    value = os.environ.get(ALLOWED)
    return None if value is None else frozenset(normalized(name.strip()) for name in value.split(",") if name.strip())


def _is_allowed(item: Provenance) -> bool:
    allowed = _allowed_distributions()
    return allowed is None or normalized(item.distribution) in allowed


def _every_entry_point() -> tuple[Provenance, ...]:
    found: dict[tuple[str, str, str, str], Provenance] = {}
    entry_points = importlib_metadata.entry_points()
    for kind in KINDS:
        for entry in entry_points.select(group=f"fastvideo.{kind}"):
            name, version = _identity(entry.dist)
            provenance = Provenance(kind, entry.name, name, version, entry.value)
            found.setdefault((kind, entry.name, normalized(name), entry.value), provenance)
    return tuple(found.values())


def _identity(distribution: Any) -> tuple[str, str]:
    """Name and version; damaged metadata must not hide the plug-in from the listing."""
    try:
        name, version = distribution.name, distribution.version
    except Exception:
        name, version = None, None
    return name or "an unnamed distribution", version or "of unknown version"


def normalized(distribution: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def module_exists(name: str) -> bool:
    """Whether `import name` would find a module; unlike importlib's find_spec it imports nothing, not even its parents."""
    if name in sys.modules:
        return True
    parts, path = name.split("."), None
    for end in range(1, len(parts) + 1):
        specs = (finder.find_spec(".".join(parts[:end]), path) for finder in sys.meta_path)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is None or (spec.submodule_search_locations is None and end < len(parts)):
            return False
        path = spec.submodule_search_locations
    return True
