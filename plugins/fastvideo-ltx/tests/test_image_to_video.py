"""Videos that begin, or begin and end, with given images: latents of both generations equal those of diffusers' own classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    LTX2ConditionPipeline,
    LTX2ImageToVideoPipeline,
    LTXConditionPipeline,
    LTXImageToVideoPipeline,
)
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition
from ltx2_pipeline import PLAIN, recorded
from PIL import Image

from fastvideo_core.contracts.validator import ValidationPrompt, ValidationRequest
from fastvideo_core.errors import ConfigError, DataError
from fastvideo_ltx.config import LtxConfig
from fastvideo_ltx.family import build_sampler
from fastvideo_ltx.layout import pack_video
from fastvideo_ltx.ltx2.latents import pack_audio, video_statistics

SIZE = {"height": 64, "width": 96, "num_frames": 9}
FIRST = 6
"""Tokens of a frame of 2 x 3 latents."""
LEVELS = (1000.0, 700.0, 400.0)


class AtLevels(FlowMatchEulerDiscreteScheduler):
    """Whatever levels a pipeline asks for: those of LEVELS."""

    def set_timesteps(self, num_inference_steps=None, device=None, sigmas=None, mu=None, timesteps=None):
        super().set_timesteps(sigmas=[t / 1000 for t in LEVELS], device=device)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("images")
    for number, name in enumerate(("first", "last")):
        pixels = np.random.default_rng(number).integers(0, 255, (64, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return {name: folder / f"{name}.png" for name in ("first", "last")}


def plain_latents(path, images, *, guidance=1.0, levels=None, own=None, **more):
    """Of diffusers' class for the images, as our sampler packs them."""
    base = DiffusionPipeline.from_pretrained(path)
    pictures = [Image.open(file) for file in images]
    name = type(base).__name__
    given = {"prompt": "a cat", **SIZE, "guidance_scale": guidance, "num_inference_steps": 3}
    if name.startswith("LTX2"):
        given |= {"audio_guidance_scale": guidance, "frame_rate": 24.0, **PLAIN}
        if len(pictures) == 1:
            kind, given["image"] = LTX2ImageToVideoPipeline, pictures[0]
        else:
            kind = LTX2ConditionPipeline
            given["conditions"] = [LTX2VideoCondition(one, index=i) for one, i in zip(pictures, (0, -1), strict=True)]
        given |= {} if levels is None else {"sigmas": [t / 1000 for t in levels]}
    else:
        kind, given["frame_rate"] = LTXImageToVideoPipeline, 25
        if name == "LTXConditionPipeline":
            kind = LTXConditionPipeline
            given["conditions"] = [
                LTXVideoCondition(one, frame_index=i) for one, i in zip(pictures, (0, 8), strict=False)
            ]
            given |= {} if levels is None else {"timesteps": list(levels)}
        else:
            given["image"] = pictures[0]
    parts = dict(base.components)
    if levels is not None:
        parts["scheduler"] = AtLevels() if kind is LTXImageToVideoPipeline else FlowMatchEulerDiscreteScheduler()
    pipeline = kind(**parts)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    latents = pipeline(**{**given, **more}, generator=generator, output_type="latent", return_dict=False)
    if name.startswith("LTX2"):
        folder = own.sampler.folder
        video = video_statistics(folder).normalise(pack_video(latents[0]))
        mean, std = pipeline.audio_vae.latents_mean, pipeline.audio_vae.latents_std
        return torch.cat([video, (pack_audio(latents[1]) - mean) / std], dim=1)
    return pack_video(latents[0]) if latents[0].ndim == 5 else latents[0]


def prompt_of(images) -> ValidationPrompt:
    names = dict(zip(("image_path", "last_image_path"), images, strict=False))
    return ValidationPrompt("a cat", **SIZE, **names)


def our_latents(sampler, images, **asked):
    request = ValidationRequest(sampler.handle, Path("unused"), **asked)
    return sampler.sampler.sample_latents(request, prompt_of(images), torch.Generator().manual_seed(3))


def sampler_of(path, **config):
    return build_sampler(path, LtxConfig(negative_prompt="", **config), device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("which", "count", "guidance"),
    [
        ("tiny", 1, 3.0),
        ("tiny_condition", 1, 1.0),
        ("tiny_condition", 2, 3.0),
        ("tiny_ltx2", 1, 3.0),
        ("tiny_ltx2", 2, 3.0),
    ],
)
def test_many_steps_from_images_give_the_latents_of_diffusers_own_class(request, images, which, count, guidance):
    path, given = request.getfixturevalue(which), list(images.values())[:count]
    own = sampler_of(path)
    latents = our_latents(own, given, sampling_steps=3, guidance_scale=guidance)
    expected = plain_latents(path, given, guidance=guidance, own=own)
    torch.testing.assert_close(latents, expected, rtol=0, atol=2e-5)
    assert (latents - our_latents(own, [], sampling_steps=3, guidance_scale=guidance)).abs().max() > 0.1


