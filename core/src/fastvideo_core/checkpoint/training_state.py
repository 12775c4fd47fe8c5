"""Everything that a run must not lose, gathered into one tree and put back into the live objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fastvideo_core.checkpoint.comparison import compare_names, compare_states, compare_tensors, optimizer_of
from fastvideo_core.checkpoint.optimizer_state import (
    collect_optimizer,
    memory_of_optimizer,
    restore_optimizer,
    restore_scheduler,
)
from fastvideo_core.checkpoint.tensors import StoredTensors
from fastvideo_core.checkpoint.tree import Json, join, split
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.contracts.roles import RoleHandle, is_adapter
from fastvideo_core.errors import CheckpointError, FastVideoError, Problem
from fastvideo_core.weights.parameter_names import clean_name


class SavedHook(Protocol):
    def checkpoint_saved(self, path: Path, step: int) -> None: ...


class RunCallbacks(Protocol):
    """What a checkpoint needs of a run's callbacks; callbacks.manager.CallbackManager is one."""

    @property
    def hook(self) -> SavedHook: ...

    def state_dict(self) -> dict[str, dict[str, Any]]: ...

    def load_state_dict(self, state: dict[str, dict[str, Any]]) -> None: ...


@runtime_checkable
class ResumableLoader(Protocol):
    """A dataloader that can go on where it stopped."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class RunState:
    """The live objects that a checkpoint is taken of.

    Args:
        dataloader: any iterable; its position is kept when it is a ResumableLoader.
        new_data: whether its position starts afresh, whatever is stored.
    """

    method: DistillMethod
    callbacks: RunCallbacks
    dataloader: Iterable[Any]
    new_data: bool = False

    def collect(self) -> dict[str, Any]:
        """The state as a tree of references to the live tensors (nothing is copied).

        `roles`: role -> module -> name -> tensor, for saved roles; `families`, `copies`; `optimizers` and `lr_schedulers`:
        role -> name -> state; `method`; `callbacks`; `dataloader` (None when it cannot resume).
        """
        roles = _saved(self.method)
        names = parameter_names(self.method)
        return {
            "roles": {
                handle.name: {name: stored_tensors(handle, module) for name, module in handle.modules.items()}
                for handle in roles
            },
            "families": {handle.name: handle.family for handle in roles},
            "copies": {handle.name: handle.copy_of for handle in roles if handle.copy_of},
            "optimizers": {
                handle.name: {
                    name: collect_optimizer(optimizer, names, optimizer_of(handle.name, name))
                    for name, optimizer in handle.optimizers.items()
                }
                for handle in roles
            },
            "lr_schedulers": {
                handle.name: {name: scheduler.state_dict() for name, scheduler in handle.lr_schedulers.items()}
                for handle in roles
            },
            "method": self.method.checkpoint_state(),
            "callbacks": self.callbacks.state_dict(),
            "dataloader": self.dataloader.state_dict() if isinstance(self.dataloader, ResumableLoader) else None,
        }

    def restore(self, skeleton: Json, tensors: StoredTensors, own: Mapping[str, Tensor]) -> None:
        """Puts a stored state back: weights in place, everything else through its owner's load method.

        Args:
            skeleton, own: of `with_own_state`.
            tensors: those of all processes.

        Raises:
            CheckpointError: the checkpoint is damaged, or of another run: naming all that does not fit.
        """
        where = str(tensors.folder.parent)
        live = self.collect()
        stored = stored_shapes(skeleton, tensors, own)
        with _understood(where):
            problems = compare_states(stored, live, data=not self.new_data)
        if problems:
            raise CheckpointError([Problem(p.found, p.where or where, p.allowed, p.fix) for p in problems])

        with _understood(where):
            targets = self._targets(stored, live)
        tensors.read({key: target for key, target in targets.items() if key not in own})
        with _understood(where):
            for key, tensor in own.items():
                targets[key].copy_(tensor)
            state = join(skeleton, targets)
            self._restore_optimizers(state)
        _hand_over("the method", self.method.load_checkpoint_state, state["method"], where)
        _hand_over("callbacks", self.callbacks.load_state_dict, state["callbacks"], where)
        if isinstance(self.dataloader, ResumableLoader) and not self.new_data:
            _hand_over("the dataloader", self.dataloader.load_state_dict, state["dataloader"], where)

    def _restore_optimizers(self, state: dict[str, Any]) -> None:
        names = parameter_names(self.method)
        for handle in _saved(self.method):
            for name, optimizer in handle.optimizers.items():
                place = optimizer_of(handle.name, name)
                restore_optimizer(optimizer, state["optimizers"][handle.name][name], names, place)
            for name, scheduler in handle.lr_schedulers.items():
                place = f"lr scheduler '{name}' of role '{handle.name}'"
                restore_scheduler(scheduler, state["lr_schedulers"][handle.name][name], place)

    def _targets(self, stored: dict[str, Any], live: dict[str, Any]) -> dict[str, Tensor]:
        """Where each stored tensor is read to: the live weight itself, else a new tensor laid out like the live one."""
        names = parameter_names(self.method)
        live["optimizers"] = {
            handle.name: {
                name: memory_of_optimizer(optimizer, stored["optimizers"][handle.name][name], names)
                for name, optimizer in handle.optimizers.items()
            }
            for handle in _saved(self.method)
        }
        like, _ = split(live)
        in_place = split({key: live[key] for key in ("roles", "optimizers")})[0].keys()
        targets = {}
        for key, meta in split(stored)[0].items():
            if key in in_place:
                targets[key] = like[key]
            elif key in like and like[key].shape == meta.shape:
                targets[key] = torch.empty_like(like[key], dtype=meta.dtype)
            else:
                targets[key] = torch.empty(meta.shape, dtype=meta.dtype)
        return targets


def stored_shapes(skeleton: Json, tensors: StoredTensors, own: Mapping[str, Tensor]) -> dict[str, Any]:
    """A stored state whose tensors have shapes and dtypes alone; see `RunState.restore`.

    Raises:
        CheckpointError: the checkpoint is damaged.
    """
    shapes = {
        key: torch.empty(entry.size, dtype=entry.properties.dtype, device="meta")
        for key, entry in tensors.index.items()
    }
    with _understood(str(tensors.folder.parent)):
        state: dict[str, Any] = join(skeleton, {**shapes, **own})
        return state


def misfits(
    stored: Mapping[str, Any], *, trainable: Iterable[str], outlines: Iterable[RoleHandle], where: str
) -> list[Problem]:
    """What of the stored weights cannot go into a run, as far as its configuration tells; `restore` compares everything.

    Args:
        stored: of `stored_shapes`.
        trainable: the roles that the run trains.
        outlines: those of them whose networks are known, with adapters, on meta; dtypes and further modules (a method's
            own) are not compared.
        where: the checkpoint.
    """
    with _understood(where):
        roles = stored["roles"]
        problems = compare_names("saved role", roles, trainable)
        for handle in outlines:
            for name, module in handle.modules.items():
                if (kept := roles.get(handle.name, {}).get(name)) is not None:
                    now = stored_tensors(handle, module)
                    alike = {fqn: now[fqn].to(kept[fqn].dtype) if fqn in kept else now[fqn] for fqn in now}
                    problems += compare_tensors(kept, alike, f"role '{handle.name}', module '{name}'")
    return [Problem(p.found, f"{where}, {p.where}" if p.where else where, p.allowed, p.fix) for p in problems]


def stored_tensors(handle: RoleHandle, module: nn.Module) -> dict[str, Tensor]:
    """What of a role's module goes into a checkpoint: all of it, or its adapters where it trains nothing else."""
    tensors = module_tensors(module)
    if handle.lora is None:
        return tensors
    return {name: tensor for name, tensor in tensors.items() if is_adapter(name)}


