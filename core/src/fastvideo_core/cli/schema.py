"""`fastvideo-distill schema NAME`: every option of a section or plug-in, its type, range, default and meaning."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from dataclasses import dataclass

from pydantic import BaseModel

from fastvideo_core.cli.run_schema import any_of, run_schema
from fastvideo_core.cli.table import render_table, terminal_width
from fastvideo_core.config.describe import all_options
from fastvideo_core.config.run import RecipeConfig, RoleConfig
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_core.errors.suggestions import did_you_mean
from fastvideo_core.launch.stdio import say
from fastvideo_core.registry import Kind, MethodPlugin, PluginRegistry
from fastvideo_core.registry.specs import CONFIGURED, FIRST_PARTY

SECTIONS: dict[str, tuple[str, type[BaseModel]]] = {
    "recipe": ("recipe", RecipeConfig),
    "roles": ("roles.<name>", RoleConfig),
    "training": ("training", TrainingArgs),
}
"""Core's own sections: name -> where it stands in run.yaml and its class."""

WHOLE = "run"
"""The name of the whole file."""

_PLACES: dict[Kind, str] = {
    "models": "pipeline_config of family {name}",
    "methods": "method_config of method {name}",
    "callbacks": "callbacks.{name}",
}


@dataclass(frozen=True)
class Section:
    """A section of run.yaml to show.

    Args:
        title: its place.
        model: its class.
        note: a line above the options.
    """

    title: str
    model: type[BaseModel]
    note: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        help=f"{WHOLE} (the whole file), {', '.join(SECTIONS)}, or a family, method or callback (DISTRIBUTION:NAME picks one)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON schema, for editors")


def run(args: argparse.Namespace) -> int:
    if args.name == WHOLE:
        return _whole(args.registry, as_json=args.json)
    with contextlib.redirect_stdout(sys.stderr):  # what a plug-in prints while it is imported is not of the schema
        sections = find_sections(args.name, args.registry)
    if args.json:
        print(json.dumps(any_of({section.title: section.model for section in sections}), indent=2))
    else:
        say("\n\n".join(as_text(section, terminal_width()) for section in sections))
    return 0


def _whole(registry: PluginRegistry, *, as_json: bool) -> int:
    """The file itself."""
    if as_json:
        with contextlib.redirect_stdout(sys.stderr):
            schema = run_schema(registry)
        print(json.dumps(schema, indent=2))
        return 0
    rows = [
        ("recipe", "required", "schema recipe"),
        ("roles", "required", "schema roles"),
        ("training", "required", "schema training"),
        ("pipeline_config", "", "schema FAMILY, one of: " + (", ".join(registry.names("models")) or "none installed")),
        ("pipeline_config_path", "", "a file with pipeline_config instead"),
        ("method_config", "", "schema METHOD, one of: " + (", ".join(registry.names("methods")) or "none installed")),
        ("callbacks", "", "schema CALLBACK, of: " + (", ".join(registry.names("callbacks")) or "none installed")),
    ]
    say(f"run.yaml\n\n{render_table(('SECTION', '', 'OPTIONS'), rows, terminal_width())}")
    return 0


def find_sections(name: str, registry: PluginRegistry) -> list[Section]:
    """The sections of that name: core's own, or those of every kind of plug-in with that name.

    Raises:
        ConfigError: there is none.
        PluginError: the plug-in is broken.
    """
    if name in SECTIONS:
        return [Section(*SECTIONS[name])]
    found = []
    for kind in CONFIGURED:
        if name.rpartition(":")[2] in registry.names(kind):
            plugin = registry.get(kind, name)
            note = f"roles: {plugin.spec.roles_in_words()}\n" if isinstance(plugin.spec, MethodPlugin) else ""
            found.append(Section(_PLACES[kind].format(name=plugin.name), registry.config_class(plugin), note))
    if not found:
        raise ConfigError(_unknown(name, registry))
    return found


def as_text(section: Section, width: int) -> str:
    """The options as a table."""
    rows = [
        (option.name, option.allowed, "required" if option.required else _default(option.default), option.meaning)
        for option in all_options(section.model)
    ]
    if not rows:
        return f"{section.note}{section.title} has no options."
    return f"{section.note}{section.title}\n\n{render_table(('OPTION', 'ALLOWED', 'DEFAULT', 'MEANING'), rows, width)}"


def _default(value: object) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)


def _unknown(name: str, registry: PluginRegistry) -> Problem:
    for kind in CONFIGURED:
        if name in FIRST_PARTY[kind]:
            return Problem(f"{name!r} is not installed", fix=f"pip install {FIRST_PARTY[kind][name]}")
    known = [*SECTIONS, *(plugin for kind in CONFIGURED for plugin in registry.names(kind))]
    return Problem(f"there is no section or plug-in {name!r}", allowed=", ".join(known), fix=did_you_mean(name, known))
