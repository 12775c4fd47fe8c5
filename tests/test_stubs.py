"""The names that packages import lazily are typed: what a type checker reads is what an import gives."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

LAZY = ("fastvideo_core", "fastvideo_data", "fastvideo_diffusers", "fastvideo_evaluate", "fastvideo_testing")


@pytest.mark.parametrize("package", LAZY)
def test_the_stub_of_a_package_names_what_it_exports_and_where_from(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__file__ is not None
    stub = ast.parse(Path(module.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom) and str(node.module).startswith(package)]
    named = {alias.asname: f"{node.module}.{alias.name}" for node in imports for alias in node.names}
    assert named == {name: f"{package}.{place}.{name}" for name, place in module._EXPORTS.items()}


@pytest.mark.parametrize("package", LAZY)
def test_no_exported_name_is_that_of_a_module_which_would_hide_it_once_imported(package: str) -> None:
    module = importlib.import_module(package)
    assert {item.name for item in pkgutil.iter_modules(module.__path__)}.isdisjoint(module._EXPORTS)
