"""Read a YAML (or JSON) file safely, remembering the line and column of every key and item."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fastvideo_core.errors import ConfigError, Problem, foreign_file

KeyPath = tuple[Any, ...]
"""Keys and list indices from the top of a document to one value."""

_KEY_PARTS = re.compile(r"\[(\d+)\]|((?:(?!\[\d+\])[^.])+)")
_MAX_NODES = 100_000  # anchors can make a small file expand without end
_MAX_DIGITS = 60  # of a number; Python itself gives up reading or showing one of some thousands

_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"
_BASES = {"0o": 8, "0x": 16}
_FLOAT = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"

# The YAML 1.2 core schema: 2e-6 is a number, `no` and `on` are texts, 010 is ten.
_CORE_SCHEMA: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
    ("null", r"~|null|Null|NULL|", lambda text: None),
    ("bool", r"true|True|TRUE|false|False|FALSE", lambda text: text.lower() == "true"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", lambda text: int(text, _BASES.get(text[:2], 10))),
    ("float", _FLOAT, lambda text: float(re.sub(r"\.(?=[a-z])", "", text.lower()))),
    ("merge", r"<<", str),
)
_SCALARS = {_TAG + name: value for name, _, value in _CORE_SCHEMA} | {_TAG + "str": str}
_PATTERNS = {_TAG + name: re.compile(rf"(?:{pattern})\Z") for name, pattern, _ in _CORE_SCHEMA}


class _Loader(yaml.SafeLoader):
    """Reads scalars by the YAML 1.2 core schema."""


_Loader.yaml_implicit_resolvers = {}


class _Dumper(yaml.SafeDumper):
    """Quotes every text that either YAML 1.1 or 1.2 would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _class in (_Loader, _Dumper):
    for _tag, _pattern in _PATTERNS.items():
        _class.add_implicit_resolver(_tag, _pattern, None)


