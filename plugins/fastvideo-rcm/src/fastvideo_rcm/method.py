"""rCM: a continuous-time consistency model of the teacher whose samples are moved to its distribution (arXiv:2510.08431)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.adapter import LatentsSource
from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.few_steps import FewStepMethod, StudentSteps
from fastvideo_core.contracts.method import DistillMethod, StepResult
from fastvideo_core.contracts.noise_ranges import is_trained_at
from fastvideo_core.contracts.roles import RoleHandle, RoleManager
from fastvideo_core.contracts.validator import DistillValidator
from fastvideo_core.diffusion.rollout import FewStepSchedule, roll_to
from fastvideo_core.optim import build_lr_scheduler, build_optimizer
from fastvideo_dmd2.method import DMD2Method, DMD2Needs
from fastvideo_rcm.config import RcmConfig
from fastvideo_rcm.consistency import ConsistencyNeeds, ConsistencyTerm


class RcmNeeds(DMD2Needs, ConsistencyNeeds, Protocol): ...


class RcmMethod(DMD2Method[RcmNeeds]):
    """Student, teacher and critic; without `dmd_weight` a `ConsistencyMethod`, of student and teacher.

    In the warm-up every iteration updates the student by the consistency loss. Then, when the student is due, by that and by
    distribution matching, one after the other; in all other iterations the critic learns the student's samples.
    """

    @classmethod
    def needs(cls, cfg: RunConfig) -> tuple[type, ...]:
        return super().needs(cfg) if cfg.section(RcmConfig).dmd_weight else (ConsistencyNeeds,)

    @classmethod
    def latents_source(cls, cfg: RunConfig) -> LatentsSource:
        return "data"

    @classmethod
    def build(
        cls, cfg: RunConfig, bundle: RoleManager, adapter: RcmNeeds, validator: DistillValidator | None = None
    ) -> DistillMethod[Any]:
        kind = cls if cfg.section(RcmConfig).dmd_weight else ConsistencyMethod
        return kind(cfg, bundle, adapter, validator)

    def __init__(
        self, cfg: RunConfig, bundle: RoleManager, adapter: RcmNeeds, validator: DistillValidator | None = None
    ) -> None:
        super().__init__(cfg, bundle, adapter, validator)
        self.config: RcmConfig = cfg.section(RcmConfig)
        self.consistency = ConsistencyTerm(self, self.config, student=self.student, teacher=self.teacher)
        self._rollout: tuple[int, FewStepSchedule] = (0, self.schedule)  # iteration, schedule of all its rounds

    # --- one iteration --------------------------------------------------------------------------------------------

    def single_train_step(
        self, batch: Any, iteration: int, *, current_vsa_sparsity: float = 0.0
    ) -> Iterator[StepResult]:
        self._iteration = iteration
        prepared = self.prepare_batch(batch, current_vsa_sparsity=current_vsa_sparsity)
        if self.student_is_due(iteration):
            yield self.consistency.phase(prepared, iteration)
        if self.is_warming_up(iteration):
            return
        noisy, t = self.student_input(prepared, iteration)
        if self.student_is_due(iteration):
            realism = self.realism_gradient(noisy, t, prepared)
            losses, outputs, metrics = self.student_phase(self.student_sample(noisy, t, prepared), prepared, realism)
            losses["total_loss"] = self.config.dmd_weight * losses["total_loss"]
            yield losses, outputs, {**metrics, **self.exit_metrics(t)}
        else:
            with torch.no_grad():
                x = self.student_sample(noisy, t, prepared)
            losses, outputs, metrics = self.critic_phase(x, prepared)
            yield losses, outputs, {**metrics, **self.exit_metrics(t)}
            yield from self.discriminator_phases(x, prepared)

    def is_warming_up(self, iteration: int) -> bool:
        """Whether this iteration (1-based) trains the student alone, by the consistency loss alone."""
        return iteration <= self.config.tangent_warmup_steps

    def student_is_due(self, iteration: int) -> bool:
        return self.is_warming_up(iteration) or super().student_is_due(iteration)

    def due_roles(self, iteration: int) -> Sequence[RoleHandle]:
        if self.student_is_due(iteration):
            return [self.student]
        return [self.critic] if self.adversarial is None else [self.critic, self.adversarial.heads]

    # --- the student's sample -------------------------------------------------------------------------------------

    def student_input(self, batch: TrainingBatch, iteration: int) -> tuple[Tensor, Tensor]:
        if self.config.rollout_mode != "simulate" or self.config.rollout_times == "schedule":
            return super().student_input(batch, iteration)
        schedule = self.rollout_schedule(iteration)
        last = len(schedule) - 1
        noisy = roll_to(
            lambda x, at: self.student_sample(x, at, batch),
            self.noise_like(batch.latents, "student_noise"),
            schedule,
            exit_index=last,
            kind=self.sampler_kind,
            generator=self.rng.local("rollout_noise"),
        )
        return noisy, schedule.timestep_tensor(last, batch.batch_size, batch.latents.device)

    def rollout_schedule(self, iteration: int) -> FewStepSchedule:
        """The calls of this iteration's rollout: as many as a step of the schedule has, from pure noise down; equal on all ranks.

        Behind the first, each is at the smaller of the one before and a uniform, shifted timestep.
        """
        if self._rollout[0] != iteration:
            times = self._falling_times(self.exit_index(iteration))
            while not is_trained_at(self.adapter, self.student, times[-1]):  # as the exit of that index itself is
                times = self._falling_times(len(times) - 1)
            self._rollout = (iteration, FewStepSchedule(tuple(times), self.adapter.num_train_timesteps))
        return self._rollout[1]

    def _falling_times(self, drawn: int) -> list[float]:
        """The first timestep of the schedule, and as many drawn ones behind it."""
        times = [self.schedule.timesteps[0]]
        for _ in range(drawn):
            u = torch.rand((), generator=self.rng.shared("rollout_times"))
            t = self.adapter.shift_and_clamp_timestep(u[None] * self.adapter.num_train_timesteps)
            times.append(min(times[-1], float(t)))
        return times


class ConsistencyMethod(FewStepMethod[ConsistencyNeeds]):
    """sCM alone: student and teacher, the student is updated in every iteration."""

    @classmethod
    def student_schedule(cls, config: RcmConfig, warp: Callable[[Tensor], Tensor]) -> FewStepSchedule:
        return RcmMethod.student_schedule(config, warp)

    def __init__(
        self, cfg: RunConfig, bundle: RoleManager, adapter: ConsistencyNeeds, validator: DistillValidator | None = None
    ) -> None:
        super().__init__(cfg, bundle, adapter, validator)
        self.config = cfg.section(RcmConfig)
        self.student, self.teacher = bundle["student"], bundle["teacher"]
        self.schedule = self.student_schedule(self.config, adapter.shift_and_clamp_timestep)
        StudentSteps(self, self.student, self.schedule, key="dmd_denoising_steps")  # refuses another noise axis
        optimizer = build_optimizer(self.student, cfg)
        self.student.optimizers["adamw"] = optimizer
        self.student.lr_schedulers["adamw"] = build_lr_scheduler(
            optimizer, cfg, "student", num_updates=cfg.training.max_train_steps
        )
        self.consistency = ConsistencyTerm(self, self.config, student=self.student, teacher=self.teacher)
        self.shown_teacher = self.teacher if self.config.validate_teacher else None

    def single_train_step(self, batch: Any, iteration: int, *, current_vsa_sparsity: float = 0.0) -> StepResult:
        prepared = self.prepare_batch(batch, current_vsa_sparsity=current_vsa_sparsity)
        return self.consistency.phase(prepared, iteration)
