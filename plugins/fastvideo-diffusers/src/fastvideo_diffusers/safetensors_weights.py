"""Weights in safetensors files, read tensor by tensor or row by row, for roles whose networks are on meta."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn

from fastvideo_core.errors import ConfigError, Problem, foreign_file
from fastvideo_diffusers.pipeline_files import DAMAGED, HEADERS, weight_map

_DAMAGED = "download or copy the weights again"


class SafetensorsWeights:
    """A WeightSource over folders of safetensors files, as diffusers and transformers write them.

    Nothing stays open or in memory between two reads.

    Args:
        folders: a folder, or a file, by module; where an index file names several shards, it counts, else every file of the
            folder. Files of a variant (`model.fp16.safetensors`) count where there are no others.
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

    def shapes(self, module: str) -> dict[str, tuple[int, ...]]:
        """The shape of each of the module's stored tensors; only the files' headers are read."""
        names: dict[Path, list[str]] = {}
        for name, path in self._files[module].items():
            names.setdefault(path, []).append(name)
        found: dict[str, tuple[int, ...]] = {}
        for path, held in names.items():
            with self._reading(path), safe_open(path, framework=HEADERS) as file:
                found |= {name: tuple(file.get_slice(name).get_shape()) for name in held}
        return found

    def read(self, module: str, name: str, rows: slice | None = None) -> Tensor:
        """One tensor, on the CPU, as it is stored; or some of its rows, and the others are not read."""
        path = self._files[module][name]
        with self._reading(path), safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name) if rows is None else file.get_slice(name)[rows]
            return tensor

    def _located(self, folder: Path) -> dict[str, Path]:
        inside = [*folder.glob("[!.]*.safetensors.index.json"), *folder.glob("[!.]*.safetensors")]
        found = [folder] if folder.is_file() else _preferred(inside)
        index = next((path for path in found if path.suffix == ".json"), None)
        if index is not None:
            shards = weight_map(index, where=f"{self._where} ({folder.parent})")
            return {name: folder / shard for name, shard in shards.items()}
        files: dict[str, Path] = {}
        for path in found:
            with self._reading(path), safe_open(path, framework=HEADERS) as file:
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


def check_fit(network: nn.Module, folder: Path, *, where: str, whole: bool = True) -> None:
    """The weights in a folder are those of a network, as far as the headers of their files can tell.

    Args:
        network: on meta, as config.json describes it.
        where: how errors name the folder; its path is added.
        whole: also that neither has tensors which the other lacks. Not for libraries that rename tensors when they load.

    Raises:
        ConfigError: they are not, or a file is damaged.
    """
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    stored = SafetensorsWeights({"": folder}, where=where).shapes("")
    ignored = tuple(getattr(network, "_keys_to_ignore_on_load_unexpected", None) or ())
    differing = [name for name in own.keys() & stored.keys() if own[name] != stored[name]]
    report: dict[str, Collection[str]] = {
        "mismatched_keys": [
            f"{name} ({list(stored[name])} stored, {list(own[name])} by config.json)" for name in differing
        ]
    }
    if whole:
        report["missing_keys"] = own.keys() - stored.keys()
        report["unexpected_keys"] = {
            name for name in stored.keys() - own.keys() if not any(re.search(pattern, name) for pattern in ignored)
        }
    check_complete(report, f"{where} ({folder})")


def check_complete(report: Mapping[str, Collection[Any]], where: str) -> None:
    """Weights and configuration name the same tensors.

    Args:
        report: names by `missing_keys`, `mismatched_keys` and `unexpected_keys`, as diffusers and transformers give them.
        where: how errors name the folder.

    Raises:
        ConfigError: they differ.
    """
    problems = []
    for kind in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        names = sorted(map(str, report.get(kind) or ()))
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            found = f"{len(names)} {kind.removesuffix('_keys')} tensors: {shown}"
            problems.append(Problem(found, where, fix=f"weights and config.json differ: {DAMAGED}"))
    if problems:
        raise ConfigError(problems)