def dump_yaml(data: Any) -> str:
    """Plain data as YAML text that `read_document` reads back to equal data."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text


@dataclass(frozen=True)
class Document:
    """A file's plain data, where each part of it stands, and what is wrong with its form; the rest of it is usable.

    `positions` are (line, column), counted from 1, of every key and list item by its path; () is the document. Data that
    came from no file have none.
    """

    source: str
    data: Any
    positions: Mapping[KeyPath, tuple[int, int]]
    problems: tuple[tuple[KeyPath, Problem], ...] = ()

    def position(self, path: KeyPath) -> tuple[int, int]:
        """Line and column of `path`, or of the nearest part above it that is in the file."""
        while path not in self.positions and path:
            path = path[:-1]
        return self.positions.get(path, (1, 1))

    def where(self, path: KeyPath) -> str:
        """`file:line dotted.key` of a path; the key alone of data that came from no file."""
        if not self.positions:
            return dotted(path) or self.source
        place = f"{self.source}:{self.position(path)[0]}"
        return f"{place} {dotted(path)}" if path else place


def dotted(path: KeyPath) -> str:
    """("roles", "student", "betas", 0) as "roles.student.betas[0]"."""
    parts = (f"[{part}]" if type(part) is int else f".{part}" for part in path)
    return "".join(parts).removeprefix(".")


def key_path(key: str) -> KeyPath:
    """The inverse of `dotted`."""
    return tuple(int(index) if index else name for index, name in _KEY_PARTS.findall(key))


def read_document(path: str | Path) -> Document:
    """Read one YAML file, or a JSON file if its name ends in .json; raises ConfigError that names file and line."""
    source = str(path)
    with foreign_file(source, "YAML file", ConfigError):
        try:
            text = Path(path).expanduser().read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            raise ConfigError(Problem("there is no such file", where=source, fix="check the path")) from None
        except IsADirectoryError:
            raise ConfigError(Problem("this is a folder", where=source, allowed="a YAML file")) from None
        except UnicodeDecodeError as error:
            raise ConfigError(Problem(f"this is not UTF-8 text: {error.reason}", where=source)) from None
    return parse_document(text.replace("\t", " ") if source.endswith(".json") else text, source)


def parse_document(text: str, source: str) -> Document:
    """Parse YAML text; see `read_document`."""
    with foreign_file(source, "YAML file", ConfigError):
        try:
            node = yaml.compose(text, _Loader)
        except yaml.MarkedYAMLError as error:
            raise ConfigError(_syntax_problem(error, source, text)) from None
        if node is None:
            return Document(source, None, {(): (1, 1)})
        reader = _NodeReader(source)
        data = reader.read(node, ())
        return Document(source, data, reader.positions, tuple(reader.problems))


def _syntax_problem(error: yaml.MarkedYAMLError, source: str, text: str) -> Problem:
    mark, context, found = error.problem_mark, error.context_mark, error.problem or ""
    assert mark is not None, "every error in a text has its place"
    if found.startswith("but "):
        found = f"{error.context}, {found}"
    elif context is not None and context.line < mark.line:
        found += f", {error.context} that begins in line {context.line + 1}"
    line = "".join(text.splitlines()[mark.line : mark.line + 1])
    place = f"column {mark.column + 1}" + (f": {line.strip()!r}" if line.strip() else "")
    fix = "check indentation, quotes, brackets and the space after each colon"
    fix = "indent with spaces: YAML does not allow tabs" if "\t" in line else fix
    return Problem(f"this is not YAML: {found} ({place})", where=f"{source}:{mark.line + 1}", fix=fix)


class _NodeReader:
    """Turns composed nodes into plain data, noting positions and problems on the way."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.positions: dict[KeyPath, tuple[int, int]] = {}
        self.problems: list[tuple[KeyPath, Problem]] = []
        self._count = 0

    def read(self, node: yaml.Node, path: KeyPath) -> Any:
        self.positions.setdefault(path, _place(node))
        self._count += 1
        if self._count > _MAX_NODES:
            found = f"more than {_MAX_NODES} values once its anchors are expanded"
            raise ConfigError(Problem(found, where=self.source))
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.read(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
            return self._scalar(node, path)
        found = f"the YAML tag {node.tag.replace(_TAG, '!!')} is not allowed"
        return self._note(node, path, found, fix="write plain values, lists and mappings without tags")

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        kind, text = node.tag.removeprefix(_TAG), str(node.value)
        if kind == "str":
            try:  # JSON writes one character beyond U+FFFF as two halves, which YAML takes for two characters
                return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
            except UnicodeDecodeError:
                return self._note(node, path, f"half a character in {text!r} is not allowed")
        if not _PATTERNS[node.tag].match(text):
            return self._note(node, path, f"{text!r} tagged as {kind} is not allowed")
        if kind in ("int", "float") and len(text) > _MAX_DIGITS:
            found = f"a number of {len(text)} characters is not allowed"
            return self._note(node, path, found, fix="write fewer digits")
        return _SCALARS[node.tag](text)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[Any, Any]:
        data: dict[Any, Any] = {}
        own = [pair for pair in node.value if pair[0].tag != _MERGE]
        for pairs, must_be_new in ((own, True), (self._merged(node, path), False)):
            for key_node, value_node in pairs:
                inner = (*path, key := self._key(key_node, path))
                if key is not None and key not in data:
                    self.positions[inner] = _place(key_node)
                    data[key] = self.read(value_node, inner)
                elif key is not None and must_be_new:
                    found = f"the key {key!r} is written twice, first in line {self.positions[inner][0]}"
                    self._note(key_node, inner, found, fix="keep one of the two")
        return data

    def _merged(self, node: yaml.MappingNode, path: KeyPath) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        """Keys and values of the mappings that `<<` names."""
        for value in (value for key, value in node.value if key.tag == _MERGE):
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(source, yaml.MappingNode):
                    self._note(value, (*path, "<<"), "<< merges something that is not a mapping")
                elif any(key.tag == _MERGE for key, _ in source.value):
                    self._note(value, (*path, "<<"), "<< merges a mapping that itself has <<", fix="write the keys out")
                else:
                    yield from source.value

    def _key(self, node: yaml.Node, path: KeyPath) -> Any:
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS and node.tag != _TAG + "null":
            return self._scalar(node, path)
        return self._note(node, path, "a key that is not a plain name", fix="write `name: value`")

    def _note(self, node: yaml.Node, path: KeyPath, found: str, fix: str = "") -> None:
        where = f"{self.source}:{node.start_mark.line + 1}"
        self.problems.append((path, Problem(found, where=f"{where} {dotted(path)}" if path else where, fix=fix)))


def _place(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1
