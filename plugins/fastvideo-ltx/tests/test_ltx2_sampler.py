"""Videos with sound: equal to those of plain LTX2Pipeline, and to the rollout of training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.ltx2.utils import DISTILLED_SIGMA_VALUES
from ltx2_pipeline import FPS, FRAMES, HEIGHT, WIDTH, generate, open_pipeline, recorded

from fastvideo_core.contracts.validator import ValidationPrompt, ValidationRequest
from fastvideo_core.diffusion.rollout import FewStepSchedule
from fastvideo_data.video_files import probe, write_video
from fastvideo_ltx.config import LtxConfig
from fastvideo_ltx.export import export_pipeline
from fastvideo_ltx.family import LtxFamily, build_sampler
from fastvideo_ltx.layout import pack_video
from fastvideo_ltx.ltx2.latents import audio_statistics, pack_audio, video_statistics

PROMPT = ValidationPrompt("a cat", height=HEIGHT, width=WIDTH, num_frames=FRAMES)
SOUND_RATE = 24000


@pytest.fixture(scope="module")
def pipeline(tiny_ltx2):
    return open_pipeline(tiny_ltx2)


def sampler_of(path, **config):
    return build_sampler(path, LtxConfig(**config), device=torch.device("cpu"))


def video_of(sampler, **request):
    asked = ValidationRequest(sampler.handle, Path("unused"), **request)
    return sampler.sample(asked, PROMPT, torch.Generator().manual_seed(3))


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_many_steps_give_the_pipeline_s_own_video_and_sound(pipeline, tiny_ltx2, guidance):
    frames, sound = generate(pipeline, steps=3, guidance=guidance, output_type="np")
    ours = video_of(sampler_of(tiny_ltx2, negative_prompt=""), sampling_steps=3, guidance_scale=guidance)
    assert np.abs(ours.frames.numpy().astype(int) - (frames[0] * 255).round()).max() <= 1
    torch.testing.assert_close(ours.audio[:, : sound.shape[-1]], sound[0], rtol=0, atol=1e-5)
    assert ours.sample_rate == pipeline.vocoder.config.output_sampling_rate == SOUND_RATE
    assert ours.fps == FPS


def test_the_sound_is_as_long_as_the_video(tiny_ltx2, tmp_path):
    video = video_of(sampler_of(tiny_ltx2), sampling_steps=2)
    assert video.audio.shape == (2, round(FRAMES / FPS * SOUND_RATE))
    write_video(tmp_path / "x.mp4", video.frames.numpy(), video.fps, audio=video.audio.numpy(), sample_rate=SOUND_RATE)
    info = probe(tmp_path / "x.mp4")
    assert (info.frames, info.has_audio) == (FRAMES, True)


@pytest.mark.parametrize("kind", ["ode", "sde"])
def test_few_steps_call_the_network_at_the_given_levels(tiny_ltx2, kind):
    sampler = sampler_of(tiny_ltx2)
    with recorded(sampler.handle.modules["transformer"]) as calls:
        video = video_of(sampler, sampler_kind=kind, sampling_timesteps=(1000.0, 700.0, 400.0))
    assert [call["timestep"].tolist() for call, _ in calls] == [[1000.0], [700.0], [400.0]]
    assert video.audio.shape == (2, round(FRAMES / FPS * SOUND_RATE))
    first = calls[0][0]
    assert first["hidden_states"].shape == (1, 2 * 2 * 3, 128)
    assert first["audio_hidden_states"].shape == (1, 9, 128)


def test_the_first_step_of_ode_is_the_pipeline_s_euler_step(pipeline, tiny_ltx2):
    """Both start from the same noise: the network's first input and output are equal, whoever samples."""
    with recorded(pipeline.transformer) as theirs:
        generate(pipeline, output_type="latent")
    sampler = sampler_of(tiny_ltx2)
    with recorded(sampler.handle.modules["transformer"]) as ours:
        video_of(sampler, sampler_kind="ode", sampling_timesteps=(1000.0,))
    for name in ("hidden_states", "audio_hidden_states", "encoder_hidden_states", "audio_encoder_hidden_states"):
        assert torch.equal(ours[0][0][name], theirs[0][0][name])
    assert all(torch.equal(a, b) for a, b in zip(ours[0][1], theirs[0][1], strict=True))


