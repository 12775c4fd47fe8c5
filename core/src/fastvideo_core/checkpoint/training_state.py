"""Everything that a run must not lose, gathered into one tree and put back into the live objects."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.stateful import Stateful

from fastvideo_core.checkpoint import optimizer_state
from fastvideo_core.checkpoint.stored_state import OTHER_RUN, StoredState, form_of, misfits, optimizer_of, outline_of
from fastvideo_core.checkpoint.tree import split
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.contracts.roles import RoleHandle, is_lora_parameter
from fastvideo_core.errors import CheckpointError, FastVideoError, Problem
from fastvideo_core.weights.parameters import clean_name

if TYPE_CHECKING:
    from fastvideo_core.callbacks.manager import CallbackManager


@dataclass(frozen=True)
class RunState:
    """The live objects that a checkpoint is taken of.

    The dataloader is any iterable; its position is kept when it has a state (is torch's Stateful), and starts afresh with
    `new_data`, whatever is stored.
    """

    method: DistillMethod
    callbacks: "CallbackManager"
    dataloader: Iterable[Any]
    new_data: bool = False

    def collect(self) -> dict[str, Any]:
        """The state as a tree of references to the live tensors (nothing is copied).

        `roles`: role -> module -> name -> tensor, for saved roles; `copies`; `optimizers` and `lr_schedulers`:
        role -> name -> state; `method`; `callbacks`; `dataloader` (None when it cannot resume).
        """
        names = _parameter_names(self.method)
        state: dict[str, Any] = {"roles": {}, "copies": {}, "optimizers": {}, "lr_schedulers": {}}
        for role, handle in self._saved_roles().items():
            state["roles"][role] = {name: stored_tensors(handle, module) for name, module in handle.modules.items()}
            if handle.copy_of:
                state["copies"][role] = handle.copy_of
            state["optimizers"][role] = {
                name: optimizer_state.collect(optimizer, names, optimizer_of(role, name))
                for name, optimizer in handle.optimizers.items()
            }
            schedulers = handle.lr_schedulers.items()
            state["lr_schedulers"][role] = {name: scheduler.state_dict() for name, scheduler in schedulers}
        state["method"] = self.method.checkpoint_state()
        state["callbacks"] = self.callbacks.state_dict()
        state["dataloader"] = self.dataloader.state_dict() if isinstance(self.dataloader, Stateful) else None
        return state

    def restore(self, stored: StoredState) -> None:
        """Puts a stored state back: weights in place, everything else through its owner's load method. Collective.

        Raises CheckpointError where the checkpoint is damaged, or of another run: naming all that does not fit.
        """
        where = str(stored.folder)
        names = _parameter_names(self.method)
        live = self.collect()
        with stored.understood():
            problems = misfits(outline_of(stored.tree), outline_of(live))
            position, reader = stored.tree["dataloader"], live["dataloader"]
            if (position is None) != (reader is None) and not self.new_data:
                no_position = "it holds no position in the data, but this run's dataloader needs one"
                no_reader = "it holds the position in the data, but this run's dataloader cannot resume"
                problems.append(Problem(no_position if position is None else no_reader, fix=OTHER_RUN))
            if problems:
                raise CheckpointError([Problem(p.found, p.where or where, p.allowed, p.fix) for p in problems])
            state = stored.read_into(self._targets(stored, live, names))
            for role, handle in self._saved_roles().items():
                for name, optimizer in handle.optimizers.items():
                    optimizer_state.restore(optimizer, state["optimizers"][role][name], names, optimizer_of(role, name))
                for name, scheduler in handle.lr_schedulers.items():
                    called = f"lr scheduler '{name}' of role '{role}'"
                    optimizer_state.restore_scheduler(scheduler, state["lr_schedulers"][role][name], called)
        _hand_over("the method", self.method.load_checkpoint_state, state["method"], where)
        _hand_over("callbacks", self.callbacks.load_state_dict, state["callbacks"], where)
        if isinstance(self.dataloader, Stateful) and not self.new_data:
            _hand_over("the dataloader", self.dataloader.load_state_dict, state["dataloader"], where)

    def _saved_roles(self) -> dict[str, RoleHandle]:
        return {handle.name: handle for handle in self.method.bundle if handle.is_saved}

    def _targets(self, stored: StoredState, live: dict[str, Any], names: Mapping[int, str]) -> dict[str, Tensor]:
        """Where each stored tensor is read to: the live weight itself, else a new tensor laid out like the live one."""
        targets: dict[str, Tensor] = {}
        for role, handle in self._saved_roles().items():
            for module, weights in live["roles"][role].items():
                kept = stored.tree["roles"][role][module]
                targets |= {kept[name].key: weight for name, weight in weights.items()}
            for name, optimizer in handle.optimizers.items():
                targets |= optimizer_state.memory_for(optimizer, stored.tree["optimizers"][role][name], names)
        like, _ = split(live)
        for key, one in stored.by_key.items():
            if key not in targets:
                if key in like and like[key].shape == one.shape:
                    targets[key] = torch.empty_like(like[key], dtype=one.dtype)
                else:
                    targets[key] = torch.empty(one.shape, dtype=one.dtype)
        return targets


def weight_misfits(
    stored: Mapping[str, Any], *, trainable: Iterable[str], outlines: Iterable[RoleHandle], where: str
) -> list[Problem]:
    """What of the stored weights (StoredTensors by role and module) cannot go into a run, as far as its configuration tells.

    Compared are the names of the roles that it trains, and those whose networks are known (`outlines`, with LoRA adapters, on
    meta), but for dtypes and further modules (a method's own). `restore` compares everything.
    """
    kept = {("saved role", ""): dict.fromkeys(stored, "")}
    live = {("saved role", ""): dict.fromkeys(trainable, "")}
    for handle in outlines:
        for name, module in handle.modules.items():
            tensors = stored.get(handle.name, {}).get(name)
            if tensors is not None:
                place = "parameter", f"role '{handle.name}', module '{name}'"
                now = stored_tensors(handle, module).items()
                kept[place] = {fqn: form_of(one) for fqn, one in tensors.items()}
                live[place] = {fqn: form_of(one.to(tensors[fqn].dtype) if fqn in tensors else one) for fqn, one in now}
    problems = misfits(kept, live)
    return [Problem(p.found, f"{where}, {p.where}" if p.where else where, p.allowed, p.fix) for p in problems]


def stored_tensors(handle: RoleHandle, module: nn.Module) -> dict[str, Tensor]:
    """What of a role's module goes into a checkpoint, by clean name: parameters and persistent buffers, or its adapters where
    it trains nothing else. They share memory with the module. Raises TypeError where its state dict holds anything else.
    """
    tensors = {}
    for name, value in module.state_dict().items():
        if not isinstance(value, Tensor):
            raise TypeError(f"'{name}' of {type(module).__name__} is a {type(value).__name__}, not a tensor")
        if handle.owns(name) and (handle.lora is None or is_lora_parameter(clean_name(name))):
            tensors[clean_name(name)] = value
    return tensors


def _parameter_names(method: DistillMethod) -> dict[int, str]:
    """Names of the roles' parameters by id, as `<role>.<module>.<name>`."""
    names: dict[int, str] = {}
    for handle in method.bundle:
        for name, parameter in handle.named_parameters():
            names.setdefault(id(parameter), f"{handle.name}.{clean_name(name)}")
    return names


def _hand_over(owner: str, load: Any, state: Any, where: str) -> None:
    try:
        load(state)
    except FastVideoError:
        raise
    except Exception as error:
        found = f"{owner} did not take back the stored state: {type(error).__name__}: {error}"
        fix = "resume with the run.yaml and the plug-in versions that wrote the checkpoint (both are in it)"
        raise CheckpointError(Problem(found, where, fix=fix)) from error
