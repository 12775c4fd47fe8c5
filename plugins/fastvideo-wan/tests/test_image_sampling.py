"""Image-to-video: sampling and what is exported, beside the plain pipeline at equal noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanImageToVideoPipeline
from PIL import Image

from fastvideo_core.config.run import LoraConfig
from fastvideo_core.contracts.validator import ValidationPrompt, ValidationRequest
from fastvideo_core.diffusion.rollout import FewStepSchedule, rollout
from fastvideo_core.errors import DataError
from fastvideo_core.weights.lora import add_lora
from fastvideo_diffusers.schedule_fit import timestep_shift
from fastvideo_wan.config import WanConfig
from fastvideo_wan.export import export_pipeline
from fastvideo_wan.export_lora import export_lora
from fastvideo_wan.loading import load_transformer
from fastvideo_wan.sampler import build_sampler

from .image_inputs import CAPTION, CPU, build, clips, plain, stored

VARIANTS = ("i2v", "flf2v", "i2v_a14b")
VIDEO = clips(1, 5)[0]


@pytest.fixture(scope="module")
def prompt(tmp_path_factory):
    """A prompt with the images that a variant's pipeline is called with; both with `ends`."""
    folder = tmp_path_factory.mktemp("images")
    for name, frame in (("first", VIDEO[0]), ("last", VIDEO[-1])):
        Image.fromarray(frame.numpy()).save(folder / f"{name}.png")
    first, last = folder / "first.png", folder / "last.png"
    size = {"height": 32, "width": 48, "num_frames": 5}

    def make(variant: str, *, ends: bool = False) -> ValidationPrompt:
        more = {"last_image_path": last} if ends or variant == "flf2v" else {}
        return ValidationPrompt(CAPTION, image_path=first, **more, **size)

    return make


def sampled(path: str, prompt: ValidationPrompt, **how):
    sampler = build_sampler(path, WanConfig(negative_prompt="blurred"), device=CPU)
    how = {"sampling_steps": 3, "guidance_scale": 3.0} | how
    request = ValidationRequest(sampler.handle, None, **how)
    return sampler.sampler.sample_latents(request, prompt, torch.Generator().manual_seed(3))


@pytest.mark.parametrize("variant", VARIANTS)
def test_latents_are_the_pipeline_s_at_equal_noise(tiny_images, prompt, variant):
    scales = {"guidance_scale": 3.0} | ({"guidance_scale_2": 2.0} if variant == "i2v_a14b" else {})
    ours = sampled(tiny_images[variant], prompt(variant), **scales)
    expected, handed = plain(tiny_images[variant], VIDEO, num_inference_steps=3, **scales)
    assert torch.equal(ours, expected)
    assert variant != "i2v_a14b" or {bool(t >= 900) for _, t, _ in handed} == {True, False}


def test_two_networks_take_a_last_image_too_and_one_with_an_image_encoder_does_not(tiny_images, prompt):
    """Wan 2.2's have no features, of which two would not fit."""
    ours = sampled(tiny_images["i2v_a14b"], prompt("i2v_a14b", ends=True))
    last = Image.fromarray(VIDEO[-1].numpy())
    options = {"num_inference_steps": 3, "guidance_scale": 3.0}
    expected, _ = plain(tiny_images["i2v_a14b"], VIDEO, last_image=last, **options)
    assert torch.equal(ours, expected)
    with pytest.raises(DataError, match=r"has an image, last_image_path"):
        sampled(tiny_images["i2v"], prompt("i2v", ends=True))
    for variant in VARIANTS:
        with pytest.raises(DataError, match="has no image_path"):
            sampled(tiny_images[variant], replace(prompt(variant), image_path=None, last_image_path=None))


def test_an_image_is_encoded_once(tiny_images, prompt, monkeypatch):
    sampler = build_sampler(tiny_images["i2v"], WanConfig(), device=CPU)
    encoder, made = sampler.sampler._image_encoder, []
    encode = encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda images: made.append(len(images)) or encode(images))
    request = ValidationRequest(sampler.handle, None, sampling_steps=1)
    latents = [
        sampler.sampler.sample_latents(request, prompt("i2v"), torch.Generator().manual_seed(3)) for _ in range(2)
    ]
    assert made == [1]
    assert torch.equal(*latents)


