"""How many lines stand equally in the source of two packages: what two families write twice belongs into one that both use.

    python tests/equal_lines.py FOLDER FOLDER [--by-file]

A line counts as often as it stands, stripped, in both folders' Python files. What a contract or the language asks of everyone
does not count: imports, docstrings, comments, the heads of functions and classes, arguments handed on by their own name, the
fields of a `ModelPlugin`; nor do lines of fewer than twelve characters.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

SHORTEST = 12
HANDED_ON = re.compile(r"(\w+)=(self\._?)?\1,|#.*")


def lines(folder: Path) -> Counter[str]:
    """The counted lines of a folder's Python files, and how often each stands there."""
    return sum((lines_of(file) for file in sorted(folder.rglob("*.py"))), Counter[str]())


def lines_of(file: Path) -> Counter[str]:
    """The counted lines of one file."""
    text = file.read_text(encoding="utf-8")
    asked = {number for node in ast.walk(ast.parse(text)) for number in _asked_of_everyone(node)}
    stripped = (line.strip() for number, line in enumerate(text.splitlines(), 1) if number not in asked)
    return Counter(line for line in stripped if len(line) >= SHORTEST and not HANDED_ON.fullmatch(line))


def equal_lines(first: Path, second: Path) -> Counter[str]:
    """The lines that stand in both, and how often."""
    return lines(first) & lines(second)


def _asked_of_everyone(node: ast.AST) -> Iterator[int]:
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant(value=str())):
            yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            yield from range(first, node.body[0].lineno)
        case ast.Assign(value=ast.Call(func=ast.Name(id="ModelPlugin"))):
            yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument(
        "--by-file", action="store_true", help="pairs of files, those with most first, instead of lines"
    )
    asked = parser.parse_args()
    first, second = asked.first, asked.second
    if asked.by_file:
        pairs = [
            (sum((lines_of(one) & lines_of(other)).values()), one.relative_to(first), other.relative_to(second))
            for one in first.rglob("*.py")
            for other in second.rglob("*.py")
        ]
        for count, one, other in sorted(pairs, reverse=True)[:25]:
            print(f"{count:5} {one}  {other}")
    else:
        for line, count in equal_lines(first, second).most_common():
            print(f"{count:5} {line}")
    print(f"{sum(equal_lines(first, second).values()):5} lines stand equally in both")


if __name__ == "__main__":
    main()
