"""`fastvideo-distill schema NAME`: every option of a section or plug-in, its type, range, default and meaning."""

import argparse
import json
from typing import NamedTuple

from pydantic import BaseModel

from fastvideo_core.cli.main import find_command
from fastvideo_core.cli.table import render_table, terminal_width
from fastvideo_core.config.describe import all_options
from fastvideo_core.config.run import RecipeConfig, RoleConfig
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.errors import ConfigError, Problem, did_you_mean
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


class Section(NamedTuple):
    """A section of run.yaml to show: its place, its class, and a line above the options."""

    title: str
    model: type[BaseModel]
    note: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = f"{WHOLE} (the whole file), {', '.join(SECTIONS)}, or a family, method or callback"
    parser.add_argument("name", help=f"{names} (DISTRIBUTION:NAME picks one)")
    parser.add_argument("--json", action="store_true", help="print JSON schema, for editors (needs fastvideo-tools)")


def run(args: argparse.Namespace) -> int:
    registry: PluginRegistry = args.registry
    if args.json:
        return find_command("json-schema", registry)[0].run(args)
    say(_whole(registry) if args.name == WHOLE else "\n\n".join(map(_options, find_sections(args.name, registry))))
    return 0


def _whole(registry: PluginRegistry) -> str:
    families, methods, callbacks = (", ".join(registry.names(kind)) or "none installed" for kind in CONFIGURED)
    rows = [
        *((name, "required", f"schema {name}") for name in SECTIONS),
        ("pipeline_config", "", f"schema FAMILY, one of: {families}"),
        ("pipeline_config_path", "", "a file with pipeline_config instead"),
        ("method_config", "", f"schema METHOD, one of: {methods}"),
        ("callbacks", "", f"schema CALLBACK, of: {callbacks}"),
    ]
    return f"run.yaml\n\n{render_table(('SECTION', '', 'OPTIONS'), rows, terminal_width())}"


def find_sections(name: str, registry: PluginRegistry) -> list[Section]:
    """Core's own of that name, or that of every kind of plug-in; raises ConfigError for none, PluginError for a broken one."""
    if name in SECTIONS:
        return [Section(*SECTIONS[name])]
    found = []
    for kind in CONFIGURED:
        if name.rpartition(":")[2] in registry.names(kind):
            plugin = registry.get(kind, name)
            note = f"roles: {plugin.spec.roles_in_words()}\n" if isinstance(plugin.spec, MethodPlugin) else ""
            found.append(Section(_PLACES[kind].format(name=plugin.name), registry.config_class(plugin), note))
    if found:
        return found
    if packages := [FIRST_PARTY[kind][name] for kind in CONFIGURED if name in FIRST_PARTY[kind]]:
        raise ConfigError(Problem(f"{name!r} is not installed", fix=f"pip install {packages[0]}"))
    known = [*SECTIONS, *(plugin for kind in CONFIGURED for plugin in registry.names(kind))]
    fix = did_you_mean(name, known)
    raise ConfigError(Problem(f"there is no section or plug-in {name!r}", allowed=", ".join(known), fix=fix))


def _options(section: Section) -> str:
    """The options as a table."""
    rows = []
    for one in all_options(section.model):
        default = one.default if isinstance(one.default, str) and one.default else json.dumps(one.default)
        rows.append((one.name, one.allowed, "required" if one.required else default, one.meaning))
    if not rows:
        return f"{section.note}{section.title} has no options."
    table = render_table(("OPTION", "ALLOWED", "DEFAULT", "MEANING"), rows, terminal_width())
    return f"{section.note}{section.title}\n\n{table}"
