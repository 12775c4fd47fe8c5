"""Exponential moving average of the weights of chosen roles."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fastvideo_core.callbacks.config import EMAConfig
from fastvideo_core.callbacks.hooks import Callback, hookimpl
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.errors import Problem
from fastvideo_core.optim import move_averages
from fastvideo_core.weights.parameters import trainable_by_name


class _RoleAverage:
    """One role's float32 averages, sharded as its parameters are, and each parameter beside its own."""

    def __init__(self, handle: RoleHandle) -> None:
        self.handle, trained = handle, trainable_by_name(handle)
        self.shadows = {
            module: {name: one.detach().to(torch.float32, copy=True) for name, one in parameters.items()}
            for module, parameters in trained.items()
        }
        self.pairs = [(self.shadows[module][name], one) for module in trained for name, one in trained[module].items()]


class EMACallback(Callback):
    """Averages the weights of `roles`, and lends the averages to the networks while a validation samples.

    A role is averaged after each update of its own (not on iterations that only step other roles), starting from the
    weights after step `start_step`. Averages are float32 whatever the weights are; weights are bitwise the same after a
    validation as before it.
    """

    config: EMAConfig
    order = -100  # so that other callbacks of a validation see the averaged weights

    def __init__(self, config: EMAConfig) -> None:
        super().__init__(config)
        self._started = False
        self._averages: dict[str, _RoleAverage] = {}
        self._lent: list[tuple[nn.Parameter, Tensor]] = []

    @hookimpl
    def train_start(self, method: DistillMethod, start_step: int) -> None:
        self._averages = {name: _RoleAverage(method.bundle[name]) for name in self.config.roles}
        self._started = start_step >= self.config.start_step

    @hookimpl
    def after_optimizer_step(self, step: int, optimizers: Sequence[Optimizer]) -> None:
        if not self._started:
            if step >= self.config.start_step:
                self.start_afresh()
                self._started = True
            return
        for average in self._averages.values():
            if not set(optimizers).isdisjoint(average.handle.optimizers.values()):
                move_averages(average.pairs, self.config.decay)

    @hookimpl
    @torch.no_grad()
    def validation_start(self) -> None:
        for average in self._averages.values() if self._started else ():
            for shadow, parameter in average.pairs:
                self._lent.append((parameter, parameter.detach().clone()))
                parameter.copy_(shadow)

    @hookimpl
    @torch.no_grad()
    def validation_end(self) -> None:
        for parameter, weight in self._lent:
            parameter.copy_(weight)
        self._lent.clear()

    def state_dict(self) -> dict[str, Any]:
        """`started` and, once it has, `shadow`: role -> module -> parameter name -> float32 tensor."""
        shadow = {role: average.shadows for role, average in self._averages.items()} if self._started else {}
        return {"started": self._started, "shadow": shadow}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Copies into the averages that there are; `misfits`, and those of the roles' own weights, were asked before."""
        self._started = state["started"]
        for role, average in self._averages.items() if self._started else ():
            for module, shadows in average.shadows.items():
                for name, shadow in shadows.items():
                    shadow.copy_(state["shadow"][role][module][name])

    def misfits(self, state: dict[str, Any]) -> list[Problem]:
        """Averages of other roles."""
        stored = sorted(state["shadow"])
        if not state["started"] or stored == sorted(self.config.roles):
            return []
        found = f"the checkpoint averages {', '.join(stored)}; this run {', '.join(self.config.roles)}"
        return [Problem(found, "callbacks.ema.roles", fix=f"set callbacks.ema.roles to [{', '.join(stored)}]")]

    def start_afresh(self) -> None:
        """The averages become the weights of this moment."""
        for average in self._averages.values():
            for shadow, parameter in average.pairs:
                shadow.copy_(parameter.detach())
