"""The list of plug-ins on docs/plugins-index.md is what the packages of this repository bring."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from fastvideo_core.cli.main import COMMANDS
from fastvideo_core.registry.specs import FIRST_PARTY, SINGULAR, Kind

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]


def brought() -> set[tuple[str, str, str]]:
    """(name, kind, package) of every entry point."""
    found = set()
    for file in (ROOT / "core" / "pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml")):
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        for group, entries in project.get("entry-points", {}).items():
            kind: Kind = group.removeprefix("fastvideo.")
            found |= {(name, SINGULAR[kind], project["name"]) for name in entries}
    return found


def test_the_index_lists_what_the_packages_bring() -> None:
    text = (ROOT / "docs" / "plugins-index.md").read_text(encoding="utf-8").partition("## By others")[0]
    assert set(re.findall(r"^\| `([\w-]+)` \| ([\w ]+) \| ([\w-]+) \|", text, re.MULTILINE)) == brought()


def test_names_that_are_not_installed_come_with_their_package() -> None:
    listed = {(name, SINGULAR[kind], package) for kind, names in FIRST_PARTY.items() for name, package in names.items()}
    assert listed - {(name, "command", "fastvideo-core") for name in COMMANDS} == brought()
