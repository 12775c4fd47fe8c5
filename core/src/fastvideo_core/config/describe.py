"""Options of a config class in words: for `fastvideo-distill schema` and for what error messages say is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import to_jsonable_python

from fastvideo_core.config.base import plain

_PLURALS = {
    "a whole number": "whole numbers",
    "a number": "numbers",
    "text": "texts",
    "non-empty text": "non-empty texts",
    "true or false": "booleans",
    "a mapping": "mappings",
    "a list": "lists",
}


@dataclass(frozen=True)
class Option:
    """One option of a section.

    Attributes:
        allowed: type, range or choices, in words.
        default: as JSON knows it; meaningless where `required`.
    """

    name: str
    allowed: str
    required: bool
    default: Any
    meaning: str


def options(model: type[BaseModel]) -> tuple[Option, ...]:
    """Every option of a config class, in the order of its fields."""
    schema = json_schema(model)
    fields = resolve(schema, schema).get("properties", {})
    rows = []
    for name, info in model.model_fields.items():
        field = fields.get(name, {})
        default = None if info.is_required() else plain(info.get_default(call_default_factory=True, validated_data={}))
        meaning = info.description or ""
        rows.append(
            Option(
                name,
                describe(field, schema),
                info.is_required(),
                to_jsonable_python(default, fallback=str),
                meaning,
            )
        )
    return tuple(rows)


def all_options(model: type[BaseModel]) -> tuple[Option, ...]:
    """Every option, each followed by those inside it: `outer.inner`, `list[].inner`, `mapping.<key>.inner`."""
    root = json_schema(model)
    fields = resolve(root, root).get("properties", {})
    rows: list[Option] = []
    for option in options(model):
        rows.append(option)
        rows += _inside(option.name, fields.get(option.name, {}), root, ())
    return tuple(rows)


def _inside(place: str, schema: dict[str, Any], root: dict[str, Any], seen: tuple[str, ...]) -> Iterator[Option]:
    """The options of the classes at a place, one that holds itself only once."""
    if (reference := schema.get("$ref")) is not None:
        if reference in seen:
            return
        seen = (*seen, reference)
    schema = resolve(schema, root)
    for branch in branches(schema):
        yield from _inside(place, branch, root, seen)
    for name, field in schema.get("properties", {}).items():
        inner, required = f"{place}.{name}", name in schema.get("required", ())
        yield Option(inner, describe(field, root), required, field.get("default"), field.get("description", ""))
        yield from _inside(inner, field, root, seen)
    if isinstance(items := schema.get("items"), dict):
        yield from _inside(f"{place}[]", items, root, seen)
    if isinstance(values := schema.get("additionalProperties"), dict):
        yield from _inside(f"{place}.<key>", values, root, seen)


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of what may be written; {} where a plug-in uses types that JSON schema cannot say."""
    try:
        return model.model_json_schema(mode="validation")
    except PydanticInvalidForJsonSchema:
        return {}


def allowed_at(model: type[BaseModel], path: Sequence[Any]) -> str:
    """What may stand at a path below a config class, in words; "" when that cannot be said."""
    root = json_schema(model)
    schema = root
    for part in path:
        step = _child(resolve(schema, root), part, root)
        if step is None:
            break
        schema = step
    return describe(schema, root) if schema is not root else ""


def keys_at(model: type[BaseModel], path: Sequence[Any]) -> list[str]:
    """Names of the options at a path below a config class."""
    root = json_schema(model)
    if not path:
        return list(model.model_fields)
    schema = root
    for part in path:
        schema = _child(resolve(schema, root), part, root) or {}
    schema = resolve(schema, root)
    known = [resolve(branch, root) for branch in branches(schema) or [schema]]
    return list(dict.fromkeys(name for branch in known for name in branch.get("properties", ())))


