"""What packages use of each other: plug-ins only public names, our own packages beside these what is listed here.

Public of core are the names of `fastvideo_core` itself, wherever they are imported from, and the modules of MODULES; of the other
packages what they export. Whoever adds to SECOND says with it that a part of core is relied on by another package. Whatever is
used is documented (docs/_ext/names.py says how, and writes the page of all public names).
"""

from __future__ import annotations

import ast
import importlib
import re
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import fastvideo_core
from fastvideo_tools.commands.new_plugin import KINDS, package_files
from tests.docs_extension import docs_extension

ROOT = Path(__file__).parents[1]
names = docs_extension("names")
SECOND = {
    "data": {
        "cli.options",
        "config.output_folder",
        "dispatch.output_dir",
        "dispatch.trained_model",
        "launch.launcher",
        "launch.processes",
        "launch.stdio",
        "registry.registry",
    },
    "kd": {
        "cli.options",
        "config.base",
        "config.run",
        "dispatch.output_dir",
        "dispatch.role_weights",
        "dispatch.trained_model",
        "launch.launcher",
        "launch.processes",
        "launch.stdio",
    },
    "diffusers": {
        "config.base",
        "launch.stdio",
    },
    "tools": {
        "checkpoint",
        "cli.main",
        "cli.options",
        "cli.table",
        "config.base",
        "config.check",
        "config.describe",
        "config.document",
        "config.foreign_names",
        "config.output_folder",
        "config.run",
        "dispatch.examine",
        "dispatch.memory_estimate",
        "dispatch.runtime",
        "dispatch.output_dir",
        "launch.stdio",
        "placing.shard",
        "registry",
        "registry.registry",
        "registry.discovery",
        "tracking.wandb_login",
        "training.updates",
    },
    "evaluate": {
        "checkpoint",
        "checkpoint.weights",
        "cli.options",
        "config.base",
        "config.output_folder",
        "dispatch.output_dir",
        "dispatch.plugin_checks",
        "dispatch.role_weights",
        "dispatch.trained_model",
        "launch.launcher",
        "launch.processes",
        "launch.stdio",
        "registry.registration",
        "registry.registry",
    },
    "testing": {
        "callbacks.hooks",
        "config.base",
        "dispatch.examine",
        "dispatch.memory_estimate",
        "dispatch.role_weights",
        "dispatch.runtime",
        "launch",
        "registry",
        "registry.discovery",
        "training.trainer",
        "weights.parameters",
    },
}

PLUGINS = {
    folder.name: folder
    for folder in sorted([*ROOT.glob("plugins/fastvideo-*"), *ROOT.glob("examples/fastvideo-*")])
    if folder.name.removeprefix("fastvideo-") not in SECOND
}


def imports(text: str, *packages: str) -> Iterator[tuple[str, str]]:
    """(module, name) of every import from `packages`, those inside of functions and for types too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in packages:
            yield from ((str(node.module), alias.name) for alias in node.names)


def used(source: Path) -> Iterator[tuple[str, str]]:
    """(module below fastvideo_core, name) of every import in a folder."""
    for file in source.rglob("*.py"):
        for module, name in imports(file.read_text(encoding="utf-8"), "fastvideo_core"):
            yield module.partition(".")[2], name


def is_public(module: str, name: str) -> bool:
    full = f"{module}.{name}"
    exported = not module or fastvideo_core._EXPORTS.get(name, "").startswith(module)
    return exported or any(f"{place}.".startswith(f"{public}.") for public in names.MODULES for place in (module, full))


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_plug_in_uses_public_names_alone(plugin: str) -> None:
    private = {f"{module}.{name}" for module, name in used(PLUGINS[plugin] / "src") if not is_public(module, name)}
    assert private == set()


@pytest.mark.parametrize("package", SECOND)
def test_our_own_packages_use_what_is_listed(package: str) -> None:
    source = ROOT / f"plugins/fastvideo-{package}/src"
    modules = {module for module, name in used(source) if not is_public(module, name)}
    assert modules == SECOND[package]


def test_every_public_name_is_there() -> None:
    for name in fastvideo_core.__all__:
        assert getattr(fastvideo_core, name) is not None


CODE = re.compile(r"^( *)```python\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def outsiders() -> Iterator[tuple[str, str]]:
    """(where, code) of what is written as an outsider would: scaffolds, tutorials with their packages, READMEs."""
    for kind in KINDS:
        for path, text in package_files("mine", kind, "fastvideo-mine", "none", "").items():
            if path.endswith(".py"):
                yield f"scaffold/{kind}/{path}", text
    for file in sorted(ROOT.glob("examples/*/*/**/*.py")):
        yield str(file.relative_to(ROOT)), file.read_text(encoding="utf-8")
    for page in sorted([ROOT / "README.md", *ROOT.glob("*/*/README.md"), *(ROOT / "docs").rglob("*.md")]):
        for match in CODE.finditer(page.read_text(encoding="utf-8")):
            text = textwrap.dedent(match[2])
            with suppress(SyntaxError):  # a part of a statement, shown from a package
                ast.parse(text)
                yield str(page.relative_to(ROOT)), text


def test_scaffolds_and_tutorials_import_exported_names_alone() -> None:
    private, pages = set(), set()
    for where, text in outsiders():
        for module, name in imports(text, *names.PACKAGES):
            package, _, inner = module.partition(".")
            pages.add(where)
            exported = importlib.import_module(package)._EXPORTS
            if not (is_public(inner, name) if package == "fastvideo_core" else name in exported):
                private.add((where, f"{module}.{name}"))
    assert private == set()
    assert {"docs/python.md", "docs/plugins.md", "docs/authors/write-a-method.md"} <= pages
    assert sum(where.startswith("scaffold/") for where in pages) > 10


def test_every_name_that_others_use_is_documented() -> None:
    found = {pair for _, text in outsiders() for pair in imports(text, *names.PACKAGES)}
    for source in ROOT.glob("plugins/*/src/*"):
        others = [package for package in names.PACKAGES if package != source.name]
        for file in source.rglob("*.py"):
            found |= set(imports(file.read_text(encoding="utf-8"), *others))
    found.discard(("fastvideo_core", "__version__"))
    assert len(found) > 250
    assert sorted(f"{module}.{name}" for module, name in found if not names.meaning(module, name)) == []


@pytest.mark.parametrize("package", names.PACKAGES)
def test_every_exported_name_is_documented(package: str) -> None:
    exported = importlib.import_module(package)._EXPORTS
    assert [name for name in exported if not names.meaning(package, name)] == []


def test_a_class_a_protocol_and_a_constant_are_documented_where_they_stand() -> None:
    assert names.meaning("fastvideo_core.contracts.adapter", "AddNoise").startswith("x_t, same shape")
    assert names.meaning("fastvideo_core", "FloatPair") == "An option of two numbers."
    assert names.meaning("fastvideo_core.registry", "Kind").startswith("The kinds of plug-in")
    assert names.meaning("fastvideo_core.contracts.method", "LossMap").startswith("Losses by name")
    assert names.meaning("fastvideo_core.config.limits", "PIXELS") == ""
