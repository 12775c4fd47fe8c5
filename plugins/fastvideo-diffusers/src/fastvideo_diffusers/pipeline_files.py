"""Whether the folder of a pipeline is whole: its sub-folders, its JSON files, its weights."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import safe_open

from fastvideo_core.errors import ConfigError, Problem, foreign_file

DAMAGED = "download or copy the pipeline again"
"""The fix of errors about files that cannot be read."""

INDEX = "[!.]*.safetensors.index.json"
WEIGHTS = "[!.]*.safetensors"
JSON = "[!.]*.json"
HEADERS = "np"
"""How `safe_open` reads headers alone: for torch it maps the file for writing, which fails where it is larger than the memory."""

_MOST = ((re.compile(r"layers|num_.*blocks|depth"), 1000), (re.compile(r"max_seq_len|max_position|timesteps"), 2**21))
"""Counts that a network is built by, part by part, before any weight could contradict them."""

_LONGEST_NAME = 255  # bytes that a file system takes


def check_files(folder: Path, components: Sequence[str], weighted: Sequence[str], *, where: str) -> None:
    """Every component has its sub-folder, a readable configuration where it has any, and complete weights.

    Args:
        components: names of the sub-folders.
        weighted: those of them that hold weights.
        where: how errors name the folder.

    Raises:
        ConfigError: naming everything that is missing.
    """
    problems = [
        Problem(f"has no subfolder {name}/", where, allowed=f"all of {', '.join(components)}")
        for name in components
        if not (folder / name).is_dir()
    ]
    for name in components:
        for file in sorted((folder / name).glob(JSON)):
            if file.name.endswith("config.json"):
                problems += _problems_of(_check_counts, file, where)
    for index in sorted(folder.glob(f"*/{INDEX}")):
        problems += [
            Problem(f"{index.parent.name}/{shard} is missing, which {index.name} names", where, fix=DAMAGED)
            for shard in _shards(index, where)
            if not (index.parent / shard).is_file()
        ]
    for name in weighted:
        if (folder / name).is_dir() and not any((folder / name).glob(WEIGHTS)):
            problems.append(Problem(f"{name}/ holds no safetensors file", where, fix="convert the weights first"))
    if problems:
        raise ConfigError(problems)


def check_undamaged(path: str, components: Sequence[str], *, where: str) -> None:
    """Reads every JSON file and the header of every weights file of a pipeline's folder; nothing to do for a hub id.

    Raises:
        ConfigError: naming each file that is damaged.
    """
    place = f"{where} ({path})"
    problems: list[Problem] = []
    for name in components:
        for file in sorted((Path(path) / name).glob(JSON)):
            problems += _problems_of(_read_object, file, place)
        for file in sorted((Path(path) / name).glob(WEIGHTS)):
            problems += _problems_of(_read_header, file, place)
    if problems:
        raise ConfigError(problems)


def _problems_of(read: Callable[[Path, str], object], file: Path, where: str) -> tuple[Problem, ...]:
    try:
        read(file, where)
    except ConfigError as error:
        return error.problems
    return ()


def _read_object(file: Path, where: str) -> dict[str, Any]:
    place = f"{where}: {file.parent.name}/{file.name}"
    with foreign_file(place, "JSON", ConfigError, DAMAGED):
        state = file.stat()
        content = _parsed(file, state.st_mtime_ns, state.st_size)
        if not isinstance(content, dict):
            raise ConfigError(Problem("holds no JSON object", place, fix=DAMAGED))
        return dict(content)


@lru_cache(maxsize=512)
def _parsed(file: Path, changed: int, size: int) -> Any:
    """The content of a file in this state: a pipeline's JSON is looked at by many, and parsed once."""
    return json.loads(file.read_text(encoding="utf-8"))


def component_config(kind: Any, path: str, subfolder: str | None) -> dict[str, Any]:
    """A component's configuration, or the pipeline's index (subfolder None), as `kind.load_config` gives it.

    Args:
        kind: a class of diffusers with a configuration.
        path: folder or hub id.
    """
    file = Path(path, subfolder or "", kind.config_name)
    with suppress(OSError, ValueError):  # what is wrong is said as the library says it
        state = file.stat()
        content = _parsed(file, state.st_mtime_ns, state.st_size)
        if isinstance(content, dict):
            return dict(content)
    config: dict[str, Any] = kind.load_config(path, subfolder=subfolder)
    return config


def _read_header(file: Path, where: str) -> None:
    guard = foreign_file(f"{where}: {file.parent.name}/{file.name}", "safetensors file", ConfigError, DAMAGED)
    with guard, safe_open(file, framework=HEADERS):
        pass


def _check_counts(file: Path, where: str) -> None:
    place = f"{where}: {file.parent.name}/{file.name}"
    problems = [
        Problem(f"{key} is {number}", place, allowed=f"{most} or less", fix=DAMAGED)
        for key, number in _numbers(_read_object(file, where), "")
        for pattern, most in _MOST
        if pattern.search(key) and number > most
    ]
    if problems:
        raise ConfigError(problems)


def _numbers(value: object, key: str) -> Iterator[tuple[str, float]]:
    """Every number, by the nearest key above it."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner, key)
    elif isinstance(value, int | float):
        yield key, value


def has_weights(folder: Path, *, where: str) -> bool:
    """Whether all weights files of a component are there.

    Args:
        folder: the component's sub-folder, which may be absent.
        where: how errors name the pipeline.

    Raises:
        ConfigError: an index file is damaged.
    """
    shards = [shard for index in sorted(folder.glob(INDEX)) for shard in _shards(index, where)]
    return all((folder / shard).is_file() for shard in shards) if shards else any(folder.glob(WEIGHTS))


def weight_map(index: Path, *, where: str) -> dict[str, str]:
    """The file of every tensor that an index names, each beside the index.

    Raises:
        ConfigError: the index is damaged, or names a file elsewhere.
    """
    names = _read_object(index, where).get("weight_map")
    place = f"{where}: {index.parent.name}/{index.name}"
    if not isinstance(names, dict) or not all(isinstance(shard, str) for shard in names.values()):
        raise ConfigError(Problem("has no weight_map", place, "a mapping from tensors to files", DAMAGED))
    for shard in names.values():
        if not shard or Path(shard).name != shard or len(shard.encode(errors="replace")) > _LONGEST_NAME:
            found = f"names {shard[:100]!r} as a file of weights"
            raise ConfigError(Problem(found, place, "plain names of files beside it", DAMAGED))
    return names


def _shards(index: Path, where: str) -> list[str]:
    return sorted(set(weight_map(index, where=where).values()))
