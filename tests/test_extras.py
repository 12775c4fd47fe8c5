"""`pip install fastvideo-core[all]` brings every package of this repository."""

from __future__ import annotations

import sys
from pathlib import Path

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECTS = {
    project["name"]: project
    for file in (ROOT / "core" / "pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml"))
    for project in [tomllib.loads(file.read_text(encoding="utf-8"))["project"]]
}


def brought(name: str, *extras: str) -> set[str]:
    """The first-party packages that installing one with extras brings, itself too."""
    project, found = PROJECTS[name], {name}
    optional = project.get("optional-dependencies", {})
    for text in [*project["dependencies"], *(need for extra in extras for need in optional[extra])]:
        requirement = Requirement(text)
        if requirement.name in PROJECTS and (requirement.name != name or requirement.extras):
            found |= brought(requirement.name, *requirement.extras)
    return found


def test_the_extra_all_brings_every_first_party_package() -> None:
    assert brought("fastvideo-core", "all") == set(PROJECTS)


def test_core_alone_brings_none() -> None:
    assert brought("fastvideo-core") == {"fastvideo-core"}
