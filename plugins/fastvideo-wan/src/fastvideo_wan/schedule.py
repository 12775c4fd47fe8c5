"""Noise schedules of sampling: the pipeline's own with the run's one flow shift, and the few steps of a student."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastvideo_core.diffusion import flow
from fastvideo_core.diffusion.rollout import FewStepSchedule, SamplerKind, transition
from fastvideo_diffusers.scheduler_shift import pipeline_shift
from fastvideo_wan.config import WanConfig
from fastvideo_wan.folder import WanFolder


def resolve_flow_shift(folder: WanFolder, config: WanConfig) -> float:
    """`pipeline_shift`, with what to set where neither run nor pipeline states one."""
    return pipeline_shift(folder, config, usual="Wan 2.1: 5.0, or 3.0 for 480p")


@dataclass(frozen=True)
class _NoiseAxis:
    num_train_timesteps: int


class FewStepScheduler:
    """A student's schedule behind the interface that WanPipeline asks of a scheduler.

    Its step is core's `transition`, so that a video made through the pipeline is the rollout of training.

    Args:
        schedule: the noise levels of the network's calls.
        kind: how x moves from one level to the next.
        generator: for the fresh noise of `sde`; the noise is drawn where the generator lives.
    """

    order = 1

    def __init__(self, schedule: FewStepSchedule, *, kind: SamplerKind, generator: torch.Generator) -> None:
        self.schedule = schedule
        self.config = _NoiseAxis(schedule.num_train_timesteps)
        self.timesteps = torch.tensor(schedule.timesteps, dtype=torch.float32)
        self.sigmas = torch.tensor([schedule.sigma(i) for i in range(len(schedule) + 1)], dtype=torch.float32)
        self._kind = kind
        self._generator = generator
        self._index = 0

    def set_timesteps(self, num_inference_steps: int, device: torch.device | str | None = None) -> None:
        """Starts over; the number of steps is the schedule's."""
        if num_inference_steps != len(self.schedule):
            raise ValueError(f"the schedule has {len(self.schedule)} steps, not {num_inference_steps}")
        self.timesteps = self.timesteps.to(device)
        self._index = 0

    def set_begin_index(self, begin_index: int = 0) -> None:
        """The step from which the pipeline starts."""
        self._index = begin_index

    def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        """x [B, ...] at the next level, from the velocity at this one."""
        x0 = flow.x0_from_velocity(sample, model_output, timestep / self.schedule.num_train_timesteps)
        sigma, next_sigma = self.schedule.sigma(self._index), self.schedule.sigma(self._index + 1)
        self._index += 1
        # Noise of a CPU generator is the same for every device; so small a tensor may travel.
        home = self._generator.device if self._kind == "sde" else sample.device
        moved = transition(sample.to(home), x0.to(home), sigma, next_sigma, kind=self._kind, generator=self._generator)
        return (moved.to(sample.device),)
