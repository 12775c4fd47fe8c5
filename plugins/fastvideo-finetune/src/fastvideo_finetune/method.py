"""Supervised fine-tuning of a flow-matching network on clips and captions."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.adapter import (
    AddNoise,
    NumTrainTimesteps,
    PredictionTarget,
    PredictNoise,
    ShiftAndClampTimestep,
)
from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.method import DistillMethod, StepResult
from fastvideo_core.contracts.roles import RoleManager
from fastvideo_core.contracts.validator import DistillValidator
from fastvideo_core.diffusion.timesteps import sample_timesteps, timestep_fractions
from fastvideo_core.optim import build_lr_scheduler, build_optimizer
from fastvideo_finetune.config import FinetuneConfig
from fastvideo_finetune.losses import flow_matching_loss, weight_of_level


class FinetuneNeeds(NumTrainTimesteps, ShiftAndClampTimestep, AddNoise, PredictNoise, PredictionTarget, Protocol): ...


class FinetuneMethod(DistillMethod[FinetuneNeeds]):
    """Regresses the network's native output at a random noise level of each clip (Lipman et al. 2023)."""

    def __init__(
        self, cfg: RunConfig, bundle: RoleManager, adapter: FinetuneNeeds, validator: DistillValidator | None = None
    ) -> None:
        super().__init__(cfg, bundle, adapter, validator)
        self.config = cfg.section(FinetuneConfig)
        self.student = bundle["student"]
        self._iteration = 0
        optimizer = build_optimizer(self.student, cfg)
        self.student.optimizers["adamw"] = optimizer
        self.student.lr_schedulers["adamw"] = build_lr_scheduler(
            optimizer, cfg, "student", num_updates=cfg.training.max_train_steps
        )

    def single_train_step(self, batch: Any, iteration: int, *, current_vsa_sparsity: float = 0.0) -> StepResult:
        self._iteration = iteration
        prepared = self.prepare_batch(batch, current_vsa_sparsity=current_vsa_sparsity)
        t = self.sample_timesteps(prepared.batch_size).to(prepared.latents.device)
        noise = self.noise_like(prepared.latents, "noise")
        loss = self.loss_at(prepared, noise, t)
        metrics = {
            "timestep": timestep_fractions(t, self.adapter.num_train_timesteps),
            "data_x0/mean": prepared.latents.mean(),
            "data_x0/std": prepared.latents.flatten(1).std(dim=1, correction=0).mean(),
        }
        return {"total_loss": loss}, {}, metrics

    def sample_timesteps(self, batch_size: int) -> Tensor:
        """Shifted timesteps of a micro-batch, [B]; one network of the student serves all of an iteration."""

        def draw(size: int, generator: torch.Generator) -> Tensor:
            return sample_timesteps(
                self.config.timestep_sampling,
                size,
                generator,
                shift=self.adapter.shift_and_clamp_timestep,
                num_train_timesteps=self.adapter.num_train_timesteps,
                logit_mean=self.config.logit_mean,
                logit_std=self.config.logit_std,
                mode_scale=self.config.mode_scale,
            )

        return self.draw_in_one_range((self.student,), draw, batch_size, iteration=self._iteration, stream="timestep")

    def loss_at(self, batch: TrainingBatch, noise: Tensor, t: Tensor) -> Tensor:
        """The loss for given noise [B, ...] and timesteps [B]; a scalar."""
        noisy = self.adapter.add_noise(batch.latents, noise, t)
        prediction = self.adapter.predict_noise(
            self.student, noisy, t, batch, conditional=True, attn_kind=self.config.attn_kind
        )
        target = self.adapter.prediction_target(batch.latents, noise, t)
        level_weight = weight_of_level(self.config.loss_weighting, t / self.adapter.num_train_timesteps)
        return flow_matching_loss(prediction, target, level_weight, batch.loss_weight)

    def log_validation(self, iteration: int) -> None:
        if self.validator is None:
            return
        for request in self.many_step_requests(self.student, iteration):
            self.validator.log_validation(iteration, request)
