"""Sampling with the network of a folder or hub id: what a family's target `sample` gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fastvideo_core.data.validation import ValidationPrompt
from fastvideo_core.roles import RoleHandle
from fastvideo_core.validator import FitsPrompts, SampledVideo, ValidationRequest, VideoSampler


class FamilySampler(VideoSampler, FitsPrompts, Protocol):
    """A family's sampler, of any role, that knows its prompts' sizes and the family's timestep shift."""

    def shift_and_clamp_timestep(self, t: Tensor) -> Tensor:
        """As the adapter's: unshifted t to shifted t."""
        ...


@dataclass(frozen=True)
class PathSampler:
    """A network from a folder or hub id as a role, and the sampler that uses it.

    Args:
        handle: the network as the role "student"; the command `sample` reads a checkpoint's weights into it.
        sampler: samples with any role.
    """

    handle: RoleHandle
    sampler: FamilySampler

    def sample(self, request: ValidationRequest, prompt: ValidationPrompt, generator: torch.Generator) -> SampledVideo:
        """One video, as the sampler's."""
        return self.sampler.sample(request, prompt, generator)

    def fit_prompt(self, prompt: ValidationPrompt) -> ValidationPrompt:
        """As the sampler's."""
        return self.sampler.fit_prompt(prompt)

    def shift_and_clamp_timestep(self, t: Tensor) -> Tensor:
        """As the adapter's: for schedules that a method warps by the timestep shift."""
        return self.sampler.shift_and_clamp_timestep(t)
