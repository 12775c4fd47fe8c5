"""The toy method: a student regresses a frozen teacher's guided x0. It uses every primitive of a flow-matching family."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from pydantic import Field
from torch import Tensor

from fastvideo_core.config.base import MethodConfig
from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.adapter import (
    AddNoise,
    Backward,
    NumTrainTimesteps,
    PredictionTarget,
    PredictNoise,
    PredictX0,
    PredictX0Guided,
    ShiftAndClampTimestep,
)
from fastvideo_core.contracts.method import DistillMethod, StepResult
from fastvideo_core.contracts.roles import RoleManager
from fastvideo_core.contracts.validator import DistillValidator
from fastvideo_core.diffusion.reduce import mean_per_sample
from fastvideo_core.optim import build_lr_scheduler, build_optimizer

ROLES = ("student", "teacher")


class ToyMethodConfig(MethodConfig):
    """The toy method's `method_config`."""

    guidance_scale: float = Field(default=2.0, ge=0, description="Guidance of the teacher, u + w (c - u)")


class ToyNeeds(
    NumTrainTimesteps,
    ShiftAndClampTimestep,
    AddNoise,
    PredictX0,
    PredictNoise,
    PredictionTarget,
    PredictX0Guided,
    Backward,
    Protocol,
): ...


class ToyMethod(DistillMethod[ToyNeeds]):
    """The sum of two regressions at random noise levels: the data's target, and the guided teacher's x0."""

    def __init__(
        self, cfg: RunConfig, bundle: RoleManager, adapter: ToyNeeds, validator: DistillValidator | None = None
    ) -> None:
        super().__init__(cfg, bundle, adapter, validator)
        self.config = cfg.section(ToyMethodConfig)
        self.student, self.teacher = bundle["student"], bundle["teacher"]
        optimizer = build_optimizer(self.student, cfg)
        self.student.optimizers["adamw"] = optimizer
        self.student.lr_schedulers["adamw"] = build_lr_scheduler(
            optimizer, cfg, "student", num_updates=cfg.training.max_train_steps
        )

    def single_train_step(self, batch: Any, iteration: int, *, current_vsa_sparsity: float = 0.0) -> StepResult:
        prepared = self.prepare_batch(batch, current_vsa_sparsity=current_vsa_sparsity)
        t = self.draw_in_one_range(
            (self.student, self.teacher), self._draw, prepared.batch_size, iteration=iteration, stream="timestep"
        ).to(prepared.latents.device)
        noise = self.noise_like(prepared.latents, "noise")
        noisy = self.adapter.add_noise(prepared.latents, noise, t)
        with torch.no_grad():
            scale = self.config.guidance_scale
            target = self.adapter.predict_x0_guided(self.teacher, noisy, t, prepared, guidance_scale=scale)
        x0 = self.adapter.predict_x0(self.student, noisy, t, prepared, conditional=True)
        prediction = self.adapter.predict_noise(self.student, noisy, t, prepared, conditional=True)
        regression = prediction - self.adapter.prediction_target(prepared.latents, noise, t)
        errors = (x0 - target) ** 2 + regression**2
        return {"total_loss": mean_per_sample(errors, prepared.loss_weight).mean()}, {}, {}

    def _draw(self, size: int, generator: torch.Generator) -> Tensor:
        u = torch.rand(size, generator=generator, device=generator.device)
        t: Tensor = self.adapter.shift_and_clamp_timestep(u * self.adapter.num_train_timesteps)
        return t

    def backward(self, loss_map: dict[str, Any], outputs: Any, *, grad_accum_rounds: int = 1) -> None:
        self.adapter.backward(loss_map["total_loss"], None, grad_accum_rounds)
