"""The sections of run.yaml, core's and those of plug-ins, and every option that each has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from fastvideo_core.config.describe import Schema, describe, inside, json_schema
from fastvideo_core.config.run import RecipeConfig, RoleConfig
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.errors import ConfigError, Problem, did_you_mean
from fastvideo_core.registry import Kind, MethodPlugin, PluginRegistry
from fastvideo_core.registry.specs import CONFIGURED, FIRST_PARTY

SECTIONS: dict[str, tuple[str, type[BaseModel]]] = {
    "recipe": ("recipe", RecipeConfig),
    "roles": ("roles.<name>", RoleConfig),
    "training": ("training", TrainingArgs),
}
"""Core's own sections: name -> where it stands in run.yaml and its class."""

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


@dataclass(frozen=True)
class Option:
    """One option of a section; `allowed` is in words, `default` as JSON knows it (meaningless where `required`)."""

    name: str
    allowed: str
    required: bool
    default: Any
    meaning: str


def all_options(model: type[BaseModel]) -> tuple[Option, ...]:
    """Every option, in order, each followed by those inside it: `outer.inner`, `list[].inner`, `mapping.<key>.inner`."""
    root = json_schema(model)
    fields = {name: field for name, field, _ in inside(root, root)}
    rows: list[Option] = []
    for name, info in model.model_fields.items():
        field, required = fields.get(name, {}), info.is_required()
        default = None if required else info.get_default(call_default_factory=True, validated_data={})
        shown = to_jsonable_python(default, fallback=str)
        mark = [f"(deprecated {info.deprecation_message})"] if info.deprecated else []
        meaning = " ".join([info.description or "", *mark])
        rows.append(Option(name, describe(field, root), required, shown, meaning))
        rows += _options(name, field, root, [field])
    return tuple(rows)


def _options(place: str, schema: Schema, root: Schema, above: list[Schema]) -> Iterator[Option]:
    """The options inside the one at a place; those of a class that holds itself only once."""
    for name, field, required in inside(schema, root):
        index = f"[{name}]" if isinstance(name, int) else f".{name}"
        inner = place + {int: "[]", str: ".<key>"}.get(name, index)
        if isinstance(name, str):
            yield Option(inner, describe(field, root), required, field.get("default"), field.get("description", ""))
        if not any(field is known for known in above):
            yield from _options(inner, field, root, [*above, field])
