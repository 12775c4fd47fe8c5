"""What two families of diffusers pipelines would write twice stands once; the modules of a family import one way."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from itertools import combinations
from pathlib import Path

import pytest

from tests.equal_lines import equal_lines, lines_of

ROOT = Path(__file__).parents[1]
FAMILIES = [
    ROOT / folder
    for folder in ("plugins/fastvideo-wan/src", "plugins/fastvideo-ltx/src", "examples/fastvideo-mochi/src")
]
MOST = 60
"""Of 349 before there was fastvideo-diffusers."""


@pytest.mark.parametrize(("first", "second"), list(combinations(FAMILIES, 2)), ids=lambda path: path.parent.name)
def test_two_families_write_few_equal_lines(first: Path, second: Path) -> None:
    found = equal_lines(first, second)
    assert sum(found.values()) <= MOST, "\n".join(found)


def test_mochi_stays_a_short_family() -> None:
    lines = [line for file in FAMILIES[2].rglob("*.py") for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(lines) <= 420


def test_what_everyone_must_write_does_not_count(tmp_path: Path) -> None:
    head = 'def compute(value: int) -> int:\n    """As said."""\n'
    body = "    long_enough_to_count = value\n    return something.compute(value=value)\n"
    text = f'"""Says something."""\nimport something\n\n{head}{body}'
    (tmp_path / "one.py").write_text(text)
    assert list(lines_of(tmp_path / "one.py")) == [
        "long_enough_to_count = value",
        "return something.compute(value=value)",
    ]


@pytest.mark.parametrize("source", FAMILIES, ids=lambda path: path.parent.name)
def test_modules_of_a_family_import_one_way(source: Path) -> None:
    """Imports for types alone and inside functions count too: none is there to break a circle."""
    graph: dict[str, set[str]] = {}
    package = next(folder for folder in source.iterdir() if folder.name.startswith("fastvideo_"))
    modules = {_name(file, source) for file in package.rglob("*.py")}
    for file in package.rglob("*.py"):
        imported: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                imported.update(name for name in names if name in modules)
        graph[_name(file, source)] = imported - {package.name}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"modules import each other: {' <- '.join(error.args[1])}")


def _name(file: Path, source: Path) -> str:
    parts = file.relative_to(source).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
