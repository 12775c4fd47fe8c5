"""Everything that a run must not lose, gathered into one tree and put back into the live objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.stateful import Stateful

from fastvideo_core.checkpoint.comparison import compare_names, compare_states, compare_tensors, optimizer_of
from fastvideo_core.checkpoint.document import DAMAGED
from fastvideo_core.checkpoint.optimizer_state import (
    collect_optimizer,
    memory_of_optimizer,
    restore_optimizer,
    restore_scheduler,
)
from fastvideo_core.checkpoint.tensors import StoredTensors
from fastvideo_core.checkpoint.tree import Json, join, split
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.contracts.roles import RoleHandle, is_lora_parameter
from fastvideo_core.errors import CheckpointError, FastVideoError, Problem
from fastvideo_core.weights.parameters import clean_name


class RunCallbacks(Protocol):
    """What a checkpoint needs of a run's callbacks; callbacks.manager.CallbackManager is one."""

    # no subclass of Stateful: Python would ask it, of every tensor that torch takes for one, whether it is a RunCallbacks

    @property
    def hook(self) -> Any: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class RunState:
    """The live objects that a checkpoint is taken of.

    Args:
        dataloader: any iterable; its position is kept when it has a state (is torch's Stateful).
        new_data: whether its position starts afresh, whatever is stored.
    """

    method: DistillMethod
    callbacks: RunCallbacks
    dataloader: Iterable[Any]
    new_data: bool = False

    def collect(self) -> dict[str, Any]:
        """The state as a tree of references to the live tensors (nothing is copied).

        `roles`: role -> module -> name -> tensor, for saved roles; `copies`; `optimizers` and `lr_schedulers`:
        role -> name -> state; `method`; `callbacks`; `dataloader` (None when it cannot resume).
        """
        names = _parameter_names(self.method)
        roles: dict[str, Any] = {}
        copies: dict[str, str] = {}
        optimizers: dict[str, Any] = {}
        lr_schedulers: dict[str, Any] = {}
        for role, handle in self._saved_roles().items():
            roles[role] = {name: stored_tensors(handle, module) for name, module in handle.modules.items()}
            if handle.copy_of:
                copies[role] = handle.copy_of
            optimizers[role] = {
                name: collect_optimizer(optimizer, names, optimizer_of(role, name))
                for name, optimizer in handle.optimizers.items()
            }
            lr_schedulers[role] = {name: scheduler.state_dict() for name, scheduler in handle.lr_schedulers.items()}
        return {
            "roles": roles,
            "copies": copies,
            "optimizers": optimizers,
            "lr_schedulers": lr_schedulers,
            "method": self.method.checkpoint_state(),
            "callbacks": self.callbacks.state_dict(),
            "dataloader": self.dataloader.state_dict() if isinstance(self.dataloader, Stateful) else None,
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
        with _understood(where):
            stored = stored_shapes(skeleton, tensors, own)
            if problems := compare_states(stored, live, data=not self.new_data):
                raise CheckpointError([Problem(p.found, p.where or where, p.allowed, p.fix) for p in problems])
            targets = self._targets(stored, live)
            tensors.read({key: target for key, target in targets.items() if key not in own})
            for key, tensor in own.items():
                targets[key].copy_(tensor)
            state = join(skeleton, targets)
            self._restore_optimizers(state["optimizers"], state["lr_schedulers"])
        _hand_over("the method", self.method.load_checkpoint_state, state["method"], where)
        _hand_over("callbacks", self.callbacks.load_state_dict, state["callbacks"], where)
        if isinstance(self.dataloader, Stateful) and not self.new_data:
            _hand_over("the dataloader", self.dataloader.load_state_dict, state["dataloader"], where)

    def _saved_roles(self) -> dict[str, RoleHandle]:
        return {handle.name: handle for handle in self.method.bundle if handle.is_saved}

    def _restore_optimizers(self, optimizers: dict[str, Any], lr_schedulers: dict[str, Any]) -> None:
        names = _parameter_names(self.method)
        for role, handle in self._saved_roles().items():
            for name, optimizer in handle.optimizers.items():
                restore_optimizer(optimizer, optimizers[role][name], names, optimizer_of(role, name))
            for name, scheduler in handle.lr_schedulers.items():
                restore_scheduler(scheduler, lr_schedulers[role][name], f"lr scheduler '{name}' of role '{role}'")

    def _targets(self, stored: dict[str, Any], live: dict[str, Any]) -> dict[str, Tensor]:
        """Where each stored tensor is read to: the live weight itself, else a new tensor laid out like the live one."""
        names = _parameter_names(self.method)
        live["optimizers"] = {
            role: {
                name: memory_of_optimizer(optimizer, stored["optimizers"][role][name], names)
                for name, optimizer in handle.optimizers.items()
            }
            for role, handle in self._saved_roles().items()
        }
        like, _ = split(live)
        in_place, _ = split({key: live[key] for key in ("roles", "optimizers")})
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
    """A stored state whose tensors have shapes and dtypes alone; raises CheckpointError when it is damaged.

    Args:
        skeleton, tensors, own: as in `RunState.restore`.
    """
    meta = torch.device("meta")
    shapes = {key: torch.empty(one.size, dtype=one.properties.dtype, device=meta) for key, one in tensors.index.items()}
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
    """What of a role's module goes into a checkpoint, by clean name: parameters and persistent buffers, or its adapters where
    it trains nothing else. They share memory with the module.

    Raises:
        TypeError: the module's state dict holds something that is not a tensor.
    """
    tensors = {}
    for name, value in module.state_dict().items():
        if not isinstance(value, Tensor):
            raise TypeError(f"'{name}' of {type(module).__name__} is a {type(value).__name__}, not a tensor")
        if handle.lora is None or is_lora_parameter(clean_name(name)):
            tensors[clean_name(name)] = value
    return tensors


def _parameter_names(method: DistillMethod) -> dict[int, str]:
    """Names of the roles' parameters by id, as `<role>.<module>.<name>`."""
    names: dict[int, str] = {}
    for handle in method.bundle:
        for name, parameter in handle.named_parameters():
            names.setdefault(id(parameter), f"{handle.name}.{clean_name(name)}")
    return names


@contextmanager
def _understood(where: str) -> Iterator[None]:
    """Not `foreign_file`: memory may run out inside, which is no fault of the checkpoint."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        found = f"its content cannot be understood: {type(error).__name__}: {error}"
        raise CheckpointError(Problem(found, where, fix=DAMAGED)) from error


def _hand_over(owner: str, load: Any, state: Any, where: str) -> None:
    try:
        load(state)
    except FastVideoError:
        raise
    except Exception as error:
        found = f"{owner} did not take back the stored state: {type(error).__name__}: {error}"
        fix = "resume with the run.yaml and the plug-in versions that wrote the checkpoint (both are in it)"
        raise CheckpointError(Problem(found, where, fix=fix)) from error
