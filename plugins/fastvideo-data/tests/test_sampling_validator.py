"""Sampling and writing a run's validation videos, with a sampler that needs no model."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.contracts.validator import SampledVideo, ValidationPrompt, ValidationRequest
from fastvideo_data.video_validator import SamplingValidator, VideoWriteError

PROMPTS = (ValidationPrompt("a red ball"), ValidationPrompt("a blue ball"))


class Noise:
    """Draws its video; notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def sample(self, request, prompt, generator):
        self.asked.append(prompt.caption)
        return SampledVideo(torch.randint(0, 256, (3, 16, 16, 3), generator=generator, dtype=torch.uint8), fps=8.0)


def request(folder: Path) -> ValidationRequest:
    return ValidationRequest(RoleHandle("student", {"net": nn.Linear(1, 1)}, "toy"), folder, sampling_steps=1)


def test_every_prompt_becomes_a_video_a_sheet_and_its_caption(tmp_path):
    SamplingValidator(Noise(), PROMPTS, seed=0).log_validation(3, request(tmp_path))
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ["00.mp4", "00.png", "00.txt", "01.mp4", "01.png", "01.txt"]
    assert (tmp_path / "01.txt").read_text() == "a blue ball\n"


@pytest.mark.parametrize("name", ["00.txt", "00.png"])
def test_on_a_full_disk_the_error_names_the_place(tmp_path, name, monkeypatch):
    rename = os.replace

    def full(source, target):
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        rename(source, target)

    monkeypatch.setattr(os, "replace", full)
    sampler = Noise()
    with pytest.raises(
        VideoWriteError, match="a sampled video could not be written: No space left on device"
    ) as raised:
        SamplingValidator(sampler, PROMPTS, seed=0).log_validation(3, request(tmp_path))
    assert raised.value.exit_code == 1
    assert str(tmp_path) in str(raised.value)
    assert "fix: free space or make the folder writable" in str(raised.value)
    assert sampler.asked == ["a red ball"]
