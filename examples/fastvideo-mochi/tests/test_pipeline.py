"""What this family samples is what diffusers' own MochiPipeline samples."""

from pathlib import Path

import pytest
import torch
from diffusers import MochiPipeline
from fastvideo_mochi.config import MochiConfig
from fastvideo_mochi.folder import open_folder
from fastvideo_mochi.sampler import build_sampler
from fastvideo_mochi.tiny import write_tiny

from fastvideo_core import ValidationRequest
from fastvideo_core.contracts.validator import ValidationPrompt
from fastvideo_core.errors import ConfigError

PROMPT = ValidationPrompt("a cat", height=32, width=48, num_frames=7)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tiny")
    write_tiny(out)
    return out


@pytest.mark.parametrize("guidance_scale", [1.0, 4.5])
def test_latents_and_frames_are_the_pipeline_s_own(tiny, tmp_path, guidance_scale):
    pipeline = MochiPipeline.from_pretrained(tiny)
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 12, 2, 4, 6, generator=torch.Generator().manual_seed(3))
    given = {"height": 32, "width": 48, "num_frames": 7, "num_inference_steps": 4, "latents": noise}
    given["guidance_scale"] = guidance_scale
    wanted = pipeline("a cat", **given, output_type="latent").frames
    frames = torch.as_tensor(pipeline("a cat", **given, output_type="np").frames)[0]

    sampler = build_sampler(str(tiny), MochiConfig(), torch.device("cpu"))
    request = ValidationRequest(sampler.handle, tmp_path, sampling_steps=4, guidance_scale=guidance_scale)
    made = sampler.sampler.sample_latents(request, PROMPT, torch.Generator().manual_seed(3))
    torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-4)
    video = sampler.sample(request, PROMPT, torch.Generator().manual_seed(3))
    assert video.frames.shape == frames.shape == (7, 32, 48, 3)
    assert (video.frames.float() / 255 - frames).abs().max() < 0.01


def test_a_prompt_of_which_only_a_part_is_read_is_told(tiny, caplog):
    sampler = build_sampler(str(tiny), MochiConfig(), torch.device("cpu")).sampler
    sampler.prompts.get("a cat " * 300)
    assert "caption cut at 256 tokens" in caplog.text


def test_another_pipeline_is_refused_by_name(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "CogVideoXPipeline", "_diffusers_version": "0.35.0"}')
    with pytest.raises(ConfigError, match=r"roles.student.path .*: holds a CogVideoXPipeline\n.*a MochiPipeline"):
        open_folder(str(tmp_path), where="roles.student.path")
