"""What a package imports and does not declare: `python -P tests/undeclared_imports.py DISTRIBUTION SOURCE_FOLDER`."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path


def imported(folder: Path) -> dict[str, str]:
    """Top-level modules that the sources import -> the first file that does; imports for type checkers do not count."""
    found: dict[str, str] = {}
    for file in sorted(folder.rglob("*.py")):
        for name in _imports(ast.parse(file.read_text(encoding="utf-8"))):
            found.setdefault(name.partition(".")[0], str(file))
    return found


def _imports(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.level == 0 and child.module:
            yield child.module
        elif not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield from _imports(child)


def declared(distribution: str, extras: bool = False) -> set[str]:
    """The distribution itself and its requirements, as normalized names; those of its extras where wanted."""
    lines = [line for line in metadata.requires(distribution) or [] if extras or "extra ==" not in line]
    return {_normalized(distribution), *(_normalized(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in lines)}


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def undeclared(distribution: str, folder: Path) -> list[str]:
    """A line for every import that no declared requirement gives; what is not installed here may be of an extra."""
    allowed, optional = declared(distribution), declared(distribution, extras=True)
    owners = metadata.packages_distributions()
    lines = []
    for module, file in imported(folder).items():
        if module in sys.stdlib_module_names:
            continue
        given_by = {_normalized(owner) for owner in owners.get(module, [])}
        if not given_by & allowed and not (not given_by and _normalized(module) in optional):
            lines.append(f"{file} imports {module} (of {', '.join(sorted(given_by)) or 'nothing that is installed'})")
    return lines


def main(distribution: str, folder: str) -> int:
    """0 when everything is declared."""
    lines = undeclared(distribution, Path(folder))
    for line in lines:
        print(f"undeclared: {line}")
    print(f"{distribution}: {'declares all that it imports' if not lines else f'{len(lines)} undeclared imports'}")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
