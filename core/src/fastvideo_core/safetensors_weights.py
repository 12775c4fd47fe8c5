"""Weights in safetensors files, read tensor by tensor or row by row, for roles whose networks are on meta."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from fastvideo_core.errors import ConfigError, Problem, foreign_file

_DAMAGED = "download or copy the weights again"


class SafetensorsWeights:
    """A RowSource over folders of safetensors files, as diffusers and transformers write them.

    Nothing stays open or in memory between two reads.

    Args:
        folders: a folder by module; where an index file names several shards, it counts, else every file of the folder.
            Files of a variant (`model.fp16.safetensors`) count where there are no others.
        where: how errors name the place that gave the path, for example "roles.student.path".

    Raises:
        ConfigError: a folder holds no such files, or a damaged one.
    """

    def __init__(self, folders: Mapping[str, Path], *, where: str) -> None:
        self._where = where
        self._files = {module: self._located(Path(folder)) for module, folder in folders.items()}

    def tensor_names(self, module: str) -> Sequence[str]:
        """Names of the module's stored tensors."""
        return list(self._files[module])

    def read(self, module: str, name: str) -> Tensor:
        """One tensor, on the CPU, as it is stored."""
        path = self._files[module][name]
        with self._reading(path), safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
            return tensor

    def read_rows(self, module: str, name: str, start: int, stop: int) -> Tensor:
        """`read(module, name)[start:stop]`; the other rows are not read."""
        path = self._files[module][name]
        with self._reading(path), safe_open(path, framework="pt") as file:
            rows: Tensor = file.get_slice(name)[start:stop]
            return rows

    def _located(self, folder: Path) -> dict[str, Path]:
        found = _preferred([*folder.glob("[!.]*.safetensors.index.json"), *folder.glob("[!.]*.safetensors")])
        index = next((path for path in found if path.suffix == ".json"), None)
        if index is not None:
            with self._reading(index):
                shards: dict[str, Any] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
                return {name: folder / shard for name, shard in shards.items()}
        files: dict[str, Path] = {}
        for path in found:
            with self._reading(path), safe_open(path, framework="pt") as file:
                files.update(dict.fromkeys(file.keys(), path))
        if not files:
            raise ConfigError(Problem("holds no safetensors file", where=f"{self._where} ({folder})", fix=_DAMAGED))
        return files

    def _reading(self, path: Path) -> AbstractContextManager[None]:
        return foreign_file(f"{self._where} ({path})", "weights file", ConfigError, _DAMAGED)


def _preferred(files: Iterable[Path]) -> list[Path]:
    """Those of no variant, as diffusers and transformers choose them; all where each is of one."""
    ordered = sorted(files)
    return [path for path in ordered if "." not in path.name.partition(".safetensors")[0]] or ordered