def module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers of a module by clean name; they share memory with the module.

    Raises:
        TypeError: the module's state dict holds something that is not a tensor.
    """
    tensors = {}
    for name, value in module.state_dict().items():
        if not isinstance(value, Tensor):
            raise TypeError(f"'{name}' of {type(module).__name__} is a {type(value).__name__}, not a tensor")
        tensors[clean_name(name)] = value
    return tensors


def parameter_names(method: DistillMethod) -> dict[int, str]:
    """Names of the roles' parameters by id, as `<role>.<module>.<name>`."""
    names: dict[int, str] = {}
    for handle in method.bundle:
        for name, parameter in handle.named_parameters():
            names.setdefault(id(parameter), f"{handle.name}.{clean_name(name)}")
    return names


def _saved(method: DistillMethod) -> list[RoleHandle]:
    return [handle for handle in method.bundle if handle.is_saved]


@contextmanager
def _understood(where: str) -> Iterator[None]:
    """Not `foreign_file`: memory may run out inside, which is no fault of the checkpoint."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        found = f"its content cannot be understood: {type(error).__name__}: {error}"
        raise CheckpointError(Problem(found, where, fix="use another checkpoint; this one is damaged")) from error


def _hand_over(owner: str, load: Any, state: Any, where: str) -> None:
    try:
        load(state)
    except FastVideoError:
        raise
    except Exception as error:
        raise CheckpointError(
            Problem(
                found=f"{owner} did not take back the stored state: {type(error).__name__}: {error}",
                where=where,
                fix="resume with the run.yaml and the plug-in versions that wrote the checkpoint (both are in it)",
            )
        ) from error
