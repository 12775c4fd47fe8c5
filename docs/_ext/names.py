"""What the names that plug-ins may import are: docs/reference/names.md, and the test that none of them lacks a word."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGES = {
    "fastvideo_core": "The contracts, and training and sampling [from Python](../python.md).",
    "fastvideo_data": "For families on parquet data, with `pip install fastvideo-data`.",
    "fastvideo_diffusers": "For families on diffusers pipelines, with `pip install fastvideo-diffusers`.",
    "fastvideo_evaluate": "For [metrics](../authors/write-a-metric.md), with `pip install fastvideo-evaluate`.",
    "fastvideo_testing": "For tests of plug-ins: [the kit](../authors/conformance-kit.md), with `pip install fastvideo-testing`.",
}
"""The packages whose exported names are public -> a word about them."""

MODULES = ("contracts", "diffusion", "optim", "errors", "config.limits", "distributed.context", "registry.specs")
"""What is public of core besides: these modules, and those in them."""


def names_page() -> str:
    """Every public name with what it is."""
    lines = [
        "# Names for authors",
        "",
        "What a plug-in may import: these names, and no others; what each is, from the code.",
    ]
    for package, about in PACKAGES.items():
        exported = importlib.import_module(package)._EXPORTS
        lines += _table(package, about, [(package, name) for name in sorted(exported, key=str.lower)])
    exported = importlib.import_module("fastvideo_core")._EXPORTS
    for module in public_modules():
        if own := [(module, name) for name in defined(module) if name not in exported]:
            lines += _table(module, "", own)
    return "\n".join([*lines, ""])


def _table(title: str, about: str, names: list[tuple[str, str]]) -> list[str]:
    rows = [f"| `{name}` | {_cell(meaning(module, name))} |" for module, name in names]
    return ["", f"## {title}", *(["", about] if about else []), "", "| name | what it is |", "|---|---|", *rows]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def public_modules() -> Iterator[str]:
    """The modules of MODULES, those inside of packages too."""
    for name in MODULES:
        module = importlib.import_module(f"fastvideo_core.{name}")
        yield module.__name__
        if hasattr(module, "__path__"):
            inner = pkgutil.iter_modules(module.__path__, f"{module.__name__}.")
            yield from sorted(item.name for item in inner)


def defined(module: str) -> list[str]:
    """The public classes and functions that stand in a module itself, and its constants that have a text."""
    found = []
    for node in _body(importlib.import_module(module)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            found += [name for name in _targets(node) if meaning(module, name)]
    return [name for name in found if not name.startswith("_")]


def meaning(module: str, name: str) -> str:
    """The first paragraph that is written about a name; "" where there is none.

    That is its docstring, of a Protocol that has none its member's, and of a constant the text below it.
    """
    home = importlib.import_module(module)
    value = getattr(home, name, None) or importlib.import_module(f"{module}.{name}")
    if isinstance(value, ModuleType) or inspect.isroutine(value):
        return _paragraph(value.__doc__)
    if inspect.isclass(value):
        return _of_class(value)
    return _below(home, name)


def _of_class(value: Any) -> str:
    said = value.__doc__ or ""
    if said and not said.startswith(f"{value.__name__}("):  # which dataclasses say of themselves
        return _paragraph(said)
    members = [getattr(item, "fget", item) for name, item in vars(value).items() if not name.startswith("_")]
    return next((_paragraph(item.__doc__) for item in members if inspect.isroutine(item) and item.__doc__), "")


def _below(home: ModuleType, name: str) -> str:
    """The text below an assignment, in the module where it stands."""
    exported = getattr(home, "_EXPORTS", {})
    if name in exported:
        return _below(importlib.import_module(f"{home.__name__}.{exported[name]}"), name)
    body = _body(home)
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ImportFrom) and any(name == (alias.asname or alias.name) for alias in node.names):
            return _below(importlib.import_module(str(node.module)), name)
        if isinstance(node, ast.Assign | ast.AnnAssign) and name in _targets(node):
            text = after.value if isinstance(after, ast.Expr) else None
            return _paragraph(str(text.value)) if isinstance(text, ast.Constant) else ""
    return ""


def _paragraph(text: str | None) -> str:
    return " ".join(inspect.cleandoc(text or "").partition("\n\n")[0].split())


def _body(module: ModuleType) -> list[ast.stmt]:
    return ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")).body


def _targets(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]
