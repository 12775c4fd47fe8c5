"""Velocity distillation: a student regresses what a frozen teacher predicts, guidance included."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from fastvideo_core import DistillMethod, DistillValidator, RoleManager, RunConfig, TrainingBatch
from fastvideo_core.contracts.adapter import AddNoise, NumTrainTimesteps, PredictNoise, ShiftAndClampTimestep
from fastvideo_core.diffusion.reduce import mean_per_sample
from fastvideo_core.optim import build_lr_scheduler, build_optimizer
from fastvideo_velocity.config import VelocityConfig


class VelocityNeeds(NumTrainTimesteps, ShiftAndClampTimestep, AddNoise, PredictNoise, Protocol): ...


class VelocityMethod(DistillMethod[VelocityNeeds]):
    """Loss: the mean squared distance between the student's prediction and the teacher's guided one, c' = u + w (c - u).

    Guidance is linear, so that it holds for the network's own output (the velocity) as it does for x0. One pass of the
    student then stands for two of the teacher.
    """

    def __init__(
        self, cfg: RunConfig, bundle: RoleManager, adapter: VelocityNeeds, validator: DistillValidator | None = None
    ) -> None:
        super().__init__(cfg, bundle, adapter, validator)
        self.config = cfg.section(VelocityConfig)
        self.student, self.teacher = bundle["student"], bundle["teacher"]
        optimizer = build_optimizer(self.student, cfg)
        self.student.optimizers["adamw"] = optimizer
        self.student.lr_schedulers["adamw"] = build_lr_scheduler(
            optimizer, cfg, "student", num_updates=cfg.training.max_train_steps
        )

    def single_train_step(self, batch: Any, iteration: int, *, current_vsa_sparsity: float = 0.0) -> Any:
        prepared = self.prepare_batch(batch, current_vsa_sparsity=current_vsa_sparsity)
        generator = self.rng.local("timestep")
        u = torch.rand(prepared.batch_size, generator=generator, device=generator.device)
        t = self.adapter.shift_and_clamp_timestep(u * self.adapter.num_train_timesteps).to(prepared.latents.device)
        noisy = self.adapter.add_noise(prepared.latents, self.noise_like(prepared.latents, "noise"), t)
        with torch.no_grad():
            target = self.teacher_prediction(noisy, t, prepared)
        prediction = self.adapter.predict_noise(
            self.student, noisy, t, prepared, conditional=True, attn_kind=self.config.attn_kind
        )
        loss = mean_per_sample((prediction - target) ** 2, prepared.loss_weight).mean()
        return {"total_loss": loss}, {}, {"timestep": t.mean()}

    def log_validation(self, iteration: int) -> None:
        """Videos of the student in many steps, where the run asks for validation."""
        if self.validator is not None:
            for request in self.many_step_requests(self.student, iteration):
                self.validator.log_validation(iteration, request)

    def teacher_prediction(self, noisy: Tensor, t: Tensor, batch: TrainingBatch) -> Tensor:
        """The teacher's guided prediction [B, ...]; a single network call at scale 1."""
        scale = self.config.guidance_scale
        conditional: Tensor = self.adapter.predict_noise(self.teacher, noisy, t, batch, conditional=True)
        if scale == 1:
            return conditional
        unconditional: Tensor = self.adapter.predict_noise(self.teacher, noisy, t, batch, conditional=False)
        return unconditional + scale * (conditional - unconditional)
