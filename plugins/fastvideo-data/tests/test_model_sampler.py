"""A family's sampler with the network of a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.contracts.validator import SampledVideo, ValidationPrompt, ValidationRequest
from fastvideo_data.model_sampler import PathSampler


class Family:
    """Makes noise as a video."""

    def fit_prompt(self, prompt: ValidationPrompt) -> ValidationPrompt:
        return replace(prompt, height=4, width=6, num_frames=2)

    def sample(self, request: ValidationRequest, prompt: ValidationPrompt, generator: torch.Generator) -> SampledVideo:
        size = (prompt.num_frames, prompt.height, prompt.width, 3)
        return SampledVideo(torch.randint(0, 255, size, generator=generator, dtype=torch.uint8), fps=7.0)

    def shift_and_clamp_timestep(self, t: Tensor) -> Tensor:
        return t / 2


def test_it_samples_fits_and_shifts_as_the_family_does(tmp_path: Path):
    sampler = PathSampler(RoleHandle("student", {"transformer": nn.Linear(1, 1)}), Family())
    (prompt,) = sampler.validator([ValidationPrompt("a cat")], seed=0).prompts
    request = ValidationRequest(sampler.handle, tmp_path, sampling_steps=1)
    video = sampler.sample(request, prompt, torch.Generator().manual_seed(3))
    again = sampler.sampler.sample(request, prompt, torch.Generator().manual_seed(3))
    assert video.frames.shape == (2, 4, 6, 3)
    assert torch.equal(video.frames, again.frames)
    assert video.fps == 7.0
    assert sampler.shift_and_clamp_timestep(torch.tensor([600.0])).item() == 300.0
