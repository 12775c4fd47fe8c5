"""Wan 2.2 TI2V: sampling with an image and without, and exports that plain diffusers samples alike."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import WanImageToVideoPipeline, WanPipeline

from fastvideo_core.config.run import LoraConfig
from fastvideo_core.contracts.validator import ValidationPrompt, ValidationRequest
from fastvideo_core.diffusion.rollout import FewStepSchedule, rollout
from fastvideo_core.errors import DataError
from fastvideo_core.weights.lora import add_lora
from fastvideo_data.prompt_fit import read_prompt_images
from fastvideo_data.video_sizes import VideoSize
from fastvideo_diffusers.schedule_fit import timestep_shift
from fastvideo_wan.config import WanConfig
from fastvideo_wan.encoder import WanEncoder
from fastvideo_wan.export import export_pipeline
from fastvideo_wan.export_lora import export_lora
from fastvideo_wan.family import WanFamily
from fastvideo_wan.folder import open_folder
from fastvideo_wan.loading import load_transformer
from fastvideo_wan.sampler import build_sampler

CPU = torch.device("cpu")
SIZE = {"height": 64, "width": 64, "num_frames": 5}
CONFIG = WanConfig(negative_prompt="blurred")
FEW = FewStepSchedule.from_denoising_steps([1000, 600, 300], warp=timestep_shift(3.0, 1000))


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A file that is no video's size."""
    file = tmp_path_factory.mktemp("images") / "first.png"
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 100, 3), dtype=np.uint8)).save(file)
    return file


def pixels(picture) -> torch.Tensor:
    """The image as it is cropped for the video, uint8 [H, W, 3]."""
    cropped = read_prompt_images(ValidationPrompt("a cat", image_path=picture), VideoSize(64, 64, 5)).first
    assert cropped is not None
    return cropped


def normalised(path: str, latents: torch.Tensor) -> torch.Tensor:
    folder = open_folder(path, where="x")
    mean, std = (torch.tensor(one).view(-1, 1, 1, 1) for one in (folder.latents_mean, folder.latents_std))
    return (latents - mean) / std


def sampled(sampler, image=None, *, few=False, kind="ode", guidance_scale=1.0):
    steps = {"sampling_timesteps": FEW.timesteps, "sampler_kind": kind} if few else {"sampling_steps": 3}
    request = ValidationRequest(sampler.handle, None, guidance_scale=guidance_scale, **steps)
    prompt = ValidationPrompt("a cat", image_path=image, **SIZE)
    return sampler.sampler.sample_latents(request, prompt, generator())


def plain(path, image=None, *, steps=3, lora=None, **options):
    """The latents of diffusers alone."""
    pipeline = (WanPipeline if image is None else WanImageToVideoPipeline).from_pretrained(path)
    pipeline.set_progress_bar_config(disable=True)
    if lora is not None:
        pipeline.load_lora_weights(lora, weight_name="pytorch_lora_weights.safetensors")
    given = {} if image is None else {"image": PIL.Image.fromarray(pixels(image).numpy())}
    options = {**SIZE, "num_inference_steps": steps, "output_type": "latent", "guidance_scale": 1.0, **options}
    return pipeline(prompt="a cat", generator=generator(), **given, **options).frames


@pytest.fixture(scope="module")
def sampler(tiny_ti2v):
    return build_sampler(tiny_ti2v, CONFIG, device=CPU)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_many_steps_with_an_image_and_without_are_diffusers(sampler, tiny_ti2v, picture, guidance_scale):
    options = {"guidance_scale": guidance_scale, "negative_prompt": "blurred"}
    with_image, without = (sampled(sampler, image, guidance_scale=guidance_scale) for image in (picture, None))
    assert torch.equal(with_image, plain(tiny_ti2v, picture, **options))
    assert torch.equal(without, plain(tiny_ti2v, **options))
    assert (with_image - without)[:, :, 1:].abs().max() > 1e-3


def test_the_first_frame_of_the_result_is_the_image_s_own_latent(sampler, tiny_ti2v, picture):
    (alone,) = WanEncoder(tiny_ti2v, CPU).encode_videos(pixels(picture)[None, None])
    wanted = normalised(tiny_ti2v, alone["vae_latent"])
    for few in (False, True):
        found = sampled(sampler, picture, few=few)
        torch.testing.assert_close(found[0, :, :1], wanted, atol=1e-5, rtol=1e-4)
        assert found.shape == (1, 48, 2, 4, 4)


