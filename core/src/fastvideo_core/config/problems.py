"""Turn what pydantic finds in a section into problems with file, line and key, and collect them all."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ValidationError

from fastvideo_core.config.describe import allowed_at, keys_at
from fastvideo_core.config.document import Document, KeyPath
from fastvideo_core.config.foreign_names import fix_of_foreign_name
from fastvideo_core.errors import ConfigError, Problem, did_you_mean

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


class ProblemCollector:
    """All problems of a run.yaml and the files it names, the first at each place, raised together in the order of the files."""

    def __init__(self) -> None:
        self._documents: list[Document] = []
        self._found: dict[tuple[int, KeyPath], Problem] = {}  # by the document's index and the place in it

    def add_document(self, document: Document) -> None:
        """Problems of a document's form come along."""
        self._documents.append(document)
        for path, problem in document.problems:
            self.add(document, path, problem)

    def add(self, document: Document, path: KeyPath, problem: Problem) -> None:
        """Note a problem about the value at `path`; an empty `problem.where` becomes file, line and key."""
        index = next(index for index, known in enumerate(self._documents) if known is document)
        placed = problem if problem.where else replace(problem, where=document.where(path))
        self._found.setdefault((index, path), placed)

    def raise_if_any(self) -> None:
        """Raises ConfigError with every problem that was noted."""
        if self._found:
            in_order = sorted(self._found, key=lambda at: (at[0], self._documents[at[0]].position(at[1])))
            raise ConfigError(self._found[place] for place in in_order)

    def touches(self, path: KeyPath) -> bool:
        """Whether something was noted at `path` or below it, in any document."""
        return any(place[: len(path)] == path for _, place in self._found)


def validation_problems(
    error: ValidationError, model: type[BaseModel], data: Any, section: str
) -> list[tuple[KeyPath, Problem]]:
    """The problems of one section (`training`, say), whose plain data `model` refused; each with its path below it."""
    found: dict[KeyPath, Problem] = {}
    for item in error.errors(include_url=False):
        path = _data_path(item["loc"], data, missing=item["type"] == "missing")
        if item["type"] == "too_short" and any(known[: len(path)] == path for known in found):
            continue  # pydantic counts the items that it refused as absent
        found.setdefault(path, _problem(item["type"], item["msg"], path, model, data, section))
    return list(found.items())


def unknown_key(key: Any, allowed: Iterable[str], section: str, present: Iterable[Any] = ()) -> Problem:
    """A key that nobody reads: mistyped (hardly for one that is `present` too), of another section, or of another trainer."""
    names = sorted(allowed)
    guess = did_you_mean(key, [name for name in names if name not in present], otherwise="remove it")
    fix = fix_of_foreign_name(key, section) or guess
    return Problem(f"unknown key {key!r}", allowed=", ".join(names) or f"{section} has no options", fix=fix)


def show(value: Any) -> str:
    """A value as the user wrote it, with its type where that may be what is wrong."""
    if isinstance(value, str):
        return f"{_short(repr(value))} (text)"
    if isinstance(value, dict):
        return f"a mapping with {_short(', '.join(map(str, value)))}" if value else "an empty mapping"
    if isinstance(value, bool):
        return f"{str(value).lower()} (a boolean)"
    kinds = {int: "a whole number", float: "a number", list: "a list"}
    if type(value) in kinds:
        return f"{_short(str(value))} ({kinds[type(value)]})"
    return "null" if value is None else _short(repr(value))


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def _data_path(loc: Sequence[Any], data: Any, *, missing: bool) -> KeyPath:
    """pydantic's location without the names of union branches and validators, which are not in the file."""
    path: list[Any] = []
    for index, part in enumerate(loc):
        known = dict(enumerate(data)) if isinstance(data, (list, tuple)) else data if isinstance(data, dict) else {}
        if part not in known:  # pydantic names a key that is no text by its text
            part = next((key for key in known if str(key) == str(part)), part)
        if part in known:
            path.append(part)
            data = known[part]
        elif missing and index == len(loc) - 1:
            path.append(part)
    return tuple(path)


def _at(data: Any, path: KeyPath) -> Any:
    for part in path:
        data = data[part]
    return data


def _problem(kind: str, message: str, path: KeyPath, model: type[BaseModel], data: Any, section: str) -> Problem:
    if kind == "missing":
        return Problem("missing", allowed=allowed_at(model, path), fix=f"add `{path[-1]}: ...` under {section}")
    if kind in ("extra_forbidden", "invalid_key"):
        return unknown_key(path[-1], keys_at(model, path[:-1]), section, present=_at(data, path[:-1]))
    value = _at(data, path)
    if kind in ("value_error", "assertion_error"):  # said by the section's own validators
        said = message.partition(", ")[2] or message
        return Problem(f"{said} (found {show(value)})" if path else said)
    if kind in ("model_type", "model_attributes_type", "dict_type") and not path:
        return Problem(f"found {show(value)}", allowed="a mapping of options")
    allowed = allowed_at(model, path) or message
    return Problem(f"found {show(value)}", allowed=allowed, fix=_hint(kind, value, allowed))


def _hint(kind: str, value: Any, allowed: str) -> str:
    if isinstance(value, str):
        if "number" in allowed and "such as" not in allowed and _NUMBER.fullmatch(value.strip().replace("_", "")):
            return f"write it without quotes{' and underscores' if '_' in value else ''}: {value.replace('_', '')}"
        if "true or false" in allowed and value.lower() in ("true", "false", "yes", "no", "on", "off"):
            return f"write {'true' if value.lower() in ('true', 'yes', 'on') else 'false'}, without quotes"
        if "list" in allowed and kind in ("tuple_type", "list_type"):
            return f"write a list: [{value}]"
        if allowed.startswith("one of "):
            return did_you_mean(value, allowed.removeprefix("one of ").split(", "))
    if kind == "finite_number":
        return "write a finite number"
    if isinstance(value, float) and value.is_integer() and "whole number" in allowed:
        return f"write {int(value)}"
    if kind == "string_type" and isinstance(value, (int, float)):
        return "write it in quotes"
    return ""
