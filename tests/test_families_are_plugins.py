"""No family is known by name outside of its own package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PIP_HINTS = "core/src/fastvideo_core/registry/specs.py"
"""What to install for a first-party name that is not there."""

OTHER_TRAINERS = ("plugins/fastvideo-tools/src/fastvideo_tools/convert",)
"""What other trainers' names and files are called here, families among them."""

PACKAGES = (
    "core",
    *(
        f"plugins/{file.parent.name}"
        for file in sorted(ROOT.glob("plugins/*/pyproject.toml"))
        if "fastvideo.models" not in file.read_text(encoding="utf-8")
    ),
)


def mentions(word: str, package: str) -> list[str]:
    pattern = re.compile(rf"(?<![a-z]){word}", re.IGNORECASE)
    return [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / package / "src").rglob("*.py"))
        if not any(path.is_relative_to(ROOT / place) for place in (PIP_HINTS, *OTHER_TRAINERS))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_core_and_the_methods_never_name_the_second_family(package: str) -> None:
    assert mentions("ltx", package) == []


def test_the_search_would_find_it() -> None:
    assert len(mentions("ltx", "plugins/fastvideo-ltx")) > 100


def test_the_pip_hints_name_each_family_once() -> None:
    text = (ROOT / PIP_HINTS).read_text(encoding="utf-8")
    assert re.findall(r'"(wan|ltx)": "fastvideo-\1"', text) == ["wan", "ltx"]
    assert len(re.findall("ltx", text, re.IGNORECASE)) == 2
