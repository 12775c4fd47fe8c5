"""A family's network from a folder or hub id, ready to make videos for the command `sample`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.contracts.validator import (
    SampledVideo,
    StudentSchedule,
    ValidationPrompt,
    ValidationRequest,
    VideoSampler,
)
from fastvideo_data.video_validator import SamplingValidator


class FamilySampler(VideoSampler, Protocol):
    """A family's sampler, of any role, that knows the family's timestep shift."""

    def shift_and_clamp_timestep(self, t: Tensor) -> Tensor:
        """As the adapter's: unshifted t to shifted t."""
        ...


@dataclass(frozen=True)
class PathSampler:
    """A network as a role, and the sampler that uses it; videos are written as mp4, PNG and caption.

    Args:
        handle: the network as the role "student"; the command `sample` reads a checkpoint's weights into it.
        sampler: samples with any role.
        student: what the folder's network was distilled for, where it says so; None for one of many steps.
    """

    handle: RoleHandle
    sampler: FamilySampler
    student: StudentSchedule | None = None

    def sample(self, request: ValidationRequest, prompt: ValidationPrompt, generator: torch.Generator) -> SampledVideo:
        """One video, as the sampler's."""
        return self.sampler.sample(request, prompt, generator)

    def shift_and_clamp_timestep(self, t: Tensor) -> Tensor:
        """As the adapter's: for schedules that a method warps by the timestep shift."""
        return self.sampler.shift_and_clamp_timestep(t)

    def validator(self, prompts: Sequence[ValidationPrompt], *, seed: int) -> SamplingValidator:
        """What samples the prompts and writes the videos, as `SamplingValidator`."""
        return SamplingValidator(self.sampler, prompts, seed=seed)