@pytest.mark.parametrize("kind", ["ode", "sde"])
def test_few_steps_with_an_image_are_the_rollout_of_training(sampler, run_config, tiny_ti2v, picture, kind):
    """Whose batch is a clip that begins with the image."""
    cfg = run_config(
        paths={"student": tiny_ti2v}, pipeline={"first_frame_probability": 1.0, "negative_prompt": "blurred"}
    )
    built = WanFamily().build(cfg)
    clip = torch.cat([pixels(picture)[None], torch.zeros(4, 64, 64, 3, dtype=torch.uint8)])
    encoder = WanEncoder(tiny_ti2v, CPU)
    (row,) = encoder.encode_videos(clip[None])
    (text,) = encoder.encode_texts(["a cat"])
    batch = built.adapter.prepare_batch({"vae_latent": row["vae_latent"][None], "text_embedding": text[None]})
    draws = generator()
    noise = torch.randn(1, 48, 2, 4, 4, generator=draws)

    def predict_x0(noisy, t):
        return built.adapter.predict_x0(sampler.handle, noisy, t, batch, conditional=True)

    with torch.no_grad():
        wanted = rollout(predict_x0, noise, FEW, kind=kind, generator=draws)
    torch.testing.assert_close(sampled(sampler, picture, few=True, kind=kind), wanted, atol=1e-4, rtol=1e-4)


def test_an_export_makes_the_same_latents_in_plain_diffusers_many_and_few_steps(tiny_ti2v, picture, tmp_path):
    draws = generator(9)
    state = load_transformer(tiny_ti2v, dtype=torch.float32, device=CPU).state_dict()
    trained = {name: value + 0.05 * torch.randn(value.shape, generator=draws) for name, value in state.items()}
    for name, schedule in (("many", None), ("few", lambda warp: FEW)):
        notes = export_pipeline(
            tiny_ti2v, tmp_path / name, {"transformer": trained}, pipeline_config=CONFIG, student_schedule=schedule
        )
        own = build_sampler(str(tmp_path / name), CONFIG, device=CPU)
        for image in (picture, None):
            ours = sampled(own, image, few=schedule is not None)
            torch.testing.assert_close(ours, plain(tmp_path / name, image), atol=1e-4, rtol=1e-4)
    assert notes[0] == "sample it with WanPipeline(num_inference_steps=3, guidance_scale=1.0)"
    assert notes[1] == "text alone goes through WanPipeline, a prompt with an image through WanImageToVideoPipeline"
    assert open_folder(str(tmp_path / "few"), where="x").expand_timesteps


def test_exported_adapters_are_loaded_by_the_pipeline_of_images(run_config, tiny_ti2v, picture, tmp_path):
    pytest.importorskip("peft")
    student = WanFamily().build(run_config(paths={"student": tiny_ti2v})).bundle["student"]
    lora = LoraConfig(rank=2, alpha=1.0)
    add_lora(student, lora)
    draws = generator(2)
    adapters = {
        key: 0.3 * torch.randn(value.shape, generator=draws)
        for key, value in student.modules["transformer"].state_dict().items()
        if ".lora_" in key
    }
    export_lora(tiny_ti2v, tmp_path / "lora", {"transformer": adapters}, lora=lora)
    merged = load_transformer(tiny_ti2v, dtype=torch.float32, device=CPU).state_dict()
    for key, down in adapters.items():
        if ".lora_A." in key:
            up = adapters[key.replace("lora_A", "lora_B")]
            merged[f"{key.partition('.lora_A')[0]}.weight"] += 0.5 * up @ down
    export_pipeline(
        tiny_ti2v, tmp_path / "merged", {"transformer": merged}, pipeline_config=CONFIG, student_schedule=None
    )
    loaded = plain(tiny_ti2v, picture, lora=tmp_path / "lora")
    torch.testing.assert_close(loaded, plain(tmp_path / "merged", picture), atol=1e-4, rtol=1e-4)


def test_a_last_image_and_sizes_of_other_multiples_are_refused(sampler, tiny, picture):
    last = ValidationPrompt("a cat", image_path=picture, last_image_path=picture, **SIZE)
    with pytest.raises(DataError, match="the prompt has an image, last_image_path"):
        sampler.sampler.fit_prompt(last)
    with pytest.raises(DataError, match="height is 48"):
        sampler.sampler.fit_prompt(ValidationPrompt("a cat", height=48))
    fitted = sampler.sampler.fit_prompt(ValidationPrompt("a cat"))
    assert (fitted.height, fitted.width, fitted.num_frames) == (704, 1280, 121)
    assert sampler.sampler.geometry.fps == 24.0
    with pytest.raises(DataError, match="samples from text alone"):
        build_sampler(tiny, CONFIG, device=CPU).sampler.fit_prompt(ValidationPrompt("a cat", image_path=picture))
