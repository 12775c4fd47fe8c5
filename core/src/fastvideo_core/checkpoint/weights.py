"""A role's trained weights out of a checkpoint, for sampling, export and the start of another run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastvideo_core.checkpoint import storage
from fastvideo_core.checkpoint.stored_state import StoredState, StoredTensor
from fastvideo_core.config.document import read_document as read_yaml


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint's folder holds: names of the stored roles' modules by role, which role another one was copied from by the
    method, stored roles that have EMA weights, and the resolved run.yaml as plain data."""

    path: Path
    roles: Mapping[str, tuple[str, ...]]
    copies: Mapping[str, str]
    ema_roles: tuple[str, ...]
    config: Mapping[str, Any]


def describe(path: str | Path) -> CheckpointInfo:
    """What is in a checkpoint (or in the newest of a run's folder), without reading a tensor; raises as StoredState does."""
    stored = StoredState(storage.resolve_checkpoint(path))
    storage.check_files(stored.folder, [storage.RUN_CONFIG], stored.document)
    with stored.understood():
        roles = {role: tuple(modules) for role, modules in stored.tree["roles"].items()}
        ema_roles = tuple(role for role in roles if role in _averages(stored))
        config = read_yaml(stored.folder / storage.RUN_CONFIG).data or {}
        return CheckpointInfo(stored.folder, roles, dict(stored.tree["copies"]), ema_roles, config)


def read_role_weights(path: str | Path, role: str, *, ema: bool) -> dict[str, dict[str, Tensor]]:
    """Parameters and buffers of a role as module -> name -> CPU tensor in the trained dtype; see `CheckpointWeights`."""
    weights = CheckpointWeights(path, role, ema=ema)
    return {
        module: {name: tensor.to(trained[name].dtype) for name, tensor in weights.read_some(module, trained).items()}
        for module, trained in weights.trained.items()
    }


class CheckpointWeights:
    """A WeightSource: a stored role's whole networks, one tensor in memory at a time; `ema`: averages where there are some (all
    trained parameters), as validation does. Raises CheckpointError where the checkpoint is damaged.
    """

    def __init__(self, path: str | Path, role: str, *, ema: bool) -> None:
        self._stored = stored = StoredState(storage.resolve_checkpoint(path))
        with stored.understood():
            roles, averages = stored.tree["roles"], _averages(stored) if ema else {}
            assert role in (averages if ema else roles), f"{stored.folder} holds no such weights of '{role}'"
            self.trained = {name: _tensors(trained) for name, trained in roles[role].items()}
            averaged = averages.get(role, {})
            self._chosen = {name: plain | _tensors(averaged.get(name, {})) for name, plain in self.trained.items()}
        keys = [one.key for tensors in self._chosen.values() for one in tensors.values()]
        files = [f"{storage.TENSORS}/{file}" for file in stored.tensors.files(keys)]
        storage.check_files(stored.folder, files, stored.document)

    def tensor_names(self, module: str) -> Sequence[str]:
        """Names of the module's stored tensors."""
        return list(self._chosen.get(module, {}))

    def read(self, module: str, name: str, rows: slice | None = None) -> Tensor:
        """One tensor, or some of its rows."""
        tensor = self.read_some(module, [name])[name]
        return tensor if rows is None else tensor[rows]

    def read_some(self, module: str, names: Iterable[str]) -> dict[str, Tensor]:
        """Tensors read by this process alone."""
        wanted = {name: self._chosen[module][name] for name in names}
        tensors = {name: torch.empty(one.shape, dtype=one.dtype) for name, one in wanted.items()}
        self._stored.tensors.read({wanted[name].key: tensor for name, tensor in tensors.items()}, every_rank_alone=True)
        return tensors


def _tensors(entries: Mapping[str, Any]) -> dict[str, StoredTensor]:
    for name, entry in entries.items():
        if not isinstance(entry, StoredTensor):
            raise TypeError(f"'{name}' is no tensor but {type(entry).__name__}")
    return dict(entries)


def _averages(stored: StoredState) -> dict[str, Any]:
    """The averaged weights by role."""
    ema = stored.tree["callbacks"].get("ema", {})
    averages: dict[str, Any] = ema["shadow"] if ema.get("started") else {}
    return averages