@pytest.mark.parametrize("variant", VARIANTS)
def test_few_steps_are_the_rollout_of_training(tiny_images, run_config, prompt, variant):
    """On what preprocess stored of the same frames, with the student's schedule on both sides of the boundary."""
    path = tiny_images[variant]
    schedule = FewStepSchedule.from_denoising_steps([1000, 750, 500], warp=timestep_shift(3.0, 1000))
    how = {"sampler_kind": "ode", "sampling_timesteps": schedule.timesteps, "guidance_scale": 1.0}
    ours = sampled(path, prompt(variant), **how)
    built = build(run_config, path)
    batch = built.adapter.prepare_batch(stored(path, VIDEO[None]))
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = rollout(
            lambda x, t: built.adapter.predict_x0(built.bundle["student"], x, t, batch, conditional=True),
            noise,
            schedule,
            kind="ode",
        )
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


@pytest.fixture
def trained(tiny_images):
    """Weights that are not the base's, of all networks of a variant."""

    def make(variant: str):
        generator = torch.Generator().manual_seed(9)
        names = ("transformer", "transformer_2") if variant == "i2v_a14b" else ("transformer",)
        loaded = {
            name: load_transformer(tiny_images[variant], dtype=torch.float32, device=CPU, name=name) for name in names
        }
        return {
            name: {
                key: value + 0.05 * torch.randn(value.shape, generator=generator)
                for key, value in network.state_dict().items()
            }
            for name, network in loaded.items()
        }

    return make


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_export_makes_the_same_latents_in_plain_diffusers(tiny_images, prompt, trained, tmp_path, variant):
    """A few-step student's: the pipeline's class, image encoder and boundary are the base's."""
    out = tmp_path / f"out-{variant}"
    schedule = FewStepSchedule.from_denoising_steps([1000, 750], warp=timestep_shift(3.0, 1000))
    weights = trained(variant)
    notes = export_pipeline(
        tiny_images[variant], out, weights, pipeline_config=WanConfig(), student_schedule=lambda warp: schedule
    )
    assert notes[0] == "sample it with WanImageToVideoPipeline(num_inference_steps=2, guidance_scale=1.0)"
    base = {path.name for path in Path(tiny_images[variant]).iterdir()}
    assert {path.name for path in out.iterdir()} == base
    sampler = build_sampler(str(out), WanConfig(), device=CPU)
    request = ValidationRequest(sampler.handle, None, sampler_kind="ode", sampling_timesteps=sampler.student.timesteps)
    ours = sampler.sampler.sample_latents(request, prompt(variant), torch.Generator().manual_seed(3))
    pipeline = WanImageToVideoPipeline.from_pretrained(out)
    assert torch.equal(pipeline.transformer.state_dict()["proj_out.weight"], weights["transformer"]["proj_out.weight"])
    expected, _ = plain(str(out), VIDEO, pipeline=pipeline, num_inference_steps=2)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("variant", ["i2v", "i2v_a14b"])
def test_adapters_load_in_the_pipeline_of_images(tiny_images, run_config, tmp_path, variant, random_adapters):
    """A file for each network; the layers for an image's features are among them."""
    pytest.importorskip("peft")
    path = tiny_images[variant]
    student = build(run_config, path).bundle["student"]
    lora = LoraConfig(rank=2, alpha=1.0)
    add_lora(student, lora)
    adapters = random_adapters(student)
    notes = export_lora(path, tmp_path / variant, adapters, lora=lora)
    assert all("WanImageToVideoPipeline.load_lora_weights" in note for note in notes)
    pipeline = WanImageToVideoPipeline.from_pretrained(path)
    for name in adapters:
        more = {} if name == "transformer" else {"load_into_transformer_2": True}
        file = "pytorch_lora_weights" + ("" if name == "transformer" else f"_{name}") + ".safetensors"
        pipeline.load_lora_weights(tmp_path / variant, weight_name=file, **more)
    loaded, _ = plain(path, VIDEO, pipeline=pipeline, num_inference_steps=2)
    merged = {}
    for name in adapters:
        merged[name] = load_transformer(path, dtype=torch.float32, device=CPU, name=name).state_dict()
        for key, down in adapters[name].items():
            if ".lora_A." in key:
                up = adapters[name][key.replace("lora_A", "lora_B")]
                merged[name][f"{key.partition('.lora_A')[0]}.weight"] += 0.5 * up @ down
    assert variant == "i2v_a14b" or any("add_k_proj.lora_A" in key for key in adapters["transformer"])
    out = tmp_path / f"merged-{variant}"
    export_pipeline(path, out, merged, pipeline_config=WanConfig(), student_schedule=None)
    expected, _ = plain(str(out), VIDEO, num_inference_steps=2)
    torch.testing.assert_close(loaded, expected, atol=1e-4, rtol=1e-4)
    untouched, _ = plain(path, VIDEO, num_inference_steps=2)
    assert np.abs((loaded - untouched).numpy()).max() > 1e-3
