"""What a plug-in's distribution asks for, held against what is installed; imports none of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from importlib_metadata import PackageNotFoundError, distribution

NOTHING = "nothing"
"""What there is of a distribution that is not installed."""


@dataclass(frozen=True)
class Unmet:
    """A requirement that is not met here.

    Attributes:
        wanted: as pip takes it, such as "diffusers>=0.36".
        there: the version that is installed instead, or NOTHING.
    """

    wanted: str
    there: str

    def __str__(self) -> str:
        return f"needs {self.wanted}, found {self.there}"


def unmet_of(name: str) -> tuple[Unmet, ...]:
    """What the distribution of that name asks for and has not; () where no distribution has the name."""
    try:
        required = distribution(name).requires
    except (PackageNotFoundError, ValueError):
        return ()
    return tuple(unmet_requirements(required or ()))


def unmet_requirements(required: Iterable[str]) -> Iterator[Unmet]:
    """Which of a distribution's requirements are not met here; those of its extras do not count."""
    # Here, because it is a third of what most commands import.
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.version import InvalidVersion, Version

    for text in required:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue  # written by somebody else's build tool; pip says more about it
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        wanted = f"{requirement.name}{requirement.specifier}"
        try:
            there = Version(distribution(requirement.name).version or "")
        except PackageNotFoundError:
            yield Unmet(wanted, NOTHING)
        except InvalidVersion:
            continue  # damaged metadata, or a version that is not pip's: whether it fits cannot be said
        else:
            if not requirement.specifier.contains(there, prereleases=True):
                yield Unmet(wanted, str(there))


def pip_command(unmet: Sequence[Unmet]) -> str:
    """The command that brings what is missing."""
    return "pip install " + " ".join(f"'{item.wanted}'" for item in dict.fromkeys(unmet))
