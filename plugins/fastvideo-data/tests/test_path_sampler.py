"""A family's sampler with the network of a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.contracts.sampler import StudentSchedule
from fastvideo_core.contracts.validator import SampledVideo, ValidationPrompt, ValidationRequest
from fastvideo_core.errors import ConfigError
from fastvideo_data.path_sampler import PathSampler


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


def test_an_exported_student_s_schedule_is_read_and_a_damaged_one_is_an_error():
    stored = {"sampling_timesteps": [1000.0, 500.0], "sampler_kind": "sde", "flow_shift": 3.0}
    assert StudentSchedule.exported(stored, where="f") == StudentSchedule((1000.0, 500.0), "sde")
    assert StudentSchedule.exported({"flow_shift": 3.0}, where="f") is None
    for wrong in ({"sampler_kind": "euler"}, {"sampling_timesteps": [500, 1000]}, {"sampling_timesteps": ["x"]}):
        with pytest.raises(ConfigError, match=r"f: the student's schedule cannot be read: "):
            StudentSchedule.exported({**stored, **wrong}, where="f")
