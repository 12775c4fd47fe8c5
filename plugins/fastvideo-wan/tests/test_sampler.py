"""Videos through WanPipeline, and that few-step sampling is the rollout of training."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import WanPipeline

from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.validator import ValidationPrompt, ValidationRequest
from fastvideo_core.diffusion.rollout import FewStepSchedule, rollout
from fastvideo_core.errors import ConfigError, DataError
from fastvideo_diffusers.text import pad_text
from fastvideo_wan.config import NEGATIVE_PROMPT, WanConfig
from fastvideo_wan.family import WanFamily
from fastvideo_wan.latents import decode_frames
from fastvideo_wan.sampler import build_sampler
from fastvideo_wan.tiny import write_tiny_pipeline

PROMPT = ValidationPrompt("a cat", height=32, width=48, num_frames=5)
SCHEDULES = {1: (1000.0,), 2: (1000.0, 500.0), 4: (1000.0, 900.0, 750.0, 500.0)}


def _seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def student(tiny):
    return build_sampler(tiny, WanConfig(), device=torch.device("cpu"))


@pytest.mark.parametrize("kind", ["ode", "sde"])
@pytest.mark.parametrize("steps", SCHEDULES)
def test_few_step_sampling_is_the_rollout_of_training_bit_for_bit(student, components, tmp_path, kind, steps):
    request = ValidationRequest(student.handle, tmp_path, sampler_kind=kind, sampling_timesteps=SCHEDULES[steps])
    before = torch.get_rng_state()
    latents = student.sampler.sample_latents(request, PROMPT, _seeded())
    assert torch.equal(torch.get_rng_state(), before)

    text = pad_text(student.sampler.prompts.get("a cat")[None], 512)[0]
    batch = TrainingBatch(latents=torch.zeros_like(latents), conditioning={"text": text})
    generator = _seeded()
    noise = torch.randn(1, 16, 2, 4, 6, generator=generator)
    expected = rollout(
        lambda x, t: components.adapter.predict_x0(student.handle, x, t, batch, conditional=True),
        noise,
        FewStepSchedule(SCHEDULES[steps]),
        kind=kind,
        generator=generator,
    )
    assert latents.shape == (1, 16, 2, 4, 6)
    assert torch.equal(latents, expected)


def test_few_step_sampling_honours_guidance(student, tmp_path):
    def sample(scale: float) -> torch.Tensor:
        request = ValidationRequest(
            student.handle, tmp_path, sampler_kind="ode", sampling_timesteps=(1000.0,), guidance_scale=scale
        )
        return student.sampler.sample_latents(request, PROMPT, _seeded())

    one, two, three = sample(1.0), sample(2.0), sample(3.0)
    assert (two - one).abs().max() > 1e-3
    torch.testing.assert_close(three - two, two - one, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scheduler", ["euler", "unipc"])
def test_many_step_sampling_is_plain_wan_pipeline(tmp_path, scheduler):
    write_tiny_pipeline(tmp_path / "w", scheduler=scheduler, flow_shift=5.0)
    config = WanConfig(negative_prompt="blurred")
    sampler = build_sampler(str(tmp_path / "w"), config, device=torch.device("cpu"))
    request = ValidationRequest(sampler.handle, tmp_path, sampling_steps=3, guidance_scale=4.0)
    latents = sampler.sampler.sample_latents(request, PROMPT, _seeded())
    plain = WanPipeline.from_pretrained(tmp_path / "w")
    plain.set_progress_bar_config(disable=True)
    options = {"height": 32, "width": 48, "num_frames": 5, "num_inference_steps": 3, "guidance_scale": 4.0}
    frames = plain("a cat", "blurred", generator=_seeded(), **options).frames[0]
    ours = decode_frames(sampler.sampler.autoencoder(), latents, sampler.sampler.folder)[0].numpy()
    assert np.array_equal(ours, frames)
    video = sampler.sample(request, PROMPT, _seeded())
    assert video.fps == 16
    assert video.frames.dtype == torch.uint8
    assert np.array_equal(video.frames.numpy(), (frames * 255).round().astype(np.uint8))


@pytest.mark.parametrize("few", [False, True], ids=["many steps", "few steps"])
def test_a_prompt_s_own_negative_prompt_replaces_the_run_s(tiny, tmp_path, few):
    def sample(of_run, of_prompt):
        sampler = build_sampler(tiny, WanConfig(negative_prompt=of_run), device=torch.device("cpu"))
        how = {"sampling_timesteps": (1000.0, 500.0)} if few else {"sampling_steps": 2}
        request = ValidationRequest(sampler.handle, tmp_path, guidance_scale=4.0, **how)
        prompt = replace(PROMPT, negative_prompt=of_prompt)
        return sampler.sampler.sample_latents(request, prompt, _seeded())

    published = sample(NEGATIVE_PROMPT, None)
    assert torch.equal(sample("default", None), published)
    assert torch.equal(sample("blurred", "default"), published)
    assert torch.equal(sample("default", ""), sample("", None))
    assert torch.equal(sample("default", "blurred"), sample("blurred", None))
    assert len({float(one.sum()) for one in (published, sample("", None), sample("blurred", None))}) == 3


def test_flow_shift_of_the_run_reaches_many_step_sampling(tiny, tmp_path):
    videos = []
    for shift in (3.0, None, 9.0):
        sampler = build_sampler(tiny, WanConfig(flow_shift=shift), device=torch.device("cpu"))
        request = ValidationRequest(sampler.handle, tmp_path, sampling_steps=3)
        videos.append(sampler.sampler.sample_latents(request, PROMPT, _seeded()))
    assert torch.equal(videos[0], videos[1])
    assert not torch.equal(videos[0], videos[2])


def test_equal_seeds_give_equal_videos_and_others_do_not(student, tmp_path):
    request = ValidationRequest(student.handle, tmp_path, sampler_kind="sde", sampling_timesteps=SCHEDULES[2])
    one, again, other = (student.sample(request, PROMPT, _seeded(seed)).frames for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_the_request_s_number_of_steps_holds_and_core_puts_the_prompt_s_own_into_it(student, tmp_path):
    request = ValidationRequest(student.handle, tmp_path, sampling_steps=2)
    three = ValidationPrompt("a cat", height=32, width=48, num_frames=5, num_inference_steps=3)
    direct = ValidationRequest(student.handle, tmp_path, sampling_steps=3)
    latents = student.sampler.sample_latents
    assert torch.equal(latents(request, three, _seeded()), latents(request, PROMPT, _seeded()))
    assert torch.equal(latents(request.for_prompt(three), three, _seeded()), latents(direct, PROMPT, _seeded()))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"num_frames": 6}, "num_frames is 6"),
        ({"height": 40}, "height is 40"),
        ({"width": 100}, "use 96 or 112"),
    ],
)
def test_sizes_are_never_rounded(student, tmp_path, size, message):
    prompt = ValidationPrompt(**{"caption": "x", "height": 32, "width": 48, "num_frames": 5, **size})
    with pytest.raises(DataError, match=message):
        student.sample(ValidationRequest(student.handle, tmp_path, sampling_steps=2), prompt, _seeded())


def test_images_are_refused_rather_than_ignored(student, tmp_path):
    prompt = ValidationPrompt("x", 32, 48, 5, image_path=tmp_path / "first.png")
    with pytest.raises(DataError, match="the prompt has an image, image_path"):
        student.sample(ValidationRequest(student.handle, tmp_path, sampling_steps=2), prompt, _seeded())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampling_steps": 2, "guidance_scale": 0.5}, "guidance scale 0.5 is below 1"),
        ({"sampler_kind": "sde", "sampling_steps": 2}, "sde without timesteps"),
        ({}, "neither a number of steps nor timesteps"),
    ],
)
def test_requests_that_wan_cannot_serve(student, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        student.sample(ValidationRequest(student.handle, tmp_path, **settings), PROMPT, _seeded())


def test_the_default_size_is_480_by_832_and_81_frames(student):
    size = student.sampler.fit_prompt(ValidationPrompt("x"))
    assert (size.height, size.width, size.num_frames) == (480, 832, 81)


def test_the_sampler_warps_timesteps_as_the_adapter_does(student, components):
    t = torch.tensor([1000.0, 750.0, 10.0], dtype=torch.float64)
    assert torch.equal(student.shift_and_clamp_timestep(t), components.adapter.shift_and_clamp_timestep(t))


def _prompts_file(tmp_path, **entry):
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps({"data": [{"caption": "a dog", **entry}]}))
    return str(file)


@pytest.mark.parametrize("mixed_precision", ["no", "bf16"])
def test_validation_writes_videos_and_leaves_training_as_it_was(run_config, tmp_path, mixed_precision):
    cfg = run_config(
        log_validation=True,
        validation_dataset_file=_prompts_file(tmp_path),
        num_height=32,
        num_width=48,
        num_frames=5,
        mixed_precision=mixed_precision,
    )
    built = WanFamily().build(cfg)
    handle = built.bundle["student"]
    weights = [p.clone() for _, p in handle.named_parameters()]
    before = torch.get_rng_state()
    for label, how in (("few", {"sampling_timesteps": (1000.0, 500.0)}), ("many", {"sampling_steps": 2})):
        request = ValidationRequest(handle, tmp_path / "out", guidance_scale=2.0, label=label, **how)
        built.validator.log_validation(1, request)
    assert torch.equal(torch.get_rng_state(), before)
    assert handle.modules["transformer"].training
    assert all(torch.equal(a, p) for a, (_, p) in zip(weights, handle.named_parameters(), strict=True))
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names == [f"{label}-00.{end}" for label in ("few", "many") for end in ("mp4", "png", "txt")]


def test_a_validation_prompt_that_does_not_fit_fails_before_training(run_config, tmp_path):
    cfg = run_config(log_validation=True, validation_dataset_file=_prompts_file(tmp_path, num_frames=10))
    with pytest.raises(DataError, match=r'prompts.json, data\[0\] \("a dog"\): num_frames is 10'):
        WanFamily().build(cfg)


def test_validation_without_prompts_says_so(run_config):
    with pytest.raises(ConfigError, match="validation needs prompts"):
        WanFamily().build(run_config(log_validation=True))
