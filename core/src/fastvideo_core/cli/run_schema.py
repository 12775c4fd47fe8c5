"""JSON schemas for editors: of a whole run.yaml with everything that is installed, and of its sections."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from fastvideo_core.config.describe import json_schema
from fastvideo_core.config.run import RecipeConfig, RoleConfig
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.errors import PluginError
from fastvideo_core.registry import Kind, PluginRegistry

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Section = type[BaseModel] | None
"""A section's class; None where the plug-in is broken, which allows anything."""


def run_schema(registry: PluginRegistry) -> dict[str, Any]:
    """Completes and checks recipe, roles and training; the sections of family and method as `recipe` names them."""
    families, methods = _sections("models", registry), _sections("methods", registry)
    callbacks = _sections("callbacks", registry)
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
        "$schema": DIALECT,
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


def any_of(sections: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """The schema of a section, or of one of several with the same name.

    Args:
        sections: config class by the title that it gets.
    """
    if len(sections) == 1:
        ((title, model),) = sections.items()
        return {"$schema": DIALECT, **json_schema(model), "title": title}
    schemas, definitions = _defined(sections.values())
    places = [{**schemas[model], "title": title} for title, model in sections.items()]
    return {"$schema": DIALECT, "anyOf": places, "$defs": definitions}


def _sections(kind: Kind, registry: PluginRegistry) -> dict[str, Section]:
    sections: dict[str, Section] = {}
    for name in registry.names(kind):
        try:
            sections[name] = registry.config_class(registry.get(kind, name))
        except PluginError:
            sections[name] = None
    return sections


def _defined(sections: Collection[Section]) -> tuple[dict[Section, dict[str, Any]], dict[str, Any]]:
    """For each class a reference to its schema, and the definitions that the references lead to."""
    said = [model for model in dict.fromkeys(sections) if model is not None and json_schema(model)]
    references, schema = models_json_schema([(model, "validation") for model in said])
    schemas: dict[Section, dict[str, Any]] = {section: {"type": "object"} for section in sections}
    return schemas | {model: references[model, "validation"] for model in said}, schema["$defs"]


def _or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _when(field: str, name: str, section: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """With `recipe.<field>: name`, `section` is of this schema."""
    chosen = {"properties": {"recipe": {"properties": {field: {"const": name}}, "required": [field]}}}
    return {"if": {**chosen, "required": ["recipe"]}, "then": {"properties": {section: _or_null(schema)}}}
