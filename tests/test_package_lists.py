"""A package of this repository is found by its folder; what must name it all the same, names it."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

from fastvideo_core.registry.specs import FIRST_PARTY, KINDS

ROOT = Path(__file__).parents[1]
PROJECTS = {
    file.parent.name: file.read_text(encoding="utf-8") for file in sorted(ROOT.glob("plugins/*/pyproject.toml"))
}
METHODS = sorted(name for name, text in PROJECTS.items() if "fastvideo.methods" in text)
NO_EXTRA = {"fastvideo-testing", "fastvideo-data", "fastvideo-diffusers"}
"""`[all]` gets these through others; the kit is for authors."""


def entry_points(text: str, kind: str) -> list[str]:
    section = re.search(rf'\[project\.entry-points\."fastvideo\.{kind}"\]\n((?:[\w-]+ = .*\n)+)', text)
    return re.findall(r"^([\w-]+) =", section[1], re.MULTILINE) if section else []


def linted() -> configparser.ConfigParser:
    found = configparser.ConfigParser()
    found.read(ROOT / ".importlinter", encoding="utf-8")
    return found


@pytest.mark.parametrize("package", PROJECTS)
def test_the_import_rules_name_every_package(package: str) -> None:
    module = package.replace("-", "_")
    contracts = linted()
    assert module in contracts["importlinter"]["root_packages"].split()
    assert module in contracts["importlinter:contract:packages"]["layers"].split()
    if package in METHODS:
        assert module in contracts["importlinter:contract:methods"]["source_modules"].split()


@pytest.mark.parametrize("package", PROJECTS)
def test_core_knows_what_every_package_gives(package: str) -> None:
    for kind in KINDS:
        for name in entry_points(PROJECTS[package], kind):
            assert FIRST_PARTY[kind].get(name) == package, f"FIRST_PARTY of registry/specs.py lacks {name}"
    core = (ROOT / "core/pyproject.toml").read_text(encoding="utf-8")
    everything = core[core.index("all = [") :]
    everything = everything[: everything.index("\n]")]
    extra = package.removeprefix("fastvideo-")
    assert package in NO_EXTRA or package in everything or re.search(rf"\[[\w,]*\b{extra}\b", everything)


@pytest.mark.parametrize("package", METHODS)
def test_every_method_is_in_the_matrix_and_has_its_files(package: str) -> None:
    (name,) = entry_points(PROJECTS[package], "methods")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    header = next(line for line in readme.splitlines() if line.startswith("| | "))
    assert f" {name} " in header, "README.md's matrix of families and methods lacks it"
    for file in ("README.md", "CHANGELOG.md", "tests/test_conformance.py"):
        assert (ROOT / "plugins" / package / file).is_file(), f"plugins/{package}/{file} is not there"
