"""What packages use of core: plug-ins only its public names, our own packages beside these what is listed here.

Public are the names of `fastvideo_core` itself, wherever they are imported from, and the modules of PUBLIC. Whoever adds to
SECOND says with it that a part of core is relied on by another package.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastvideo_core

ROOT = Path(__file__).parents[1]
PUBLIC = ("contracts", "diffusion", "optim", "errors", "config.limits", "distributed.context", "registry.specs")
SECOND = {
    "data": {
        "cli.options",
        "config.output_folder",
        "dispatch.output_dir",
        "dispatch.trained_model",
        "distributed.mesh",
        "launch.stdio",
        "registry.registry",
    },
    "kd": {
        "cli.options",
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
        "launch.stdio",
        "registry",
        "registry.registry",
        "registry.discovery",
        "tracking.wandb_login",
    },
    "testing": {
        "callbacks.hooks",
        "config.base",
        "config.describe",
        "dispatch.examine",
        "dispatch.role_weights",
        "dispatch.runtime",
        "distributed.mesh",
        "launch",
        "registry",
        "registry.discovery",
        "registry.registration",
        "training.trainer",
        "weights.parameters",
    },
}

PLUGINS = {
    folder.name: folder
    for folder in sorted([*ROOT.glob("plugins/fastvideo-*"), *ROOT.glob("examples/fastvideo-*")])
    if folder.name.removeprefix("fastvideo-") not in SECOND
}


def used(source: Path) -> Iterator[tuple[str, str]]:
    """(module below fastvideo_core, name) of every import, those inside of functions and for types too."""
    for file in source.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "fastvideo_core":
                module = str(node.module).partition(".")[2]
                yield from ((module, alias.name) for alias in node.names)


def is_public(module: str, name: str) -> bool:
    full = f"{module}.{name}"
    exported = not module or fastvideo_core._EXPORTS.get(name, "").startswith(module)
    return exported or any(f"{place}.".startswith(f"{public}.") for public in PUBLIC for place in (module, full))


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
