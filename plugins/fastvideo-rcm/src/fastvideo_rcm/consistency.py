"""The consistency term of a student: its loss on noised data, along the teacher's flow."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from fastvideo_core.contracts.adapter import (
    AddNoise,
    NumTrainTimesteps,
    PredictionTarget,
    PredictNoise,
    PredictNoiseGuided,
    ShiftAndClampTimestep,
    SupportsTangent,
)
from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.method import DistillMethod, StepResult
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.diffusion.timesteps import sample_u, timestep_fractions
from fastvideo_core.errors import ContractError, Problem
from fastvideo_rcm.config import RcmConfig
from fastvideo_rcm.losses import consistency_loss, consistency_tangent
from fastvideo_rcm.tangent import directional_derivative


class ConsistencyNeeds(
    NumTrainTimesteps,
    ShiftAndClampTimestep,
    AddNoise,
    PredictNoise,
    PredictionTarget,
    PredictNoiseGuided,
    SupportsTangent,
    Protocol,
):
    """Of flow matching: `predict_noise` is the velocity noise - x0."""


class ConsistencyTerm:
    """sCM's loss, with the teacher's velocity as the flow (consistency distillation).

    Network calls: the teacher with guidance (one call), the student in forward mode, the student with its graph.

    Args:
        method: whose adapter and random streams are used.
    """

    def __init__(
        self, method: DistillMethod[Any], config: RcmConfig, *, student: RoleHandle, teacher: RoleHandle
    ) -> None:
        self._method, self._config = method, config
        self._adapter: ConsistencyNeeds = method.adapter
        self._student, self._teacher = student, teacher
        self._is_flow_matching = False

    def warmup(self, iteration: int) -> float:
        """r in (0, 1]: the part of the student's own derivative in this iteration (1-based)."""
        steps = self._config.tangent_warmup_steps
        return min(1.0, iteration / steps) if steps else 1.0

    def phase(self, batch: TrainingBatch, iteration: int) -> StepResult:
        """The loss at one noise level per sample of the batch's latents."""
        length, weight = self._adapter.num_train_timesteps, batch.loss_weight
        t = self._timesteps(batch.batch_size, iteration).to(batch.latents.device)
        noise = self._method.noise_like(batch.latents, "consistency_noise")
        self._require_flow_matching(batch.latents, noise, t)
        noisy = self._adapter.add_noise(batch.latents, noise, t)

        def student(x: Tensor, at: Tensor) -> Tensor:
            return self._adapter.predict_noise(self._student, x, at, batch, conditional=True)

        with torch.no_grad():
            scale = self._config.real_score_guidance_scale
            flow = self._adapter.predict_noise_guided(self._teacher, noisy, t, batch, guidance_scale=scale)
        direction = flow.to(noisy.dtype), torch.full_like(t, length)  # of one unit of sigma
        velocity, derivative = directional_derivative(student, (noisy, t), direction)
        warmup, sigma = self.warmup(iteration), t / length
        tangent = consistency_tangent(velocity, derivative, flow, sigma, warmup=warmup, loss_weight=weight)
        loss = consistency_loss(student(noisy, t), tangent, sigma, weight)
        metrics = {
            "consistency/tangent_norm": tangent.norm.mean(),
            "consistency/warmup": warmup,
            "consistency_timestep": timestep_fractions(t, length),
        }
        losses = {"total_loss": self._config.consistency_weight * loss, "consistency_loss": loss.detach()}
        return losses, {}, metrics

    def _timesteps(self, size: int, iteration: int) -> Tensor:
        mean, std = self._config.consistency_logit_mean, self._config.consistency_logit_std

        def draw(count: int, generator: torch.Generator) -> Tensor:
            u = sample_u("logit_normal", count, generator, logit_mean=mean, logit_std=std)
            return u * self._adapter.num_train_timesteps

        return self._method.draw_in_one_range(
            (self._student, self._teacher), draw, size, iteration=iteration, stream="consistency_timestep"
        )

    def _require_flow_matching(self, latents: Tensor, noise: Tensor, t: Tensor) -> None:
        """Once: the tangent's formula is that of velocities."""
        if self._is_flow_matching:
            return
        target = self._adapter.prediction_target(latents, noise, t)
        if not torch.allclose(target.float(), noise.float() - latents.float(), rtol=1e-3, atol=1e-3, equal_nan=True):
            found = f"predict_noise of family '{self._student.family}' is no velocity noise - x0"
            raise ContractError(Problem(found, "recipe.family", fix="take a flow matching family, or another method"))
        self._is_flow_matching = True
