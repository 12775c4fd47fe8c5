"""A role's trained weights out of a checkpoint, for sampling, export and the start of another run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastvideo_core.checkpoint import storage
from fastvideo_core.checkpoint.document import CheckpointDocument, check_files
from fastvideo_core.checkpoint.tensors import StoredTensors
from fastvideo_core.checkpoint.tree import join
from fastvideo_core.config.document import read_document as read_yaml
from fastvideo_core.errors import CheckpointError, Problem, foreign_file


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint holds.

    Args:
        path: the checkpoint's own folder.
        roles: names of the stored roles' modules by role.
        copies: of stored roles that the method made by copying another one's networks, that other one.
        ema_roles: stored roles that have EMA weights.
        config: the resolved run.yaml as plain data.
    """

    path: Path
    roles: Mapping[str, tuple[str, ...]]
    copies: Mapping[str, str]
    ema_roles: tuple[str, ...]
    config: Mapping[str, Any]


def describe(path: str | Path) -> CheckpointInfo:
    """What is in a checkpoint (or in the newest of a run's folder), without reading a tensor.

    Raises:
        CheckpointError: there is none, or it is incomplete, damaged or of another format.
    """
    folder = storage.resolve_checkpoint(path)
    document = storage.read_document(folder)
    check_files(folder, [storage.RUN_CONFIG], document)
    with _understood(folder):
        state, averages = _state(document, StoredTensors(folder / storage.TENSORS))
        roles = {role: tuple(modules) for role, modules in state["roles"].items()}
        ema_roles = tuple(role for role in roles if role in averages)
        config = read_yaml(folder / storage.RUN_CONFIG).data or {}
        return CheckpointInfo(folder, roles, dict(state["copies"]), ema_roles, config)


def read_role_weights(path: str | Path, role: str, *, ema: bool) -> dict[str, dict[str, Tensor]]:
    """Parameters and buffers of a role as module -> name -> CPU tensor in the trained dtype; see `CheckpointWeights`."""
    weights = CheckpointWeights(path, role, ema=ema)
    return {module: weights.read_module(module) for module in weights.modules}


class CheckpointWeights:
    """A WeightSource: a role's whole networks out of a checkpoint, one tensor in memory at a time.

    Args:
        path: a checkpoint, or a run's folder for its newest.
        role: a role that was trained, or that the method changed.
        ema: take the averaged weights where there are averages (all trained parameters), as validation does.

    Raises:
        CheckpointError: role or EMA weights are not in it; when read, that it is damaged.
    """

    def __init__(self, path: str | Path, role: str, *, ema: bool) -> None:
        self.folder = storage.resolve_checkpoint(path)
        self._document = storage.read_document(self.folder)
        self._tensors = StoredTensors(self.folder / storage.TENSORS)
        self._checked = False
        with _understood(self.folder):
            state, averages = _state(self._document, self._tensors)
            if role not in state["roles"]:
                allowed = f"{', '.join(state['roles']) or 'none'} (frozen roles are not stored)"
                found = f"there is no role '{role}' in the checkpoint"
                raise CheckpointError(Problem(found, str(self.folder), allowed))
            if ema and role not in averages:
                found = f"there are no EMA weights of role '{role}'"
                allowed = f"EMA weights of: {', '.join(averages) or 'no role (none configured, or not started yet)'}"
                raise CheckpointError(Problem(found, str(self.folder), allowed, "use the raw weights"))
            averaged = averages[role] if ema else {}
            self._trained = {name: _entries(plain) for name, plain in state["roles"][role].items()}
            self._stored = {name: plain | _entries(averaged.get(name, {})) for name, plain in self._trained.items()}

    @property
    def modules(self) -> list[str]:
        """Names of the role's modules."""
        return list(self._stored)

    def tensor_names(self, module: str) -> Sequence[str]:
        """Names of the module's stored tensors."""
        return list(self._stored.get(module, {}))

    def read(self, module: str, name: str) -> Tensor:
        """One tensor, read by this process alone."""
        (tensor,) = self._read([self._stored[module][name]])
        return tensor

    def read_module(self, module: str) -> dict[str, Tensor]:
        """All tensors of a module in the trained dtype, read by this process alone."""
        stored, trained = self._stored[module], self._trained[module]
        with _understood(self.folder):
            dtypes = [trained[name].dtype for name in stored]
        tensors = zip(stored, self._read(list(stored.values())), dtypes, strict=True)
        return {name: tensor.to(dtype) for name, tensor, dtype in tensors}

    def _read(self, wanted: Sequence[_Stored]) -> list[Tensor]:
        if not self._checked:
            keys = [stored.key for module in self._stored.values() for stored in module.values()]
            files = [f"{storage.TENSORS}/{name}" for name in self._tensors.files(keys)]
            check_files(self.folder, files, self._document)
            self._checked = True
        targets = {stored.key: torch.empty(stored.size, dtype=stored.dtype) for stored in wanted}
        self._tensors.read(targets, every_rank_alone=True)
        return [targets[stored.key] for stored in wanted]


class _Stored(NamedTuple):
    key: str
    size: torch.Size
    dtype: torch.dtype


def _entries(entries: Mapping[str, Any]) -> dict[str, _Stored]:
    for name, entry in entries.items():
        if not isinstance(entry, _Stored):
            raise TypeError(f"'{name}' is no tensor but {type(entry).__name__}")
    return dict(entries)


def _state(document: CheckpointDocument, tensors: StoredTensors) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state tree with _Stored in place of tensors, and the averages in it by role."""
    stored: Any = {key: _Stored(key, entry.size, entry.properties.dtype) for key, entry in tensors.index.items()}
    state = join(document.state, stored)
    ema = state["callbacks"].get("ema", {})
    return state, ema["shadow"] if ema.get("started") else {}


def _understood(folder: Path) -> AbstractContextManager[None]:
    return foreign_file(folder / storage.DOCUMENT, "state of a run", CheckpointError, "use another checkpoint")