@pytest.mark.parametrize(("which", "count"), [("tiny", 1), ("tiny_condition", 2), ("tiny_ltx2", 1), ("tiny_ltx2", 2)])
def test_a_few_step_student_goes_the_way_of_diffusers_own_class(request, images, which, count):
    path, given = request.getfixturevalue(which), list(images.values())[:count]
    own = sampler_of(path)
    latents = our_latents(own, given, sampler_kind="ode", sampling_timesteps=LEVELS)
    torch.testing.assert_close(latents, plain_latents(path, given, levels=LEVELS, own=own), rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", ["ode", "sde"])
@pytest.mark.parametrize("which", ["tiny", "tiny_condition", "tiny_ltx2"])
def test_a_given_first_frame_is_clean_at_level_zero_and_kept(request, images, which, kind):
    own = sampler_of(request.getfixturevalue(which))
    with recorded(own.handle.modules["transformer"]) as calls:
        latents = our_latents(own, [images["first"]], sampler_kind=kind, sampling_timesteps=LEVELS)
    assert [call["timestep"][0, FIRST].item() for call, _ in calls] == list(LEVELS)
    for call, _ in calls:
        assert call["timestep"][:, :FIRST].abs().max() == 0
        assert torch.equal(call["hidden_states"][:, :FIRST], latents[:, :FIRST])
    assert (latents[:, FIRST:] - calls[-1][0]["hidden_states"][:, FIRST : latents.shape[1]].mean()).abs().max() > 0.1


@pytest.mark.parametrize(("which", "own_crf"), [("tiny_ltx2", 33), ("tiny_ltx25", 18)])
def test_an_image_is_compressed_as_the_pipeline_compresses_it(request, images, which, own_crf):
    path = request.getfixturevalue(which)
    own = sampler_of(path)
    latents = our_latents(own, [images["first"]], sampling_steps=2)
    for crf in (None, own_crf, 0):
        expected = plain_latents(path, [images["first"]], own=own, num_inference_steps=2, image_crf=crf)
        assert torch.allclose(latents[:, :FIRST], expected[:, :FIRST], atol=1e-5) == (crf != 0)


def test_noise_on_the_first_frame_is_the_pipeline_s(tiny_condition, images):
    given, latents = [images["first"]], {}
    for noise in (None, 0.0, 0.4):
        own = sampler_of(tiny_condition, **({} if noise is None else {"first_frame_noise": noise}))
        latents[noise] = our_latents(own, given, sampling_steps=3)
        expected = plain_latents(tiny_condition, given, image_cond_noise_scale=0.15 if noise is None else noise)
        torch.testing.assert_close(latents[noise], expected, rtol=0, atol=2e-5)
    assert (latents[0.0] - latents[0.4]).abs().max() > 1e-3


@pytest.mark.parametrize("steps", [{"sampling_steps": 2}, {"sampler_kind": "ode", "sampling_timesteps": LEVELS}])
@pytest.mark.parametrize(("which", "frame", "index"), [("tiny_condition", 5, 5), ("tiny_ltx2", 9, 2)])
def test_images_at_any_frame_with_a_strength_are_those_of_the_condition_pipeline(
    request, images, which, frame, index, steps
):
    path = request.getfixturevalue(which)
    own, size = sampler_of(path), {**SIZE, "num_frames": 17}
    at = ((images["first"], 0, 0.7), (images["last"], frame, 0.4))
    prompt = ValidationPrompt("a cat", **size, conditions=at)
    asked = ValidationRequest(own.handle, Path("unused"), **steps)
    latents = own.sampler.sample_latents(asked, prompt, torch.Generator().manual_seed(3))
    kind = LTX2VideoCondition if which == "tiny_ltx2" else LTXVideoCondition
    place = "index" if which == "tiny_ltx2" else "frame_index"
    given = [
        kind(Image.open(one), **{place: i}, strength=strength)
        for (one, _, strength), i in zip(at, (0, index), strict=True)
    ]
    levels = steps.get("sampling_timesteps")
    more = {"conditions": given, "num_frames": 17, "num_inference_steps": 2}
    expected = plain_latents(path, list(images.values()), levels=levels, own=own, **more)
    torch.testing.assert_close(latents, expected, rtol=0, atol=5e-5)


def test_images_that_fit_no_frame_are_told_at_once(tiny, tiny_ltx2, images):
    def asked(path, frame):
        prompt = ValidationPrompt("a cat", **SIZE, conditions=((images["last"], frame, 1.0),))
        sampler_of(path).sampler.fit_prompt(prompt)

    with pytest.raises(DataError, match=r"has an image at frame 4\n.*frames 0, 1, 9, 17, \.\.\., below 9"):
        asked(tiny_ltx2, 4)
    with pytest.raises(DataError, match="has an image at frame 9"):
        asked(tiny_ltx2, 9)
    with pytest.raises(DataError, match=r"the prompt has conditions\n.*takes no images at other frames"):
        asked(tiny, 0)


def test_what_a_pipeline_cannot_be_given_is_refused(tiny, tiny_ltx2, images):
    with pytest.raises(DataError, match="the prompt has an image, last_image_path\n"):
        our_latents(sampler_of(tiny), images.values(), sampling_steps=2)
    with pytest.raises(ConfigError, match="sampler_kind sde with images at other frames"):
        our_latents(sampler_of(tiny_ltx2), images.values(), sampler_kind="sde", sampling_timesteps=LEVELS)