def describe(schema: dict[str, Any], root: dict[str, Any]) -> str:
    """A JSON schema in words, such as "a whole number >= 1 or null".

    Args:
        root: the schema that holds the definitions which `schema` refers to.
    """
    schema = resolve(schema, root)
    if several := branches(schema):
        texts = list(dict.fromkeys(text for branch in several if (text := describe(branch, root))))
        return (", or " if any("," in text for text in texts) else " or ").join(texts)
    if "const" in schema:
        return _show(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(_show(value) for value in schema["enum"])
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return ("a whole number" if kind == "integer" else "a number") + _range(schema)
    if kind == "string":
        return _text(schema)
    if kind == "array":
        return _array(schema, root)
    return {"boolean": "true or false", "null": "null", "object": "a mapping"}.get(str(kind), "")


def _child(schema: dict[str, Any], part: Any, root: dict[str, Any]) -> dict[str, Any] | None:
    for branch in branches(schema):
        found = _child(resolve(branch, root), part, root)
        if found is not None:
            return found
    found_any: Any = schema.get("properties", {}).get(part)
    if found_any is None and isinstance(part, int):
        prefix = schema.get("prefixItems", [])
        found_any = prefix[part] if part < len(prefix) else schema.get("items")
    if found_any is None and isinstance(part, str) and "properties" not in schema:
        found_any = schema.get("additionalProperties")
    return found_any if isinstance(found_any, dict) else None


def branches(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The schemas of which a value satisfies one; [] where there is but one way."""
    return [*schema.get("anyOf", ()), *schema.get("oneOf", ())]


def resolve(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """The definition that a schema refers to, or the schema itself."""
    while "$ref" in schema:
        schema = root.get("$defs", {})[schema["$ref"].rpartition("/")[2]]
    return schema


def _range(schema: dict[str, Any]) -> str:
    low, above = _limit(schema, "minimum"), _limit(schema, "exclusiveMinimum")
    high, below = _limit(schema, "maximum"), _limit(schema, "exclusiveMaximum")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    limits = [(">=", low), (">", above), ("<=", high), ("<", below)]
    if below is not None and isinstance(below, int) and below >= 2**31:
        limits[-1] = ("<", f"2**{below.bit_length() - 1}")
    parts = [f"{sign} {limit}" for sign, limit in limits if limit is not None]
    return " " + " and ".join(parts) if parts else ""


def _limit(schema: dict[str, Any], key: str) -> Any:
    """A limit as it was declared: pydantic before 2.8 makes a 0 of a float field 0.0."""
    limit = schema.get(key)
    return int(limit) if isinstance(limit, float) and limit.is_integer() else limit


def _text(schema: dict[str, Any]) -> str:
    if schema.get("examples"):
        return "a text such as " + " or ".join(f'"{example}"' for example in schema["examples"])
    if "pattern" in schema:
        return f"text that matches {schema['pattern']}"
    return "non-empty text" if schema.get("minLength") == 1 else "text"


def _array(schema: dict[str, Any], root: dict[str, Any]) -> str:
    prefix = [describe(item, root) for item in schema.get("prefixItems", ())]
    if prefix and len(set(prefix)) == 1:
        return f"a list of {len(prefix)} {_plural(prefix[0])}"
    if prefix:
        return f"a list of ({', '.join(prefix)})"
    items = schema.get("items")
    few, many = schema.get("minItems"), schema.get("maxItems")
    text = "a non-empty list" if few == 1 and many is None else "a list"
    text += f" of {_plural(describe(items, root))}" if isinstance(items, dict) and items else ""
    if few is not None and few == many:
        return f"{text}, exactly {few}"
    text += f", at least {few}" if few and few > 1 else ""
    return text + (f", at most {many}" if many is not None else "")


def _plural(text: str) -> str:
    if text.startswith("one of "):
        return "any of " + text.removeprefix("one of ")
    for one, many in _PLURALS.items():
        if text.startswith(one):
            return many + text[len(one) :]
    return f"({text})" if text else "values"


def _show(value: Any) -> str:
    return (
        str(value) if isinstance(value, str) else {True: "true", False: "false", None: "null"}.get(value, repr(value))
    )
