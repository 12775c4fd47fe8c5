"""Two-stage sampling: half the size, upsampled and refined, equal to the calls of diffusers' own pipelines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    LTX2ImageToVideoPipeline,
    LTX2LatentUpsamplePipeline,
    LTXConditionPipeline,
    LTXLatentUpsamplePipeline,
)
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel
from diffusers.pipelines.ltx2.utils import STAGE_2_DISTILLED_SIGMA_VALUES
from ltx2_pipeline import PLAIN, open_pipeline
from PIL import Image

from fastvideo_core.cli.main import main
from fastvideo_core.contracts.validator import ValidationPrompt, ValidationRequest
from fastvideo_core.errors import ConfigError, DataError
from fastvideo_ltx.config import LtxConfig
from fastvideo_ltx.family import LtxFamily, build_sampler
from fastvideo_ltx.layout import pack_video
from fastvideo_ltx.ltx2.latents import audio_statistics, pack_audio, video_statistics

FULL = {"height": 128, "width": 192, "num_frames": 9}
HALF = {"height": 64, "width": 96, "num_frames": 9}


def write_upsampler(folder: Path, kind, **config) -> str:
    torch.manual_seed(0)
    kind(mid_channels=32, num_blocks_per_stage=1, **config).save_pretrained(folder / "latent_upsampler")
    return str(folder)


def our_latents(path, upsampler, prompt, **asked):
    sampler = build_sampler(path, LtxConfig(upsampler=upsampler), device=torch.device("cpu"))
    request = ValidationRequest(sampler.handle, Path("unused"), **asked)
    return sampler.sampler.sample_latents(request, prompt, torch.Generator().manual_seed(3)), sampler.sampler.folder


@pytest.mark.parametrize("image", [False, True])
def test_ltx2_is_sampled_in_the_two_stages_of_diffusers(tiny_ltx2, tmp_path, image):
    upsampler = write_upsampler(tmp_path, LTX2LatentUpsamplerModel)
    pipeline, given, file = open_pipeline(tiny_ltx2), {}, None
    if image:
        file, pixels = tmp_path / "first.png", np.random.default_rng(0).integers(0, 255, (128, 192, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
        given = {"image": Image.open(file)}
        pipeline = LTX2ImageToVideoPipeline(**pipeline.components)
        pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    common = {"prompt": "a cat", "frame_rate": 24.0, "guidance_scale": 1.0, "audio_guidance_scale": 1.0, **PLAIN}
    common |= {"generator": generator, "output_type": "latent", "return_dict": False}
    video, sound = pipeline(**common, **HALF, **given, num_inference_steps=2)
    model = LTX2LatentUpsamplerModel.from_pretrained(upsampler, subfolder="latent_upsampler")
    upsample = LTX2LatentUpsamplePipeline(vae=pipeline.vae, latent_upsampler=model)
    video = upsample(latents=video, output_type="latent", return_dict=False)[0]
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler()
    levels = {"sigmas": STAGE_2_DISTILLED_SIGMA_VALUES, "noise_scale": 0.909375, "num_inference_steps": 3}
    video, sound = pipeline(**common, **FULL, **given, **levels, latents=video, audio_latents=sound)

    prompt = ValidationPrompt("a cat", **FULL, image_path=file)
    ours, folder = our_latents(tiny_ltx2, upsampler, prompt, sampling_steps=2)
    expected = [video_statistics(folder).normalise(pack_video(video))]
    expected.append(audio_statistics(folder).normalise(pack_audio(sound)))
    torch.testing.assert_close(ours, torch.cat(expected, dim=1), rtol=0, atol=5e-5)


def test_ltx_video_is_sampled_in_the_two_stages_of_diffusers(tiny_condition, tmp_path):
    upsampler = write_upsampler(tmp_path, LTXLatentUpsamplerModel)
    pipeline = LTXConditionPipeline.from_pretrained(tiny_condition)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    common = {"prompt": "a cat", "frame_rate": 25, "guidance_scale": 1.0, "generator": generator}
    common |= {"output_type": "latent", "return_dict": False}
    latents = pipeline(**common, **HALF, num_inference_steps=2)[0]
    model = LTXLatentUpsamplerModel.from_pretrained(upsampler, subfolder="latent_upsampler")
    upsample = LTXLatentUpsamplePipeline(vae=pipeline.vae, latent_upsampler=model)
    latents = upsample(latents=latents, output_type="latent", return_dict=False)[0]
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler()
    levels = {"timesteps": [1000, 909.375, 725, 421.875], "denoise_strength": 0.75}
    latents = pipeline(**common, **FULL, **levels, latents=latents)[0]
    ours, _ = our_latents(tiny_condition, upsampler, ValidationPrompt("a cat", **FULL), sampling_steps=2)
    torch.testing.assert_close(ours, pack_video(latents), rtol=0, atol=5e-5)


def test_the_command_samples_in_two_stages(tiny_ltx2, tmp_path, capsys):
    upsampler = write_upsampler(tmp_path, LTX2LatentUpsamplerModel)
    sizes = ["--height", "128", "--width", "128", "--num-frames", "9"]
    levels = ["--timesteps", "1000,700", "--out", str(tmp_path / "out"), "--prompt", "a cat"]
    assert main(["sample", tiny_ltx2, "--upsampler", upsampler, *sizes, *levels]) == 0
    assert (tmp_path / "out" / "00.mp4").stat().st_size > 0
    capsys.readouterr()
    assert main(["sample", tiny_ltx2, "--upsampler", str(tmp_path / "none"), *sizes, *levels]) == 2
    assert "upsampler: " in capsys.readouterr().err


def test_a_run_is_told_at_once_that_its_upsampler_does_not_fit(run_config, tiny_ltx2, tmp_path):
    cfg = run_config(paths={"student": tiny_ltx2}, pipeline={"upsampler": str(tmp_path)})
    with pytest.raises(ConfigError, match="upsampler: "):
        LtxFamily().roles(cfg)


def test_what_cannot_be_done_in_two_stages_is_told(tiny, tiny_ltx2, tmp_path):
    upsampler = write_upsampler(tmp_path / "x2", LTX2LatentUpsamplerModel)
    with pytest.raises(DataError, match="sampled at half its size first"):
        our_latents(tiny_ltx2, upsampler, ValidationPrompt("a cat", **HALF), sampling_steps=2)
    in_time = write_upsampler(tmp_path / "t", LTX2LatentUpsamplerModel, spatial_upsample=False, temporal_upsample=True)
    with pytest.raises(ConfigError, match="does not double height and width of 128 channels"):
        our_latents(tiny_ltx2, in_time, ValidationPrompt("a cat", **FULL), sampling_steps=2)
    with pytest.raises(ConfigError, match="a LTXPipeline cannot refine latents that were upsampled"):
        our_latents(tiny, upsampler, ValidationPrompt("a cat", **FULL), sampling_steps=2)


def test_processes_that_share_tokens_share_those_of_both_stages_and_of_each_image(run_config, tiny_ltx2, tmp_path):
    """Of 2 x 4 x 6 tokens the first stage has 12; an image at the end adds 4 x 6 to one and 2 x 3 to the other."""
    upsampler, image = write_upsampler(tmp_path, LTX2LatentUpsamplerModel), tmp_path / "last.png"
    Image.new("RGB", (192, 128)).save(image)

    def told(prompt: ValidationPrompt, processes: int) -> list[str]:
        shared = {"num_gpus": processes, "sequence_parallel": processes}
        cfg = run_config(paths={"student": tiny_ltx2}, pipeline={"upsampler": upsampler}, **shared)
        found = LtxFamily().input_problems(cfg, prompts=[prompt], rows=[], latents_source=None, many_steps=False)
        return [problem.found for problem in found]

    prompt = ValidationPrompt("a cat", **FULL)
    last = replace(prompt, image_path=image, last_image_path=image)
    assert told(prompt, 4) == []
    assert told(prompt, 8) == ["12 tokens of the first stage cannot be shared evenly by 8 processes"]
    assert told(last, 6) == []
    assert told(last, 4) == ["6 tokens of an image of the first stage cannot be shared evenly by 4 processes"]
