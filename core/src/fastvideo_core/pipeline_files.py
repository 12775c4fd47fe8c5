"""Whether the folder of a pipeline is whole: its sub-folders, its JSON files, its weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open

from fastvideo_core.errors import ConfigError, Problem

DAMAGED = "download or copy the pipeline again"
"""The fix of errors about files that cannot be read."""

INDEX = "*.safetensors.index.json"
WEIGHTS = "*.safetensors"


def check_files(folder: Path, components: Sequence[str], weighted: Sequence[str], *, where: str) -> None:
    """Every component has its sub-folder, and its weights are complete.

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
    problems = []
    for name in components:
        for file in sorted((Path(path) / name).glob("*.json")):
            try:
                json.loads(file.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                problems.append(Problem(f"{name}/{file.name} is no valid JSON: {error}", place, fix=DAMAGED))
        for file in sorted((Path(path) / name).glob(WEIGHTS)):
            try:
                with safe_open(file, framework="pt"):
                    pass
            except (OSError, SafetensorError) as error:
                found = f"{name}/{file.name} is no whole safetensors file: {error}"
                problems.append(Problem(found, place, fix=DAMAGED))
    if problems:
        raise ConfigError(problems)


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


def _shards(index: Path, where: str) -> list[str]:
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found = f"{index.parent.name}/{index.name} is no valid JSON: {error}"
        raise ConfigError(Problem(found, where, fix=DAMAGED)) from error
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not all(isinstance(shard, str) for shard in names.values()):
        found = f"{index.parent.name}/{index.name} has no weight_map"
        raise ConfigError(Problem(found, where, allowed="a mapping from tensors to files", fix=DAMAGED))
    return sorted(set(names.values()))
