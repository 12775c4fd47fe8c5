"""Videos through LTX's pipelines, and that few-step sampling is the rollout of training."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLLTXVideo, LTXConditionPipeline, LTXPipeline
from diffusers.pipelines.ltx2.utils import DEFAULT_NEGATIVE_PROMPT

from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.validator import ValidationPrompt, ValidationRequest
from fastvideo_core.diffusion.rollout import FewStepSchedule, rollout
from fastvideo_core.errors import ConfigError, DataError
from fastvideo_core.placing.materialise import materialise
from fastvideo_diffusers.text import pad_text
from fastvideo_ltx.adapter import FPS, LAYOUT, TEXT, TEXT_MASK
from fastvideo_ltx.config import LtxConfig
from fastvideo_ltx.family import LtxFamily, build_sampler
from fastvideo_ltx.layout import TokenLayout, pack_video

CPU = torch.device("cpu")
PROMPT = ValidationPrompt("a cat", height=64, width=96, num_frames=9)
OPTIONS = {"height": 64, "width": 96, "num_frames": 9}
PUBLISHED = {
    "tiny": "worst quality, inconsistent motion, blurry, jittery, distorted",
    "tiny_ltx2": DEFAULT_NEGATIVE_PROMPT,
}
SCHEDULES = {1: (1000.0,), 2: (1000.0, 500.0), 4: (1000.0, 900.0, 750.0, 500.0)}


def _seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def student(tiny):
    return build_sampler(tiny, LtxConfig(), device=CPU)


@pytest.mark.parametrize("kind", ["ode", "sde"])
@pytest.mark.parametrize("steps", SCHEDULES)
def test_few_step_sampling_is_the_rollout_of_training_bit_for_bit(student, components, tmp_path, kind, steps):
    request = ValidationRequest(student.handle, tmp_path, sampler_kind=kind, sampling_timesteps=SCHEDULES[steps])
    before = torch.get_rng_state()
    latents = student.sampler.sample_latents(request, PROMPT, _seeded())
    assert torch.equal(torch.get_rng_state(), before)

    text, mask = pad_text(student.sampler.prompts.get("a cat")[None], 128)
    conditioning, context = {TEXT: text, TEXT_MASK: mask}, {FPS: torch.tensor([25.0], dtype=torch.float64)}
    batch = TrainingBatch(
        torch.zeros_like(latents), conditioning, context=context, extras={LAYOUT: TokenLayout(2, 2, 3)}
    )
    generator = _seeded()
    noise = pack_video(torch.randn(1, 128, 2, 2, 3, generator=generator))
    expected = rollout(
        lambda x, t: components.adapter.predict_x0(student.handle, x, t, batch, conditional=True),
        noise,
        FewStepSchedule(SCHEDULES[steps]),
        kind=kind,
        generator=generator,
    )
    assert latents.shape == (1, 12, 128)
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


@pytest.mark.parametrize("fps", [None, 12.0])
@pytest.mark.parametrize("kind", [LTXPipeline, LTXConditionPipeline])
def test_many_step_sampling_is_the_plain_pipeline(tiny, tiny_condition, tmp_path, kind, fps):
    path = tiny if kind is LTXPipeline else tiny_condition
    sampler = build_sampler(path, LtxConfig(negative_prompt="blurred", fps=fps), device=CPU)
    request = ValidationRequest(sampler.handle, tmp_path, sampling_steps=3, guidance_scale=4.0)
    video = sampler.sample(request, PROMPT, _seeded())
    plain = kind.from_pretrained(path)
    plain.set_progress_bar_config(disable=True)
    options = {**OPTIONS, "num_inference_steps": 3, "guidance_scale": 4.0, "frame_rate": fps or 25}
    frames = plain(prompt="a cat", negative_prompt="blurred", generator=_seeded(), output_type="np", **options).frames[
        0
    ]
    assert video.fps == (fps or 25)
    assert video.frames.dtype == torch.uint8
    assert np.array_equal(video.frames.numpy(), (frames * 255).round().astype(np.uint8))
    assert frames.std() > 0.01


@pytest.mark.parametrize("few", [False, True], ids=["many steps", "few steps"])
@pytest.mark.parametrize("generation", ["tiny", "tiny_ltx2"])
def test_a_prompt_s_own_negative_prompt_replaces_the_run_s(request, tmp_path, generation, few):
    path = request.getfixturevalue(generation)

    def sample(of_run, of_prompt):
        sampler = build_sampler(path, LtxConfig(negative_prompt=of_run), device=CPU)
        how = {"sampling_timesteps": (1000.0, 500.0)} if few else {"sampling_steps": 2}
        asked = ValidationRequest(sampler.handle, tmp_path, guidance_scale=4.0, **how)
        return sampler.sampler.sample_latents(asked, replace(PROMPT, negative_prompt=of_prompt), _seeded())

    published = sample(PUBLISHED[generation], None)
    assert torch.equal(sample("default", None), published)
    assert torch.equal(sample("blurred", "default"), published)
    assert torch.equal(sample("default", ""), sample("", None))
    assert len({float(one.sum()) for one in (published, sample("", None), sample("blurred", None))}) == 3


def test_a_vae_with_timestep_conditioning_decodes_as_the_plain_pipeline(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "t")
    config = AutoencoderKLLTXVideo.load_config(tiny, subfolder="vae")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = AutoencoderKLLTXVideo.from_config({**config, "timestep_conditioning": True})
    vae.save_pretrained(tmp_path / "t" / "vae")
    plain = LTXPipeline.from_pretrained(tmp_path / "t")
    plain.set_progress_bar_config(disable=True)
    sampler = build_sampler(str(tmp_path / "t"), LtxConfig(decode_timestep=0.05), device=CPU)
    request = ValidationRequest(sampler.handle, tmp_path, sampling_steps=2)
    video = sampler.sample(request, PROMPT, _seeded())
    options = {**OPTIONS, "num_inference_steps": 2, "guidance_scale": 1.0, "decode_timestep": 0.05}
    frames = plain("a cat", generator=_seeded(), output_type="np", **options).frames[0]
    assert np.array_equal(video.frames.numpy(), (frames * 255).round().astype(np.uint8))


def test_one_step_is_finite(student, tmp_path):
    request = ValidationRequest(student.handle, tmp_path, sampling_steps=1)
    assert torch.isfinite(student.sampler.sample_latents(request, PROMPT, _seeded())).all()


@pytest.mark.parametrize("folder", ["tiny", "tiny_condition"])
def test_a_fixed_shift_reaches_many_step_sampling(request, tmp_path, folder):
    path = request.getfixturevalue(folder)
    samples = []
    for shift in (None, 3.0, 9.0):
        sampler = build_sampler(path, LtxConfig(flow_shift=shift), device=CPU)
        asked = ValidationRequest(sampler.handle, tmp_path, sampling_steps=3)
        samples.append(sampler.sampler.sample_latents(asked, PROMPT, _seeded()))
    assert len({float(sample.sum()) for sample in samples}) == 3
    assert all(torch.isfinite(sample).all() for sample in samples)


def test_a_dynamic_shift_is_that_of_the_video_and_equals_the_fixed_one(tiny, tmp_path):
    samples = []
    tokens = 2 * 2 * 3
    for shift in (None, float(np.exp(0.95 + (tokens - 1024) * 1.1 / 3072))):
        sampler = build_sampler(tiny, LtxConfig(flow_shift=shift), device=CPU)
        asked = ValidationRequest(sampler.handle, tmp_path, sampling_steps=3)
        samples.append(sampler.sampler.sample_latents(asked, PROMPT, _seeded()))
    torch.testing.assert_close(*samples, rtol=1e-4, atol=1e-4)


def test_equal_seeds_give_equal_videos_and_others_do_not(student, tmp_path):
    request = ValidationRequest(student.handle, tmp_path, sampler_kind="sde", sampling_timesteps=SCHEDULES[2])
    one, again, other = (student.sample(request, PROMPT, _seeded(seed)).frames for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"num_frames": 10}, "num_frames is 10"),
        ({"height": 40}, "height is 40"),
        ({"width": 100}, "use 96 or 128"),
    ],
)
def test_sizes_are_never_rounded(student, tmp_path, size, message):
    prompt = ValidationPrompt(**{"caption": "x", **OPTIONS, **size})
    with pytest.raises(DataError, match=message):
        student.sample(ValidationRequest(student.handle, tmp_path, sampling_steps=2), prompt, _seeded())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampling_steps": 2, "guidance_scale": 0.5}, "guidance scale 0.5 is below 1"),
        ({"sampler_kind": "sde", "sampling_steps": 2}, "sde without timesteps"),
        ({}, "neither a number of steps nor timesteps"),
    ],
)
def test_requests_that_ltx_cannot_serve(student, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        student.sample(ValidationRequest(student.handle, tmp_path, **settings), PROMPT, _seeded())


def test_the_default_size_is_the_pipeline_s(student):
    size = student.sampler.fit_prompt(ValidationPrompt("x"))
    assert (size.height, size.width, size.num_frames) == (512, 704, 161)


def test_a_checkpoint_s_schedule_is_warped_by_the_shift_of_its_run(tiny, components):
    sampler = build_sampler(tiny, LtxConfig(shift_tokens=1024), device=CPU)
    t = torch.tensor([1000.0, 750.0, 10.0], dtype=torch.float64)
    assert torch.equal(sampler.shift_and_clamp_timestep(t), components.adapter.shift_and_clamp_timestep(t))


def _prompts_file(tmp_path, **entry):
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps({"data": [{"caption": "a dog", **entry}]}))
    return str(file)


@pytest.mark.parametrize("mixed_precision", ["no", "bf16"])
@pytest.mark.parametrize("role", ["student", "teacher"])
def test_validation_writes_videos_and_leaves_training_as_it_was(run_config, tmp_path, mixed_precision, role):
    cfg = run_config(
        {"student": True, "teacher": False},
        log_validation=True,
        validation_dataset_file=_prompts_file(tmp_path),
        num_height=64,
        num_width=96,
        num_frames=9,
        mixed_precision=mixed_precision,
    )
    built = LtxFamily().build(cfg)
    for one in built.bundle:
        materialise(one)
    handle = built.bundle[role]
    weights = [p.clone() for _, p in handle.named_parameters()]
    before = torch.get_rng_state()
    for label, how in (("few", {"sampling_timesteps": (1000.0, 500.0)}), ("many", {"sampling_steps": 2})):
        request = ValidationRequest(handle, tmp_path / "out", guidance_scale=2.0, label=label, **how)
        built.validator.log_validation(1, request)
    assert torch.equal(torch.get_rng_state(), before)
    assert handle.modules["transformer"].training == (role == "student")
    assert all(torch.equal(a, p) for a, (_, p) in zip(weights, handle.named_parameters(), strict=True))
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names == [f"{label}-00.{end}" for label in ("few", "many") for end in ("mp4", "png", "txt")]


def test_a_validation_prompt_that_does_not_fit_fails_before_training(run_config, tmp_path):
    cfg = run_config(log_validation=True, validation_dataset_file=_prompts_file(tmp_path, num_frames=10))
    with pytest.raises(DataError, match=r'prompts.json, data\[0\] \("a dog"\): num_frames is 10'):
        LtxFamily().build(cfg)


def test_validation_without_prompts_says_so(run_config):
    with pytest.raises(ConfigError, match="validation needs prompts"):
        LtxFamily().build(run_config(log_validation=True))
