"""Knowledge distillation: a student regresses what a teacher did (Luhman & Luhman 2021, arXiv:2101.02388)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.adapter import (
    AddNoise,
    LatentsSource,
    NumTrainTimesteps,
    PredictionTarget,
    PredictNoise,
    PredictNoiseGuided,
    PredictX0,
    ShiftAndClampTimestep,
    StoredTrajectory,
)
from fastvideo_core.contracts.batch import TrainingBatch, Trajectory
from fastvideo_core.contracts.family import ModelFamily
from fastvideo_core.contracts.few_steps import StudentSteps
from fastvideo_core.contracts.method import DistillMethod, StepResult
from fastvideo_core.contracts.roles import RoleManager
from fastvideo_core.contracts.validator import DistillValidator
from fastvideo_core.diffusion.rollout import FewStepSchedule
from fastvideo_core.diffusion.timesteps import sample_timesteps, timestep_fractions
from fastvideo_core.errors import ContractError, DataError, Problem
from fastvideo_core.optim import build_lr_scheduler, build_optimizer
from fastvideo_data.family import ParquetFamily
from fastvideo_data.raw_batch import place
from fastvideo_data.trajectories import trajectory_timesteps
from fastvideo_kd.config import KDConfig
from fastvideo_kd.losses import line_ends, regression_loss
from fastvideo_kd.states import state_numbers, take


class X0Needs(NumTrainTimesteps, ShiftAndClampTimestep, StoredTrajectory, PredictX0, Protocol): ...


class VelocityNeeds(
    NumTrainTimesteps, ShiftAndClampTimestep, StoredTrajectory, PredictNoise, PredictionTarget, Protocol
): ...


class GuidanceNeeds(NumTrainTimesteps, ShiftAndClampTimestep, AddNoise, PredictNoise, PredictNoiseGuided, Protocol): ...


class KDNeeds(X0Needs, VelocityNeeds, GuidanceNeeds, Protocol): ...


NEEDS: dict[str, type] = {"x0": X0Needs, "velocity": VelocityNeeds, "guidance": GuidanceNeeds}
"""What a run calls, by its target."""


class KDMethod(DistillMethod[KDNeeds]):
    """One evaluation of the student with a graph per iteration; the teacher was at work before, when it wrote trajectories.

    With target guidance there are none: the student regresses the guided prediction of a teacher that is called beside it.
    """

    keeps_pairs = True

    @classmethod
    def needs(cls, cfg: RunConfig) -> tuple[type, ...]:
        return (NEEDS[cfg.section(KDConfig).target],)

    @classmethod
    def latents_source(cls, cfg: RunConfig) -> LatentsSource:
        return "data" if cfg.section(KDConfig).target == "guidance" else "trajectory"

    @classmethod
    def student_schedule(cls, config: KDConfig, warp: Callable[[Tensor], Tensor]) -> FewStepSchedule | None:
        if config.target == "guidance":
            return None
        return FewStepSchedule.from_denoising_steps(
            config.denoising_steps, warp=warp if config.warp_denoising_step else None
        )

    @classmethod
    def check(cls, cfg: RunConfig, family: ModelFamily) -> list[Problem]:
        """Steps of the schedule that the data's trajectories do not hold, of one trajectory of each shape."""
        if cls.latents_source(cfg) != "trajectory" or not isinstance(family, ParquetFamily):
            return []
        shift, config = family.timestep_shift(cfg), cfg.section(KDConfig)
        if shift is None and config.warp_denoising_step:
            return []
        schedule = cls.student_schedule(config, shift or (lambda t: t))
        assert schedule is not None
        problems: list[Problem] = []
        for row in family.rows(cfg):
            try:
                state_numbers(trajectory_timesteps(row), schedule.timesteps, where=place(row))
            except DataError as error:
                problems += error.problems
        return problems

    def __init__(
        self, cfg: RunConfig, bundle: RoleManager, adapter: KDNeeds, validator: DistillValidator | None = None
    ) -> None:
        super().__init__(cfg, bundle, adapter, validator)
        self.config = cfg.section(KDConfig)
        self.student = bundle["student"]
        self.schedule = self.student_schedule(self.config, adapter.shift_and_clamp_timestep)
        if self.schedule is not None:
            self.steps = StudentSteps(self, self.student, self.schedule, key="denoising_steps")
        optimizer = build_optimizer(self.student, cfg)
        self.student.optimizers["adamw"] = optimizer
        self.student.lr_schedulers["adamw"] = build_lr_scheduler(
            optimizer, cfg, "student", num_updates=cfg.training.max_train_steps
        )

    # --- one iteration --------------------------------------------------------------------------------------------

    def single_train_step(self, batch: Any, iteration: int, *, current_vsa_sparsity: float = 0.0) -> StepResult:
        source = self.latents_source(self.cfg)
        prepared = self.prepare_batch(batch, latents_source=source, current_vsa_sparsity=current_vsa_sparsity)
        if self.schedule is None:
            t = self.guidance_timesteps(prepared.batch_size, iteration).to(prepared.latents.device)
            loss = self.guidance_loss(prepared, self.noise_like(prepared.latents, "noise"), t)
        else:
            t = self.steps.draw(prepared.batch_size, iteration=iteration, stream="student_steps")
            loss = self.x0_loss(prepared, t) if self.config.target == "x0" else self.velocity_loss(prepared, t)
        metrics = {
            "timestep": timestep_fractions(t, self.adapter.num_train_timesteps),
            "data_x0/mean": prepared.latents.mean(),
            "data_x0/std": prepared.latents.flatten(1).std(dim=1, correction=0).mean(),
        }
        return {"total_loss": loss}, {}, metrics

    # --- along a trajectory -----------------------------------------------------------------------------------------

    def x0_loss(self, batch: TrainingBatch, t: Tensor) -> Tensor:
        """From the state at t [B] the student finds the clean end of the same trajectory, in one call; a scalar."""
        trajectory = self.trajectory_of(batch)
        state, _ = self.states_at(trajectory, t)
        x0 = self.adapter.predict_x0(self.student, state, t, batch, conditional=True, attn_kind=self.config.attn_kind)
        return regression_loss(x0, trajectory.states[:, -1], batch.loss_weight)

    def velocity_loss(self, batch: TrainingBatch, t: Tensor) -> Tensor:
        """At the state at t [B] the student finds the slope that leads to the state at its own next step; a scalar."""
        state, later = self.states_at(self.trajectory_of(batch), t)
        total = self.adapter.num_train_timesteps
        clean, noise = line_ends(state, later, t / total, self.next_timesteps(t) / total)
        prediction = self.adapter.predict_noise(
            self.student, state, t, batch, conditional=True, attn_kind=self.config.attn_kind
        )
        target = self.adapter.prediction_target(clean, noise, t)
        return regression_loss(prediction, target, batch.loss_weight)

    def states_at(self, trajectory: Trajectory, t: Tensor) -> tuple[Tensor, Tensor]:
        """Each trajectory's state at its timestep t [B] of the schedule, and the one at the student's next step, [B, ...] each.

        Raises:
            DataError: the trajectories hold no state at a timestep of the schedule.
        """
        assert self.schedule is not None
        numbers = state_numbers(trajectory.timesteps, self.schedule.timesteps).to(t.device, non_blocking=True)
        call = self.steps.numbers(t) - 1
        return take(trajectory.states, take(numbers, call)), take(trajectory.states, take(numbers, call + 1))

    def next_timesteps(self, t: Tensor) -> Tensor:
        """Where the student's sampler goes from its timesteps t [B]; 0 from the last one."""
        assert self.schedule is not None
        levels = torch.tensor((*self.schedule.timesteps, 0.0), dtype=t.dtype).to(t.device, non_blocking=True)
        return levels[self.steps.numbers(t)]

    def trajectory_of(self, batch: TrainingBatch) -> Trajectory:
        """The batch's trajectories.

        Raises:
            ContractError: the family's adapter gave none.
        """
        if batch.trajectory is None:
            where = f"family '{self.cfg.recipe.family}', {type(self.adapter).__name__}.prepare_batch"
            raise ContractError(Problem('latents_source="trajectory" gave a batch without a trajectory', where))
        return batch.trajectory

    # --- guidance -----------------------------------------------------------------------------------------------------

    def guidance_timesteps(self, batch_size: int, iteration: int) -> Tensor:
        """Uniform, then shifted, [B]; one network of student and teacher each serves all of an iteration."""

        def draw(size: int, generator: torch.Generator) -> Tensor:
            return sample_timesteps(
                "uniform",
                size,
                generator,
                shift=self.adapter.shift_and_clamp_timestep,
                num_train_timesteps=self.adapter.num_train_timesteps,
            )

        handles = (self.student, self.bundle["teacher"])
        return self.draw_in_one_range(handles, draw, batch_size, iteration=iteration, stream="timestep")

    def guidance_loss(self, batch: TrainingBatch, noise: Tensor, t: Tensor) -> Tensor:
        """Of one evaluation of the student against the teacher's guided one at x_t, t [B] (Meng et al. 2023); a scalar."""
        noisy = self.adapter.add_noise(batch.latents, noise, t)
        with torch.no_grad():
            target = self.adapter.predict_noise_guided(
                self.bundle["teacher"], noisy, t, batch, guidance_scale=self.config.teacher_guidance_scale
            )
        prediction = self.adapter.predict_noise(
            self.student, noisy, t, batch, conditional=True, attn_kind=self.config.attn_kind
        )
        return regression_loss(prediction, target, batch.loss_weight)

    # --- validation ---------------------------------------------------------------------------------------------------

    def log_validation(self, iteration: int) -> None:
        if self.validator is None:
            return
        few = [] if self.schedule is None else [self.few_step_request(self.student, self.schedule, iteration)]
        for request in few or self.many_step_requests(self.student, iteration):
            self.validator.log_validation(iteration, request)
