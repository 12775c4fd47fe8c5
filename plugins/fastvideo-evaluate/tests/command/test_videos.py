"""The output folder: what a second call takes for its own, and files that several processes write."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from fastvideo_core.contracts.validator import SampledVideo, ValidationPrompt
from fastvideo_core.errors import ConfigError
from fastvideo_evaluate.command.videos import Videos

PROMPTS = [ValidationPrompt(caption, seed=0) for caption in ("a cat", "a dog")]
SETTINGS = {"student": {"weights": "0123", "steps": None}}


def test_more_prompts_and_models_go_on_and_others_are_refused(tmp_path: Path) -> None:
    Videos(tmp_path, PROMPTS, SETTINGS).begin()
    Videos(tmp_path, [*PROMPTS, ValidationPrompt("a bird", seed=0)], {**SETTINGS, "other": {"steps": 3}}).begin()
    Videos(tmp_path, PROMPTS[:1], SETTINGS)
    with pytest.raises(ConfigError, match="prompt 3: caption was 'a bird', is 'a fish'"):
        Videos(tmp_path, [*PROMPTS, ValidationPrompt("a fish", seed=0)], SETTINGS)
    with pytest.raises(ConfigError, match="student: weights was '0123', is '4567'"):
        Videos(tmp_path, PROMPTS, {"student": {"weights": "4567", "steps": None}})


def test_a_video_and_its_latents_come_back(tmp_path: Path) -> None:
    videos = Videos(tmp_path, PROMPTS, SETTINGS)
    latents = torch.linspace(-2, 2, 16).reshape(2, 2, 2, 2)
    videos.add("student", 1, 0, SampledVideo(torch.full((3, 16, 16, 3), 90, dtype=torch.uint8), 8.0, latents=latents))
    found = videos.sample("student", 1, 0, "a dog")
    assert (found.frames.shape, found.fps) == ((3, 16, 16, 3), 8.0)
    assert abs(found.frames.astype(int) - 90).max() <= 3
    assert found.latents == pytest.approx(latents.numpy(), abs=2e-3)


def test_several_processes_note_how_a_model_is_sampled(tmp_path: Path) -> None:
    videos = Videos(tmp_path, PROMPTS, SETTINGS)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: videos.begin_model("student", {"steps": 3}), range(200)))
    assert videos.sampled("student") == {"steps": 3}
    assert [path.name for path in (tmp_path / "videos/student").iterdir()] == ["sampled.json"]
