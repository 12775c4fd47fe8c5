"""Options as JSON schema, for editors: what `schema NAME --json` prints."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from fastvideo_core.config.describe import json_schema
from fastvideo_core.config.run import RecipeConfig, RoleConfig
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.errors import PluginError
from fastvideo_core.registry import Kind, PluginRegistry
from fastvideo_core.registry.specs import CONFIGURED
from fastvideo_tools.options import Section

_DIALECT = "https://json-schema.org/draft/2020-12/schema"

_Model = type[BaseModel] | None
"""A config class; None where the plug-in is broken, which allows anything."""


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


def section_schema(sections: Sequence[Section]) -> dict[str, Any]:
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
