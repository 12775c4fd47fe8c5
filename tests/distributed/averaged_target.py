"""A method that keeps an average of its student in a frozen role of its own, and a run of it on the ranks of a test."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import torch

from fastvideo_core import DistillMethod, MethodConfig, RoleHandle, RoleManager, RunConfig, register_method
from fastvideo_core.contracts.adapter import AddNoise, NumTrainTimesteps, PredictX0
from fastvideo_core.optim import build_optimizer, move_averages
from fastvideo_testing.runs import build_run, toy_family
from tests.distributed.workers import own_folder, save, toy_run, weights


class Needs(NumTrainTimesteps, AddNoise, PredictX0, Protocol): ...


class AveragedTarget(DistillMethod[Needs]):
    """The student learns from its own average, as consistency models do."""

    saved: bool | None = True

    @classmethod
    def extra_roles(cls, cfg: RunConfig, bundle: RoleManager, adapter: Needs) -> Iterable[RoleHandle]:
        target = bundle["student"].copy("target")
        target.saved = cls.saved
        return [target]

    def __init__(self, cfg: RunConfig, bundle: RoleManager, adapter: Needs, validator: Any = None) -> None:
        super().__init__(cfg, bundle, adapter, validator)
        self.student, self.target = bundle["student"], bundle["target"]
        self.student.optimizers["adamw"] = build_optimizer(self.student, cfg)

    def single_train_step(self, batch: Any, iteration: int, *, current_vsa_sparsity: float = 0.0) -> Any:
        prepared = self.prepare_batch(batch)
        t = torch.full((prepared.batch_size,), 0.5 * self.adapter.num_train_timesteps)
        noisy = self.adapter.add_noise(prepared.latents, self.noise_like(prepared.latents, "noise"), t)
        with torch.no_grad():
            wanted = self.adapter.predict_x0(self.target, noisy, t, prepared, conditional=True)
        x0 = self.adapter.predict_x0(self.student, noisy, t, prepared, conditional=True)
        return {"total_loss": ((x0 - 0.9 * wanted) ** 2).mean()}, {}, {}

    def optimizers_schedulers_step(self, iteration: int) -> None:
        super().optimizers_schedulers_step(iteration)
        pairs = zip(self.target.named_parameters(), self.student.named_parameters(), strict=True)
        move_averages(((average, weight) for (_, average), (_, weight) in pairs if weight.requires_grad), 0.8)


class Forgotten(AveragedTarget):
    """Whose target is not saved."""

    saved = None


def train(out: Path, *, kind: str = "AveragedTarget", lora: dict[str, Any] | None = None, **training: Any) -> None:
    """Trains on the toy family; in `<out>.pt` all roles' weights at the start and the end, and how they are placed."""
    run = toy_run("finetune", out, **{"max_train_steps": 6, "training_state_checkpointing_steps": 3, **training})
    run["recipe"]["method"] = "averaged"
    run["roles"]["student"]["lora"] = lora
    with toy_family():
        register_method("averaged", config=MethodConfig, roles=("student",))(globals()[kind])
        runtime = build_run(own_folder(out), run)
        seen = {"start": weights(runtime.method), "placed": placements(runtime.method)}
        runtime.train()
    save(out.parent / f"{out.name}.pt", {**seen, "end": weights(runtime.method)})


def placements(method: Any) -> dict[str, str]:
    named = {
        f"{handle.name}.{name}": parameter for handle in method.bundle for name, parameter in handle.named_parameters()
    }
    return {name: str(getattr(parameter, "placements", "whole")) for name, parameter in named.items()}
