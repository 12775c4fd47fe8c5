"""A run in which data, a callback and the method have a state of their own on each process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastvideo_core import PluginConfig
from fastvideo_core.callbacks.hooks import Callback, hookimpl
from fastvideo_core.callbacks.manager import CallbackManager
from fastvideo_core.distributed import context
from fastvideo_testing.runs import build_run, toy_family
from tests.distributed.workers import own_folder, toy_run


class Shuffled:
    """Draws its samples from a generator of each process's own, as a shuffle buffer does; notes them."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(100 + context.rank())
        self.given: list[Tensor] = []

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        while True:
            self.given.append(torch.randn(1, 2, generator=self.generator))
            yield {"vae_latent": self.given[-1]}

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state(), "given": len(self.given)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])
        self.given = [torch.zeros(1, 2)] * state["given"]


class LossSum(Callback):
    """Adds up this process's losses, and keeps something that is the same on all and something sharded."""

    def __init__(self, *, mixed: bool = False) -> None:
        super().__init__(PluginConfig())
        self.total, self.first, self.last = torch.zeros(()), {"steps": 0}, None
        self.mixed = mixed
        self.weights: dict[str, Any] = {}

    @hookimpl
    def train_start(self, method: Any) -> None:
        self.weights = {name: p.detach().clone() for name, p in method.bundle["student"].named_parameters()}

    @hookimpl
    def step_end(self, step: int, metrics: dict[str, Any]) -> None:
        self.total = self.total + metrics["total_loss"]
        self.first["steps"] = step

    def state_dict(self) -> dict[str, Any]:
        state = {"total": self.total, "first": self.first, "weights": self.weights}
        return {"all": state} if self.mixed else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total, self.first, self.weights = state["total"], state["first"], state["weights"]


def built(out: Path, steps: int, *, shuffled: bool = True, mixed: bool = False, **training: Any) -> Any:
    run = toy_run("finetune", out, max_train_steps=steps, **training) | {"callbacks": {"early_stop": {"every": 100}}}
    with toy_family():
        runtime = build_run(own_folder(out), run)
    callbacks = {**runtime.callbacks.callbacks, "loss_sum": LossSum(mixed=mixed)}
    loader = Shuffled() if shuffled else runtime.dataloader
    return replace(runtime, callbacks=CallbackManager(callbacks), dataloader=loader)


def train(out: Path, leg: str, steps: int, **options: Any) -> None:
    """Trains, and leaves what each rank's objects hold at the end in `<out>-<leg>-<rank>.pt`."""
    runtime = built(out, steps, **options)
    runtime.train()
    stop, own = runtime.callbacks.callbacks["early_stop"], runtime.callbacks.callbacks["loss_sum"]
    seen = {"total": own.total, "sum": float(stop._sum), "stored_sum": stop.state_dict()["sum"]}
    if isinstance(runtime.dataloader, Shuffled):
        seen |= {"given": runtime.dataloader.given, "data": runtime.dataloader.state_dict()}
    torch.save(seen, out.parent / f"{out.name}-{leg}-{context.rank()}.pt")


def refused(out: Path) -> None:
    """Leaves the error of a save that mixes what differs with what is sharded, in `<out>-<rank>.txt`."""
    from fastvideo_core.errors import ContractError

    try:
        built(out, 2, mixed=True).train()
    except ContractError as error:
        (out.parent / f"{out.name}-{context.rank()}.txt").write_text(str(error))
