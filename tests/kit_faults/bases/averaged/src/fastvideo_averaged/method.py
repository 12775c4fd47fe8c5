"""A few-step student regresses a teacher's guided x0 and the x0 of its own average: what a method can have, on two pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor

from fastvideo_averaged.config import AveragedConfig
from fastvideo_core import DistillMethod, DistillValidator, RoleHandle, RoleManager, RunConfig, TrainingBatch
from fastvideo_core.config.base import PipelineConfig
from fastvideo_core.contracts.adapter import AddNoise, PredictX0, ShiftAndClampTimestep
from fastvideo_core.contracts.validator import ValidationRequest
from fastvideo_core.diffusion.reduce import mean_per_sample
from fastvideo_core.diffusion.rollout import FewStepSchedule
from fastvideo_core.optim import build_lr_scheduler, build_optimizer


class AveragedNeeds(ShiftAndClampTimestep, AddNoise, PredictX0, Protocol): ...


class AveragedMethod(DistillMethod[AveragedNeeds]):
    @classmethod
    def extra_roles(cls, cfg: RunConfig, bundle: RoleManager, adapter: AveragedNeeds) -> Iterable[RoleHandle]:
        average = bundle["student"].copy("average")
        average.saved = True
        return [average]

    @classmethod
    def student_schedule(cls, config: AveragedConfig, warp: Callable[[Tensor], Tensor]) -> FewStepSchedule:
        return FewStepSchedule.from_denoising_steps(config.steps, warp=warp)

    def __init__(
        self, cfg: RunConfig, bundle: RoleManager, adapter: AveragedNeeds, validator: DistillValidator | None = None
    ) -> None:
        super().__init__(cfg, bundle, adapter, validator)
        self.config = cfg.section(AveragedConfig)
        self.student, self.teacher, self.average = bundle["student"], bundle["teacher"], bundle["average"]
        self.schedule = self.student_schedule(self.config, adapter.shift_and_clamp_timestep)
        optimizer = build_optimizer(self.student, cfg)
        self.student.optimizers["adamw"] = optimizer
        updates = cfg.training.max_train_steps
        self.student.lr_schedulers["adamw"] = build_lr_scheduler(optimizer, cfg, "student", num_updates=updates)
        self.updates = 0

    def single_train_step(self, batch: Any, iteration: int, *, current_vsa_sparsity: float = 0.0) -> Any:
        prepared = self.prepare_batch(batch, current_vsa_sparsity=current_vsa_sparsity)
        generator = self.rng.local("level")
        drawn = torch.randint(len(self.schedule), (prepared.batch_size,), generator=generator, device=generator.device)
        levels = torch.tensor(self.schedule.timesteps, device=generator.device)
        t = levels[drawn].to(prepared.latents.device)
        noisy = self.adapter.add_noise(prepared.latents, self.noise_like(prepared.latents, "noise"), t)
        with torch.no_grad():
            target = self.guided(noisy, t, prepared)
            own = self.adapter.predict_x0(self.average, noisy, t, prepared, conditional=True)
        x0 = self.adapter.predict_x0(
            self.student, noisy, t, prepared, conditional=True, attn_kind=self.config.attn_kind
        )
        weight = self.config.consistency * min(1.0, self.updates / self.config.ramp)
        errors = (x0 - target) ** 2 + weight * (x0 - own) ** 2
        loss = mean_per_sample(errors, prepared.loss_weight).mean()
        distance = mean_per_sample((x0.detach() - own).abs(), prepared.loss_weight).mean()
        return {"total_loss": loss}, {}, {"timestep": t.mean(), "distance": distance}

    def guided(self, noisy: Tensor, t: Tensor, batch: TrainingBatch) -> Tensor:
        """The teacher's guided x0 [B, ...], by two calls."""
        conditional = self.adapter.predict_x0(self.teacher, noisy, t, batch, conditional=True)
        unconditional = self.adapter.predict_x0(self.teacher, noisy, t, batch, conditional=False)
        return unconditional + self.config.guidance_scale * (conditional - unconditional)

    def optimizers_schedulers_step(self, iteration: int) -> None:
        super().optimizers_schedulers_step(iteration)
        self.updates += 1
        with torch.no_grad():
            for (_, mean), (_, now) in zip(
                self.average.named_parameters(), self.student.named_parameters(), strict=True
            ):
                mean.lerp_(now, 1 - self.config.decay)

    def log_validation(self, iteration: int) -> None:
        if self.validator is None:
            return
        request = ValidationRequest(
            sample_handle=self.student,
            output_dir=self.validation_dir(iteration),
            sampler_kind=self.cfg.section(PipelineConfig).sampler_kind,
            sampling_timesteps=self.schedule.timesteps,
        )
        self.validator.log_validation(iteration, request)

    def checkpoint_state(self) -> dict[str, Any]:
        return {"updates": self.updates}

    def load_checkpoint_state(self, state: dict[str, Any]) -> None:
        self.updates = int(state["updates"])
