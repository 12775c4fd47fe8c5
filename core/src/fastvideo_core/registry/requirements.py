"""What a plug-in's distribution asks for, held against what is installed; imports none of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from importlib_metadata import PackageNotFoundError, distribution

NOTHING = "nothing"
"""What there is of a distribution that is not installed."""


@dataclass(frozen=True)
class Unmet:
    """A requirement, as pip takes it ("diffusers>=0.36"), and the version that is `there` instead, or NOTHING."""

    wanted: str
    there: str

    def __str__(self) -> str:
        return f"needs {self.wanted}, found {self.there}"


def unmet_of(name: str) -> tuple[Unmet, ...]:
    """What the distribution of that name asks for and has not; () where no distribution has the name."""
    try:
        return tuple(unmet_requirements(distribution(name).requires or ()))
    except (PackageNotFoundError, ValueError):
        return ()


def unmet_requirements(required: Iterable[str]) -> Iterator[Unmet]:
    """Which of a distribution's requirements are not met here; those of its extras do not count."""
    # Here, because it is a third of what most commands import.
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.version import InvalidVersion, Version

    for text in required:
        try:
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            there = str(Version(distribution(requirement.name).version or ""))
        except InvalidRequirement:
            continue  # written by somebody else's build tool; pip says more about it
        except InvalidVersion:
            continue  # damaged metadata, or a version that is not pip's: whether it fits cannot be said
        except PackageNotFoundError:
            there = NOTHING
        if there == NOTHING or not requirement.specifier.contains(there, prereleases=True):
            yield Unmet(f"{requirement.name}{requirement.specifier}", there)


def pip_command(unmet: Sequence[Unmet]) -> str:
    """The command that brings what is missing."""
    return "pip install " + " ".join(f"'{item.wanted}'" for item in dict.fromkeys(unmet))
