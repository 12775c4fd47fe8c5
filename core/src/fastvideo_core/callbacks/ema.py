"""Exponential moving average of the weights of chosen roles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from fastvideo_core.callbacks.base import Callback
from fastvideo_core.callbacks.config import EMAConfig, ema_role_problem
from fastvideo_core.callbacks.hooks import hookimpl
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.errors import CheckpointError, ConfigError, Problem
from fastvideo_core.weights.parameter_names import trainable_by_name

ByName = dict[str, dict[str, Tensor]]


class _RoleAverage:
    """One role's parameters and their float32 averages, in the same order; sharded like the parameters."""

    def __init__(self, handle: RoleHandle) -> None:
        self.handle = handle
        self.names: list[tuple[str, str]] = []
        self.parameters: list[nn.Parameter] = []
        for module, by_fqn in trainable_by_name(handle.modules).items():
            for fqn, parameter in by_fqn.items():
                self.names.append((module, fqn))
                self.parameters.append(parameter)
        self.shadows = [p.detach().to(torch.float32, copy=True) for p in self.parameters]

    def restart(self) -> None:
        for shadow, parameter in zip(self.shadows, self.parameters, strict=True):
            shadow.copy_(parameter.detach())

    def update(self, decay: float) -> None:
        """shadow = decay * shadow + (1 - decay) * weight."""
        shadows = [_local(shadow) for shadow in self.shadows]
        weights = [_local(p.detach()).to(torch.float32) for p in self.parameters]
        torch._foreach_lerp_(shadows, weights, 1 - decay)

    def stepped_by(self, optimizers: Sequence[Optimizer]) -> bool:
        return any(own is stepped for own in self.handle.optimizers.values() for stepped in optimizers)

    def state(self) -> ByName:
        state: ByName = {module: {} for module, _ in self.names}
        for (module, fqn), shadow in zip(self.names, self.shadows, strict=True):
            state[module][fqn] = shadow
        return state

    def load(self, state: ByName) -> None:
        stored = {(module, fqn): tensor for module, by_fqn in state.items() for fqn, tensor in by_fqn.items()}
        problems = []
        for name, shadow in zip(self.names, self.shadows, strict=True):
            where = f"EMA weights of role '{self.handle.name}'"
            if name not in stored:
                problems.append(Problem(f"the checkpoint has no '{'.'.join(name)}'", where))
            elif stored[name].shape != shadow.shape:
                shapes = f"is {list(stored[name].shape)} in the checkpoint and {list(shadow.shape)} in this run"
                problems.append(Problem(f"'{'.'.join(name)}' {shapes}", where))
        for name in stored.keys() - set(self.names):
            problems.append(
                Problem(
                    f"'{'.'.join(name)}' is in the checkpoint, but not trained in this run",
                    f"EMA weights of role '{self.handle.name}'",
                )
            )
        if problems:
            raise CheckpointError(problems)
        for name, shadow in zip(self.names, self.shadows, strict=True):
            shadow.copy_(stored[name])


def _local(tensor: Tensor) -> Tensor:
    """This process's shard of a tensor that may be sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class EMACallback(Callback):
    """Averages the weights of `roles`, and lends the averages to the networks while a validation samples.

    A role is averaged after each update of its own (not on iterations that only step other roles). Averaging starts
    from the weights after step `start_step`. Averages are float32 whatever the weights are; what was lent for a
    validation comes back bitwise.
    """

    order = -100  # so that other callbacks of a validation see the averaged weights

    def __init__(self, config: EMAConfig) -> None:
        super().__init__(config)
        self._decay = config.decay
        self._roles = config.roles
        self._start_step = config.start_step
        self._started = False
        self._averages: dict[str, _RoleAverage] = {}
        self._lent: list[tuple[nn.Parameter, Tensor]] = []

    @hookimpl
    def train_start(self, method: DistillMethod, start_step: int) -> None:
        trainable = [handle.name for handle in method.bundle if handle.trainable]
        unfit = [name for name in self._roles if name not in trainable]
        problems = [ema_role_problem(name, name in method.bundle, trainable) for name in unfit]
        if problems:
            raise ConfigError(problems)
        self._averages = {name: _RoleAverage(method.bundle[name]) for name in self._roles}
        self._started = start_step >= self._start_step

    @hookimpl
    def after_optimizer_step(self, method: DistillMethod, step: int, optimizers: Sequence[Optimizer]) -> None:
        if not self._started:
            if step >= self._start_step:
                self.start_afresh()
                self._started = True
            return
        for average in self._averages.values():
            if average.stepped_by(optimizers):
                average.update(self._decay)

    @hookimpl
    def validation_start(self, method: DistillMethod, step: int) -> None:
        if not self._started:
            return
        with torch.no_grad():
            for average in self._averages.values():
                for parameter, shadow in zip(average.parameters, average.shadows, strict=True):
                    self._lent.append((parameter, parameter.detach().clone()))
                    parameter.copy_(shadow)

    @hookimpl
    def validation_end(self, method: DistillMethod, step: int) -> None:
        with torch.no_grad():
            for parameter, weight in self._lent:
                parameter.copy_(weight)
        self._lent.clear()

    def state_dict(self) -> dict[str, Any]:
        """`started` and, once it has, `shadow`: role -> module -> parameter name -> float32 tensor."""
        shadow = {role: average.state() for role, average in self._averages.items()} if self._started else {}
        return {"started": self._started, "shadow": shadow}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises CheckpointError when the averaged roles or their parameters are others."""
        stored: dict[str, ByName] = state["shadow"]
        self._started = state["started"]
        if not self._started:
            return
        if problems := self.misfits(state):
            raise CheckpointError(problems)
        for role, average in self._averages.items():
            average.load(stored[role])

    def misfits(self, state: dict[str, Any]) -> list[Problem]:
        """Averages of other roles."""
        stored = sorted(state["shadow"])
        if not state["started"] or stored == sorted(self._roles):
            return []
        found = f"the checkpoint averages {', '.join(stored)}; this run {', '.join(self._roles)}"
        return [Problem(found, "callbacks.ema.roles", fix=f"set callbacks.ema.roles to [{', '.join(stored)}]")]

    def start_afresh(self) -> None:
        """The averages become the weights of this moment."""
        for average in self._averages.values():
            average.restart()
