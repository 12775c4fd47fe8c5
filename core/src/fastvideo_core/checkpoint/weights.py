"""A role's trained weights out of a checkpoint, for sampling, export and the start of another run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastvideo_core.checkpoint import storage
from fastvideo_core.checkpoint.storage import check_files
from fastvideo_core.checkpoint.stored_state import StoredState, StoredTensor
from fastvideo_core.config.document import read_document as read_yaml
from fastvideo_core.errors import CheckpointError, Problem


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
    check_files(stored.folder, [storage.RUN_CONFIG], stored.document)
    with stored.understood():
        roles = {role: tuple(modules) for role, modules in stored.tree["roles"].items()}
        ema_roles = tuple(role for role in roles if role in _averages(stored))
        config = read_yaml(stored.folder / storage.RUN_CONFIG).data or {}
        return CheckpointInfo(stored.folder, roles, dict(stored.tree["copies"]), ema_roles, config)


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
        self._stored = stored = StoredState(storage.resolve_checkpoint(path))
        self._checked = False
        with stored.understood():
            roles, averages = stored.tree["roles"], _averages(stored)
            if role not in roles:
                allowed = f"{', '.join(roles) or 'none'} (frozen roles are not stored)"
                found = f"there is no role '{role}' in the checkpoint"
                raise CheckpointError(Problem(found, str(stored.folder), allowed))
            if ema and role not in averages:
                found = f"there are no EMA weights of role '{role}'"
                allowed = f"EMA weights of: {', '.join(averages) or 'no role (none configured, or not started yet)'}"
                raise CheckpointError(Problem(found, str(stored.folder), allowed, "use the raw weights"))
            averaged = averages[role] if ema else {}
            self._trained = {name: _tensors(trained) for name, trained in roles[role].items()}
            self._chosen = {name: plain | _tensors(averaged.get(name, {})) for name, plain in self._trained.items()}

    @property
    def modules(self) -> list[str]:
        """Names of the role's modules."""
        return list(self._chosen)

    def tensor_names(self, module: str) -> Sequence[str]:
        """Names of the module's stored tensors."""
        return list(self._chosen.get(module, {}))

    def read(self, module: str, name: str, rows: slice | None = None) -> Tensor:
        """One tensor, or some of its rows, read by this process alone."""
        (tensor,) = self._read([self._chosen[module][name]])
        return tensor if rows is None else tensor[rows]

    def read_module(self, module: str) -> dict[str, Tensor]:
        """All tensors of a module in the trained dtype, read by this process alone."""
        chosen, trained = self._chosen[module], self._trained[module]
        with self._stored.understood():
            dtypes = [trained[name].dtype for name in chosen]
        tensors = zip(chosen, self._read(list(chosen.values())), dtypes, strict=True)
        return {name: tensor.to(dtype) for name, tensor, dtype in tensors}

    def _read(self, wanted: Sequence[StoredTensor]) -> list[Tensor]:
        stored = self._stored
        if not self._checked:
            keys = [one.key for module in self._chosen.values() for one in module.values()]
            files = [f"{storage.TENSORS}/{name}" for name in stored.tensors.files(keys)]
            check_files(stored.folder, files, stored.document)
            self._checked = True
        targets = {one.key: torch.empty(one.shape, dtype=one.dtype) for one in wanted}
        stored.tensors.read(targets, every_rank_alone=True)
        return list(targets.values())


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
