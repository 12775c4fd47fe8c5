"""Consistency models: a student that jumps from any point of a path to its clean end (Song et al. 2023, arXiv:2303.01469)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from fastvideo_consistency.config import ConsistencyConfig
from fastvideo_consistency.losses import consistency_loss
from fastvideo_consistency.solver import solver_step
from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.adapter import (
    AddNoise,
    NumTrainTimesteps,
    PredictX0,
    PredictX0Guided,
    ShiftAndClampTimestep,
)
from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.few_steps import FewStepMethod, StudentSteps
from fastvideo_core.contracts.method import StepResult
from fastvideo_core.contracts.noise_ranges import is_trained_at
from fastvideo_core.contracts.roles import RoleHandle, RoleManager
from fastvideo_core.contracts.validator import DistillValidator
from fastvideo_core.diffusion.rollout import FewStepSchedule
from fastvideo_core.diffusion.timesteps import timestep_fractions
from fastvideo_core.distributed import context
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_core.optim import build_lr_scheduler, build_optimizer, move_averages

TARGET = "target"
"""The role that `target: average` makes."""


class ConsistencyNeeds(NumTrainTimesteps, ShiftAndClampTimestep, AddNoise, PredictX0, Protocol): ...


class ConsistencyMethod(FewStepMethod[ConsistencyNeeds]):
    """The student f(x_t, t) is trained to equal f(x_r, r) at the point x_r one step further along the path, r < t.

    With a teacher the path is that of its guided samples (consistency distillation), without one the straight line between a
    clip and its noise (consistency training). As f(x, 0) = x, the student maps every point to the path's clean end.
    """

    keeps_pairs = True

    @classmethod
    def needs(cls, cfg: RunConfig) -> tuple[type, ...]:
        return (*super().needs(cfg), *((PredictX0Guided,) if "teacher" in cfg.roles else ()))

    @classmethod
    def student_schedule(cls, config: ConsistencyConfig, warp: Callable[[Tensor], Tensor]) -> FewStepSchedule:
        return FewStepSchedule.from_denoising_steps(
            config.denoising_steps, warp=warp if config.warp_denoising_step else None
        )

    @classmethod
    def copied_roles(cls, cfg: RunConfig) -> Mapping[str, str]:
        return {TARGET: "student"} if cfg.section(ConsistencyConfig).target == "average" else {}

    def __init__(
        self, cfg: RunConfig, bundle: RoleManager, adapter: ConsistencyNeeds, validator: DistillValidator | None = None
    ) -> None:
        super().__init__(cfg, bundle, adapter, validator)
        self.config = cfg.section(ConsistencyConfig)
        self.student = bundle["student"]
        self.teacher = bundle.roles.get("teacher")
        self.target = bundle[TARGET] if self.config.target == "average" else self.student
        self.schedule = self.student_schedule(self.config, adapter.shift_and_clamp_timestep)
        StudentSteps(self, self.student, self.schedule, key="denoising_steps")  # refuses a family of another noise axis
        self.levels = self.path_levels()
        optimizer = build_optimizer(self.student, cfg)
        self.student.optimizers["adamw"] = optimizer
        self.student.lr_schedulers["adamw"] = build_lr_scheduler(
            optimizer, cfg, "student", num_updates=cfg.training.max_train_steps
        )
        self.shown_teacher = self.teacher if self.config.validate_teacher else None
        if not is_trained_at(adapter, self.student, 0.0):
            found = (
                "the student's network for the lowest noise levels is not trained, where f(x, 0) = x holds the others"
            )
            raise ConfigError(Problem(found, "roles.student", fix="train all of its networks"))

    def path_levels(self) -> Tensor:
        """The timesteps of the path's points from pure noise to 0, [N + 1] float32: evenly spaced before the family's shift."""
        count, total = self.config.solver_steps, self.adapter.num_train_timesteps
        u = torch.arange(count, -1, -1, dtype=torch.float64) / count
        return self.adapter.shift_and_clamp_timestep(u * total).float().to(context.device())

    # --- one iteration --------------------------------------------------------------------------------------------

    def single_train_step(self, batch: Any, iteration: int, *, current_vsa_sparsity: float = 0.0) -> StepResult:
        prepared = self.prepare_batch(batch, current_vsa_sparsity=current_vsa_sparsity)
        t, next_t = self.draw_interval(prepared.batch_size, iteration)
        noise = self.noise_like(prepared.latents, "noise")
        loss, metrics = self.loss_at(prepared, noise, t, next_t)
        return {"total_loss": loss}, {}, metrics

    def draw_interval(self, batch_size: int, iteration: int) -> tuple[Tensor, Tensor]:
        """A step of the path for each sample, uniform: the timesteps where it begins and ends, [B] each."""

        def draw(size: int, generator: torch.Generator) -> Tensor:
            index = torch.randint(self.config.solver_steps, (size,), generator=generator, device=generator.device)
            index = index.to(self.levels.device)
            return torch.stack([self.levels[index], self.levels[index + 1]], dim=1)

        roles = [role for role in (self.student, self.teacher) if role is not None]
        both = self.draw_in_one_range(roles, draw, batch_size, iteration=iteration, stream="interval")
        return both[:, 0], both[:, 1]

    def loss_at(
        self, batch: TrainingBatch, noise: Tensor, t: Tensor, next_t: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss for given noise [B, ...] and steps of the path from t [B] to next_t [B]: a scalar, and metrics."""
        noisy = self.adapter.add_noise(batch.latents, noise, t)
        with torch.no_grad():
            ahead = self.one_step_ahead(noisy, noise, t, next_t, batch)
            target = self.clean_end(self.target, ahead, next_t, batch)  # at next_t = 0 this is `ahead`
        x0 = self.clean_end(self.student, noisy, t, batch)
        loss = consistency_loss(
            x0,
            target,
            kind=self.config.loss,
            huber_constant=self.config.huber_constant,
            loss_weight=batch.loss_weight,
        )
        samples = x0.detach()
        return loss, {
            "timestep": timestep_fractions(t, self.adapter.num_train_timesteps),
            "student_x0/mean": samples.mean(),
            "student_x0/std": samples.flatten(1).std(dim=1, correction=0).mean(),
        }

    def one_step_ahead(self, noisy: Tensor, noise: Tensor, t: Tensor, next_t: Tensor, batch: TrainingBatch) -> Tensor:
        """The point of the path at next_t [B] behind x_t [B, ...]: a step of the teacher's solver, or the clip with the SAME
        noise."""
        if self.teacher is None:
            return self.adapter.add_noise(batch.latents, noise, next_t)
        teacher, adapter = self.teacher, cast("PredictX0Guided", self.adapter)

        def predict_x0(x: Tensor, at: Tensor) -> Tensor:
            scale = self.config.teacher_guidance_scale
            return adapter.predict_x0_guided(teacher, x, at, batch, guidance_scale=scale)

        return solver_step(predict_x0, noisy, t, next_t, kind=self.config.solver)

    def clean_end(self, handle: RoleHandle, noisy: Tensor, t: Tensor, batch: TrainingBatch) -> Tensor:
        """f(x_t, t) [B, ...] of the student or its average."""
        return self.adapter.predict_x0(handle, noisy, t, batch, conditional=True, attn_kind=self.config.attn_kind)

    def optimizers_schedulers_step(self, iteration: int) -> None:
        super().optimizers_schedulers_step(iteration)
        if self.target is not self.student:
            pairs = zip(self.target.named_parameters(), self.student.named_parameters(), strict=True)
            learned = ((average, weight) for (_, average), (_, weight) in pairs if weight.requires_grad)
            move_averages(learned, self.config.target_decay)
