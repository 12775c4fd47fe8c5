"""Take nested state apart into tensors by key and a JSON skeleton, and put it together again."""

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, TypeAlias

from torch import Tensor

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_TENSOR, _TUPLE, _DICT, _FLOAT = "$tensor", "$tuple", "$dict", "$float"


def split(tree: Any) -> tuple[dict[str, Tensor], Json]:
    """Splits nested state into (tensors by dotted key, JSON skeleton with references to them).

    Allowed are dicts with str or int keys, lists, tuples, tensors, int, float (also nan and inf), str, bool and None; a
    TypeError names the path of anything else. The same structure always gives the same keys; `join` gives back equal values of
    the same types.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _split(tree, (), tensors)


def join(skeleton: Json, tensors: Mapping[str, Any]) -> Any:
    """The inverse of `split`; `tensors` may be anything that stands for them.

    Raises LookupError, TypeError or ValueError where this is no skeleton that `split` made, or a tensor is missing.
    """
    if isinstance(skeleton, list):
        return [join(item, tensors) for item in skeleton]
    if not isinstance(skeleton, dict):
        return skeleton
    tag = next((key for key in skeleton if key.startswith("$")), None)
    if tag is None:
        return {key: join(value, tensors) for key, value in skeleton.items()}
    content: Any = skeleton[tag]
    if tag == _TENSOR and isinstance(content, str):
        return tensors[content]
    if tag == _FLOAT and content in ("nan", "inf", "-inf"):
        return float(content)
    if tag == _TUPLE and isinstance(content, list):
        return tuple(join(item, tensors) for item in content)
    if tag == _DICT and isinstance(content, list):
        return {key: join(value, tensors) for key, value in content}
    raise ValueError(f"{tag}: {content!r} is not a part of a state skeleton")


def references(skeleton: Json) -> list[str]:
    """The keys of all tensors that a skeleton refers to."""
    if isinstance(skeleton, dict):
        if _TENSOR in skeleton:
            return [str(skeleton[_TENSOR])]
        skeleton = list(skeleton.values())
    return [key for item in skeleton for key in references(item)] if isinstance(skeleton, list) else []


def _split(node: Any, path: tuple[str | int, ...], tensors: dict[str, Tensor]) -> Json:
    if node is None or type(node) in (bool, int, str):
        return node  # type: ignore[no-any-return]
    if type(node) is float:
        return node if math.isfinite(node) else {_FLOAT: str(node)}
    if isinstance(node, Tensor):
        key = ".".join(map(str, path))
        while key in tensors:  # ("a.b", "c") and ("a", "b.c") read alike
            key += "'"
        tensors[key] = node.detach()
        return {_TENSOR: key}
    if type(node) in (list, tuple):
        items = [_split(item, (*path, index), tensors) for index, item in enumerate(node)]
        return items if type(node) is list else {_TUPLE: items}
    place = "state" + "".join(f"[{part!r}]" for part in path)
    if type(node) not in (dict, OrderedDict):
        raise TypeError(
            f"{place}: a {type(node).__module__}.{type(node).__qualname__} cannot go into a checkpoint; "
            "use dicts, lists, tuples, tensors, int, float, str, bool or None"
        )
    for key in node:
        if type(key) not in (str, int):
            raise TypeError(f"{place}: the key {key!r} is a {type(key).__name__}, not str or int")
    values = {key: _split(value, (*path, key), tensors) for key, value in node.items()}
    if all(type(key) is str and not key.startswith("$") for key in node):
        return values
    return {_DICT: [[key, value] for key, value in values.items()]}
