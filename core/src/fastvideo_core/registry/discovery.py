"""Find plug-ins among the installed distributions, and what those lack, without importing any of them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import importlib_metadata

from fastvideo_core.errors import Problem, closest
from fastvideo_core.registry.specs import KINDS, SINGULAR, Kind

ALLOWED = "FASTVIDEO_DISTILL_PLUGINS"
"""Environment variable: the distributions whose plug-ins are seen, comma-separated; "" sees none, unset sees all."""

NOTHING = "nothing"
"""What there is of a distribution that is not installed."""


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

    @property
    def in_words(self) -> str:
        """The kind and the name, for messages."""
        return f"the {SINGULAR[self.kind]} {self.name!r}"

    @property
    def unmet(self) -> tuple[Unmet, ...]:
        """What its distribution asks for and has not: it may run all the same, or fail when it is used."""
        return unmet_of(self.distribution) if self.installed else ()


@dataclass(frozen=True)
class Plugin:
    """A plug-in whose spec (of its kind's class) is loaded; `objects` are targets that were registered as objects, by field."""

    spec: Any
    provenance: Provenance
    objects: Mapping[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.provenance.name


@dataclass(frozen=True)
class Unmet:
    """A requirement, as pip takes it ("diffusers>=0.36"), and the version that is `there` instead, or NOTHING."""

    wanted: str
    there: str

    def __str__(self) -> str:
        return f"needs {self.wanted}, found {self.there}"


def find_installed() -> tuple[Provenance, ...]:
    """The entry points of our groups that ALLOWED lets through; the same name, distribution and value twice is one."""
    allowed = [normalized(name.strip()) for name in os.environ.get(ALLOWED, "").split(",")]
    found: dict[tuple[str, ...], Provenance] = {}
    for kind in KINDS:
        for entry in importlib_metadata.entry_points(group=f"fastvideo.{kind}"):
            item = Provenance(kind, entry.name, *_identity(entry.dist), entry.value)
            distribution = normalized(item.distribution)
            if ALLOWED not in os.environ or distribution in allowed:
                found.setdefault((kind, entry.name, distribution, entry.value), item)
    return tuple(found.values())


def misplaced() -> dict[Provenance, Problem]:
    """What stands in an entry-point group whose name is a misspelt one of ours, as it would be in the right one."""
    groups: dict[str, Kind] = {f"fastvideo.{kind}": kind for kind in KINDS}
    found = {}
    for entry in importlib_metadata.entry_points():
        if entry.group not in groups and (meant := closest(entry.group, groups)):
            item = Provenance(groups[meant], entry.name, *_identity(entry.dist), entry.value)
            text = f"{item.in_words} is in the entry-point group {entry.group!r}, which nothing reads"
            fix = f'write [project.entry-points."{meant}"] in its pyproject.toml, and install it again'
            found[item] = Problem(text, where=f"{item.distribution} {item.version}", fix=fix)
    return found


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


def unmet_of(name: str) -> tuple[Unmet, ...]:
    """What the distribution of that name, its extras aside, asks for and has not; () where no distribution has the name."""
    # Here, because it is a third of what most commands import.
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.version import InvalidVersion, Version

    found = []
    for text in next((one.requires or () for one in importlib_metadata.distributions(name=name)), ()):
        try:
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            there = str(Version(importlib_metadata.version(requirement.name) or ""))
        except (InvalidRequirement, InvalidVersion):
            continue  # damaged metadata, or of somebody else's build tool: whether it fits cannot be said
        except importlib_metadata.PackageNotFoundError:
            there = NOTHING
        if there == NOTHING or not requirement.specifier.contains(there, prereleases=True):
            found.append(Unmet(f"{requirement.name}{requirement.specifier}", there))
    return tuple(found)


def pip_command(unmet: Sequence[Unmet]) -> str:
    """The command that brings what is missing."""
    return "pip install " + " ".join(f"'{item.wanted}'" for item in dict.fromkeys(unmet))
