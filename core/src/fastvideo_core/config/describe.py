"""What may stand in a section of run.yaml, in words: for messages, and for whoever lists a config class's options."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema

Schema = dict[str, Any]
"""A JSON schema, or a part of one."""


def inside(schema: Schema, root: Schema) -> Iterator[tuple[Any, Schema, bool]]:
    """What a value may hold: an option's name or an item's index, its schema, and whether it is required.

    `int` stands for every other item of a list, `str` for every other key of a mapping.
    """
    schema = resolve(schema, root)
    for branch in branches(schema):
        yield from inside(branch, root)
    for name, field in schema.get("properties", {}).items():
        yield name, field, name in schema.get("required", ())
    for index, item in enumerate(schema.get("prefixItems", ())):
        yield index, item, True
    for key, kind in (("items", int), ("additionalProperties", str)):
        if isinstance(schema.get(key), dict):
            yield kind, schema[key], False


def json_schema(model: type[BaseModel]) -> Schema:
    """The JSON schema of what may be written; {} where a plug-in uses types that JSON schema cannot say."""
    try:
        return model.model_json_schema(mode="validation")
    except PydanticInvalidForJsonSchema:
        return {}


def allowed_at(model: type[BaseModel], path: Sequence[Any]) -> str:
    """What may stand at a path below a config class, in words; "" when that cannot be said."""
    root = json_schema(model)
    return describe(_below(root, path), root) if path else ""


def keys_at(model: type[BaseModel], path: Sequence[Any]) -> list[str]:
    """Names of the options at a path below a config class."""
    if not path:
        return list(model.model_fields)
    root = json_schema(model)
    return list(dict.fromkeys(name for name, *_ in inside(_below(root, path), root) if isinstance(name, str)))


def _below(root: Schema, path: Sequence[Any]) -> Schema:
    """The schema at a path, which may be a reference; {} where there is none."""
    schema = root
    for part in path:
        fields = {name: field for name, field, _ in reversed([*inside(schema, root)])}  # of several, the first
        schema = fields.get(part, fields.get(type(part), {}))
    return schema


def branches(schema: Schema) -> list[Schema]:
    """The schemas of which a value satisfies one; [] where there is but one way."""
    return [*schema.get("anyOf", ()), *schema.get("oneOf", ())]


def resolve(schema: Schema, root: Schema) -> Schema:
    """The definition in `root` that a schema refers to, or the schema itself."""
    while "$ref" in schema:
        schema = root.get("$defs", {})[schema["$ref"].rpartition("/")[2]]
    return schema


def describe(schema: Schema, root: Schema) -> str:
    """A JSON schema, and what it refers to in `root`, in words such as "a whole number >= 1 or null"."""
    schema = resolve(schema, root)
    if several := branches(schema):
        texts = list(dict.fromkeys(text for branch in several if (text := describe(branch, root))))
        return (", or " if any("," in text for text in texts) else " or ").join(texts)
    if "const" in schema:
        return _show(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(map(_show, schema["enum"]))
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return ("a whole number" if kind == "integer" else "a number") + _range(schema)
    if kind == "string" and schema.get("examples"):
        return "a text such as " + " or ".join(f'"{example}"' for example in schema["examples"])
    if kind == "string" and "pattern" in schema:
        return f"text that matches {schema['pattern']}"
    if kind == "string":
        return "non-empty text" if schema.get("minLength") == 1 else "text"
    if kind == "array":
        return _array(schema, root)
    return {"boolean": "true or false", "null": "null", "object": "a mapping"}.get(str(kind), "")


def _range(schema: Schema) -> str:
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    limits = {sign: _number(schema[name]) for name, sign in signs.items() if name in schema}
    if limits.keys() == {">=", "<="}:
        return f" from {limits['>=']} to {limits['<=']}"
    return " and".join(f" {sign} {limit}" for sign, limit in limits.items())


def _number(value: Any) -> Any:
    """Whole numbers without a point, as newer versions of pydantic write them; a large power of two as such."""
    value = int(value) if isinstance(value, float) and value.is_integer() else value
    large = isinstance(value, int) and value >= 2**31 and value.bit_count() == 1
    return f"2**{value.bit_length() - 1}" if large else value


def _array(schema: Schema, root: Schema) -> str:
    few, many = schema.get("minItems"), schema.get("maxItems")
    if few == many:
        size = "" if few is None else f" of {few}"
    else:
        size = f" of at least {few}" if many is None else f" of {few or 0} to {many}"
    items = [describe(item, root) for item in schema.get("prefixItems") or [schema.get("items", {})]]
    inside = f"each {items[0]}" if len(set(items)) == 1 else ", ".join(items)
    return f"a list{size} ({inside})" if items[0] else f"a list{size}"


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
