"""`fastvideo-distill schema NAME`: every option of a section or plug-in, its type, range, default and meaning."""

import argparse
import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from fastvideo_core.cli.table import render_table, terminal_width
from fastvideo_core.config.describe import all_options, json_schema
from fastvideo_core.config.run import RecipeConfig, RoleConfig
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.errors import ConfigError, PluginError, Problem, did_you_mean
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

_DIALECT = "https://json-schema.org/draft/2020-12/schema"

_PLACES: dict[Kind, str] = {
    "models": "pipeline_config of family {name}",
    "methods": "method_config of method {name}",
    "callbacks": "callbacks.{name}",
}

_Model = type[BaseModel] | None
"""A config class; None where the plug-in is broken, which allows anything."""


class Section(NamedTuple):
    """A section of run.yaml to show: its place, its class, and a line above the options."""

    title: str
    model: type[BaseModel]
    note: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = f"{WHOLE} (the whole file), {', '.join(SECTIONS)}, or a family, method or callback"
    parser.add_argument("name", help=f"{names} (DISTRIBUTION:NAME picks one)")
    parser.add_argument("--json", action="store_true", help="print JSON schema, for editors")


def run(args: argparse.Namespace) -> int:
    registry: PluginRegistry = args.registry
    with contextlib.redirect_stdout(sys.stderr):  # what a plug-in prints while it is imported is not of the schema
        sections = [] if args.name == WHOLE else _find_sections(args.name, registry)
        if args.json:
            schema = _section_schema(sections) if sections else run_schema(registry)
    if args.json:
        print(json.dumps(schema, indent=2))
    else:
        say("\n\n".join(map(_options, sections)) or _whole(registry))
    return 0


def _whole(registry: PluginRegistry) -> str:
    families, methods, callbacks = (", ".join(registry.names(kind)) or "none installed" for kind in CONFIGURED)
    rows = [
        ("recipe", "required", "schema recipe"),
        ("roles", "required", "schema roles"),
        ("training", "required", "schema training"),
        ("pipeline_config", "", f"schema FAMILY, one of: {families}"),
        ("pipeline_config_path", "", "a file with pipeline_config instead"),
        ("method_config", "", f"schema METHOD, one of: {methods}"),
        ("callbacks", "", f"schema CALLBACK, of: {callbacks}"),
    ]
    return f"run.yaml\n\n{render_table(('SECTION', '', 'OPTIONS'), rows, terminal_width())}"


def _find_sections(name: str, registry: PluginRegistry) -> list[Section]:
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


# --- JSON schemas, for editors ----------------------------------------------------------------------


def run_schema(registry: PluginRegistry) -> dict[str, Any]:
    """Completes and checks recipe, roles and training; the sections of family and method as `recipe` names them."""
    families, methods, callbacks = (_config_classes(kind, registry) for kind in CONFIGURED)
    own = (RecipeConfig, RoleConfig, TrainingArgs)
    schemas, definitions = _defined([*own, *families.values(), *methods.values(), *callbacks.values()])
    recipe = definitions[schemas[RecipeConfig]["$ref"].rpartition("/")[2]]["properties"]
    recipe["family"]["examples"], recipe["method"]["examples"] = sorted(families), sorted(methods)
    properties: dict[str, Any] = {
        "recipe": schemas[RecipeConfig],
        "roles": {"type": "object", "minProperties": 1, "additionalProperties": schemas[RoleConfig]},
        "training": schemas[TrainingArgs],
        "pipeline_config": {"type": ["object", "null"]},
        "pipeline_config_path": {"type": "string"},
        "method_config": {"type": ["object", "null"]},
        "callbacks": {
            "type": ["object", "null"],
            "properties": {name: _or_null(schemas[section]) for name, section in callbacks.items()},
        },
    }
    return {
        "$schema": _DIALECT,
        "title": "run.yaml of fastvideo-distill",
        "type": "object",
        "properties": properties,
        "required": ["recipe", "roles", "training"],
        "additionalProperties": False,
        "allOf": [
            *(_when("family", name, "pipeline_config", schemas[section]) for name, section in families.items()),
            *(_when("method", name, "method_config", schemas[section]) for name, section in methods.items()),
        ],
        "$defs": definitions,
    }


def _section_schema(sections: Sequence[Section]) -> dict[str, Any]:
    """The schema of a section, or of one of several with the same name."""
    if len(sections) == 1:
        return {"$schema": _DIALECT, **json_schema(sections[0].model), "title": sections[0].title}
    schemas, definitions = _defined([section.model for section in sections])
    places = [{**schemas[section.model], "title": section.title} for section in sections]
    return {"$schema": _DIALECT, "anyOf": places, "$defs": definitions}


def _config_classes(kind: Kind, registry: PluginRegistry) -> dict[str, _Model]:
    classes: dict[str, _Model] = dict.fromkeys(registry.names(kind))
    for name in classes:
        with contextlib.suppress(PluginError):
            classes[name] = registry.config_class(registry.get(kind, name))
    return classes


def _defined(models: Sequence[_Model]) -> tuple[dict[_Model, dict[str, Any]], dict[str, Any]]:
    """For each class a reference to its schema, and the definitions that the references lead to."""
    said = [model for model in dict.fromkeys(models) if model is not None and json_schema(model)]
    references, schema = models_json_schema([(model, "validation") for model in said])
    schemas: dict[_Model, dict[str, Any]] = {model: {"type": "object"} for model in models}
    return schemas | {model: references[model, "validation"] for model in said}, schema["$defs"]


def _or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _when(field: str, name: str, section: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """With `recipe.<field>: name`, `section` is of this schema."""
    chosen = {"properties": {"recipe": {"properties": {field: {"const": name}}, "required": [field]}}}
    return {"if": {**chosen, "required": ["recipe"]}, "then": {"properties": {section: _or_null(schema)}}}