def test_the_distilled_schedule_is_sampled_and_exported_as_diffusers_samples_it(tiny_ltx2, tmp_path):
    schedule = FewStepSchedule.from_denoising_steps([1000 * sigma for sigma in DISTILLED_SIGMA_VALUES])
    sampler = sampler_of(tiny_ltx2, flow_shift=1)
    asked = ValidationRequest(sampler.handle, Path("unused"), sampling_timesteps=schedule.timesteps)
    ours = sampler.sampler.sample_latents(asked, PROMPT, torch.Generator().manual_seed(3))
    weights = {"transformer": sampler.handle.modules["transformer"].state_dict()}
    out = tmp_path / "out"
    notes = export_pipeline(
        tiny_ltx2, out, weights, pipeline_config=LtxConfig(flow_shift=1), student_schedule=lambda warp: schedule
    )
    assert "with scheduler=FlowMatchEulerDiscreteScheduler() and sigmas=[1, 0.99375, 0.9875, 0.98125, 0.975" in notes[1]
    pipeline = open_pipeline(str(out))
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler()
    video, sound = generate(pipeline, steps=8, sigmas=DISTILLED_SIGMA_VALUES, output_type="latent")
    video = video_statistics(sampler.sampler.folder).normalise(pack_video(video))
    sound = audio_statistics(sampler.sampler.folder).normalise(pack_audio(sound))
    torch.testing.assert_close(ours, torch.cat([video, sound], dim=1), rtol=0, atol=5e-5)


@pytest.mark.parametrize("request_", [{"sampling_steps": 2}, {"sampling_timesteps": (1000.0, 500.0)}])
def test_a_run_on_video_alone_samples_without_sound(tiny_ltx2, request_):
    sampler = sampler_of(tiny_ltx2, streams=("video",))
    with recorded(sampler.handle.modules["transformer"]) as calls:
        video = video_of(sampler, **request_)
    assert video.audio is None
    assert video.frames.shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert all(call["isolate_modalities"] for call, _ in calls)


def test_one_step_is_the_euler_step_from_pure_noise(tiny_ltx2):
    sampler = sampler_of(tiny_ltx2)
    one, few = video_of(sampler, sampling_steps=1), video_of(sampler, sampling_timesteps=(1000.0,))
    assert torch.equal(one.frames, few.frames)
    torch.testing.assert_close(one.audio, few.audio, rtol=0, atol=1e-5)


def test_validation_samples_under_the_autocast_of_training(run_config, tiny_ltx2, tmp_path):
    prompts = tmp_path / "prompts.json"
    size = {"height": HEIGHT, "width": WIDTH, "num_frames": FRAMES}
    prompts.write_text(json.dumps({"data": [{"caption": "a cat", **size}]}))
    cfg = run_config(
        paths={"student": tiny_ltx2},
        mixed_precision="bf16",
        log_validation=True,
        validation_dataset_file=str(prompts),
        validation_sampling_steps=[2],
        validation_guidance_scale=[2.0],
    )
    components = LtxFamily().build(cfg)
    outputs = []
    handle = components.bundle["student"]
    handle.modules["transformer"].transformer_blocks[0].ff.register_forward_hook(lambda *call: outputs.append(call[2]))
    components.validator.log_validation(
        1, ValidationRequest(handle, tmp_path / "out", sampling_steps=2, guidance_scale=2.0)
    )
    assert [output.dtype for output in outputs] == [torch.bfloat16] * 2
    info = probe(tmp_path / "out" / "00.mp4")
    assert (info.frames, info.has_audio, info.height, info.width) == (FRAMES, True, HEIGHT, WIDTH)
