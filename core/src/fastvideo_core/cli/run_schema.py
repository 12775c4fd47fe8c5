"""JSON schemas for editors: of a whole run.yaml with everything that is installed, and of its sections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from fastvideo_core.config.describe import json_schema
from fastvideo_core.config.run import RecipeConfig, RoleConfig
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.errors import PluginError
from fastvideo_core.registry import Kind, PluginRegistry

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_DEFINITIONS = "#/$defs/"


def run_schema(registry: PluginRegistry) -> dict[str, Any]:
    """Completes and checks recipe, roles and training; the sections of family and method as `recipe` names them.

    A plug-in that is broken allows anything in its section.
    """
    definitions: dict[str, Any] = {}
    families = _sections("models", registry, definitions)
    methods = _sections("methods", registry, definitions)
    recipe = _placed("recipe", RecipeConfig, definitions)
    for field, names in (("family", families), ("method", methods)):
        definitions["recipe"]["properties"][field]["examples"] = sorted(names)
    properties: dict[str, Any] = {
        "recipe": recipe,
        "roles": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": _placed("role", RoleConfig, definitions),
        },
        "training": _placed("training", TrainingArgs, definitions),
        "pipeline_config": {"type": ["object", "null"]},
        "pipeline_config_path": {"type": "string"},
        "method_config": {"type": ["object", "null"]},
        "callbacks": {
            "type": ["object", "null"],
            "properties": {
                name: {"anyOf": [section, {"type": "null"}]}
                for name, section in _sections("callbacks", registry, definitions).items()
            },
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
            *(_when("family", name, "pipeline_config", section) for name, section in families.items()),
            *(_when("method", name, "method_config", section) for name, section in methods.items()),
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
    definitions: dict[str, Any] = {}
    places = [_placed(title, model, definitions) for title, model in sections.items()]
    for title in sections:
        definitions[title]["title"] = title
    return {"$schema": DIALECT, "anyOf": places, "$defs": definitions}


def _sections(kind: Kind, registry: PluginRegistry, definitions: dict[str, Any]) -> dict[str, Any]:
    """For each plug-in of a kind, a reference to the schema of its section."""
    sections = {}
    for name in registry.names(kind):
        try:
            model = registry.config_class(registry.get(kind, name))
        except PluginError:
            sections[name] = {"type": "object"}
        else:
            sections[name] = _placed(f"{kind}/{name}", model, definitions)
    return sections


def _placed(key: str, model: type[BaseModel], definitions: dict[str, Any]) -> dict[str, str]:
    """Puts a class's schema among the definitions, its own ones under names that no other class has."""
    schema = json_schema(model)
    for name, inner in schema.pop("$defs", {}).items():
        definitions[f"{key}/{name}"] = _moved(inner, key)
    definitions[key] = _moved(schema, key)
    return {"$ref": _pointer(key)}


def _moved(value: Any, key: str) -> Any:
    """A schema whose references (also those of pydantic's `discriminator`) lead to the definitions of `key`."""
    if isinstance(value, Mapping):
        return {name: _moved(item, key) for name, item in value.items()}
    if isinstance(value, str) and value.startswith(_DEFINITIONS):
        return _pointer(f"{key}/{value.removeprefix(_DEFINITIONS)}")
    return [_moved(item, key) for item in value] if isinstance(value, list) else value


def _pointer(key: str) -> str:
    return f"{_DEFINITIONS}{key.replace('~', '~0').replace('/', '~1')}"


def _when(field: str, name: str, section: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """With `recipe.<field>: name`, `section` is of this schema."""
    chosen = {"properties": {"recipe": {"properties": {field: {"const": name}}, "required": [field]}}}
    return {
        "if": {**chosen, "required": ["recipe"]},
        "then": {"properties": {section: {"anyOf": [schema, {"type": "null"}]}}},
    }
