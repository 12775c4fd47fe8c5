"""Wan 2.2 TI2V: every token has a noise level of its own, and a given first frame is clean, at level 0 and without loss."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import WanImageToVideoPipeline, WanPipeline

from fastvideo_core.contracts.family import ModelComponents
from fastvideo_core.diffusion.reduce import mean_per_sample
from fastvideo_core.diffusion.rollout import FewStepSchedule, rollout
from fastvideo_core.errors import ConfigError, DataError
from fastvideo_data.prompt_fit import ImageUse
from fastvideo_testing.prepared_family import one_sample
from fastvideo_wan.config import WanConfig
from fastvideo_wan.encoder import WanEncoder
from fastvideo_wan.family import WanFamily
from fastvideo_wan.first_frame import FIRST_FRAME, GIVEN
from fastvideo_wan.folder import open_folder

CPU = torch.device("cpu")
FIRST = 6
"""Tokens of a latent frame of 4 x 6."""
BUILT: dict[tuple[object, ...], ModelComponents] = {}
SIZE = {"height": 64, "width": 96, "num_frames": 9}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def build(run_config, tiny_ti2v):
    """A run in which first frames are given with a probability, a student and a teacher; made once, and trained by no test."""

    def make(probability: float = 1.0, **more):
        key = (probability, *more.items())
        if key not in BUILT:
            roles = {"student": True, "teacher": False}
            pipeline = {"first_frame_probability": probability, "negative_prompt": "blurred"}
            cfg = run_config(roles, paths=dict.fromkeys(roles, tiny_ti2v), pipeline=pipeline, **more)
            BUILT[key] = WanFamily().build(cfg)
            BUILT[key].adapter.on_train_start()
        return BUILT[key]

    return make


@pytest.fixture
def raw():
    """Two clips of 9 frames at 64 x 96."""
    return {
        "vae_latent": torch.randn(2, 48, 3, 4, 6, generator=generator(5)),
        "text_embedding": torch.randn(2, 9, 32, generator=generator(6)),
        "text_embedding_length": torch.tensor([9, 4]),
    }


@contextmanager
def calls(handle):
    """Inside, the list grows by the arguments of every call of the network."""
    made = []
    hook = handle.modules["transformer"].register_forward_pre_hook(
        lambda module, args, kwargs: made.append(kwargs), with_kwargs=True
    )
    yield made
    hook.remove()


@contextmanager
def handed_to(scheduler):
    """Inside, the list grows by (prediction, t, latents) of every step that a pipeline asks its scheduler for."""
    made, step = [], scheduler.step
    scheduler.step = lambda *given, **options: made.append(given) or step(*given, **options)
    yield made
    scheduler.step = step


def plain(path: str, image: bool):
    pipeline = (WanImageToVideoPipeline if image else WanPipeline).from_pretrained(path)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def picture() -> PIL.Image.Image:
    return PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8))


# --- the folder and its data --------------------------------------------------------------------------------------------


def test_sizes_and_frame_rate_are_those_of_the_folder(tiny_ti2v, tiny, tiny_a14b):
    folder = open_folder(tiny_ti2v, where="x")
    assert (folder.channels, folder.spatial_factor, folder.size_multiple, folder.expand_timesteps) == (48, 16, 32, True)
    assert (folder.geometry.fps, folder.geometry.size_multiple, folder.geometry.frames_divisor) == (24.0, 32, 4)
    assert (folder.usual.size.height, folder.usual.size.width, folder.usual.size.num_frames) == (704, 1280, 121)
    for path in (tiny, tiny_a14b):
        other = open_folder(path, where="x")
        assert (other.channels, other.geometry.size_multiple, other.geometry.fps) == (16, 16, 16.0)
        assert {name for name, value in other.latent_space.items() if folder.latent_space[name] != value} == {
            "channels",
            "latents_mean",
            "latents_std",
            "spatial factor",
            "expand_timesteps",
        }


def test_an_index_that_names_the_pipeline_of_images_is_the_same_folder(tiny_ti2v, tmp_path):
    copy = Path(shutil.copytree(tiny_ti2v, tmp_path / "copy"))
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, "_class_name": "WanImageToVideoPipeline"}))
    one, other = (open_folder(str(path), where="x") for path in (tiny_ti2v, copy))
    assert replace(other, path=one.path, pipeline=one.pipeline) == one
    assert one.image_use == ImageUse(optional=("image_path",))


def test_preprocess_encodes_as_the_pipeline_does_and_a_clip_s_first_latent_frame_is_its_first_image_s(tiny_ti2v):
    """The reason why rows need no column for the given frame."""
    encoder = WanEncoder(tiny_ti2v, CPU)
    clip = torch.randint(0, 256, (1, 9, 64, 96, 3), dtype=torch.uint8, generator=generator())
    clip[0, 0] = torch.from_numpy(np.asarray(picture()).copy())
    (row,) = encoder.encode_videos(clip)
    assert row["vae_latent"].shape == (48, 3, 4, 6)
    (alone,) = encoder.encode_videos(clip[:, :1])
    assert torch.equal(row["vae_latent"][:, :1], alone["vae_latent"])
    pipeline = plain(tiny_ti2v, image=True)
    pixels = pipeline.video_processor.preprocess(picture(), height=64, width=96)
    torch.testing.assert_close(pixels[0], clip[0, 0].permute(2, 0, 1) / 127.5 - 1, atol=1e-6, rtol=0)
    _, condition, _ = pipeline.prepare_latents(pixels, 1, 48, 64, 96, 9, torch.float32, CPU)
    folder = open_folder(tiny_ti2v, where="x")
    own = (alone["vae_latent"] - torch.tensor(folder.latents_mean).view(-1, 1, 1, 1)) / torch.tensor(
        folder.latents_std
    ).view(-1, 1, 1, 1)
    torch.testing.assert_close(own, condition[0], atol=1e-5, rtol=1e-4)


# --- the network's call -------------------------------------------------------------------------------------------------


def test_predict_noise_is_what_the_pipeline_hands_its_scheduler_with_an_image(build, tiny_ti2v, raw):
    built, pipeline = build(), plain(tiny_ti2v, image=True)
    text = torch.randn(1, 9, 32, generator=generator(6))
    padded = torch.nn.functional.pad(text, (0, 0, 0, 503))
    noise = torch.randn(1, 48, 3, 4, 6, generator=generator(7))
    with handed_to(pipeline.scheduler) as steps:
        pipeline(
            picture(), prompt_embeds=padded, latents=noise, num_inference_steps=2, guidance_scale=1.0,
            output_type="latent", **SIZE,
        )  # fmt: skip
    pixels = pipeline.video_processor.preprocess(picture(), height=64, width=96)
    _, condition, _ = pipeline.prepare_latents(pixels, 1, 48, 64, 96, 9, torch.float32, CPU)
    clip = torch.cat([condition, torch.zeros(1, 48, 2, 4, 6)], dim=2)
    batch = built.adapter.prepare_batch({"vae_latent": clip, "vae_latent_normalised": True, "text_embedding": text})
    assert len(steps) == 2
    for prediction, t, latents in steps:
        with torch.no_grad():
            ours = built.adapter.predict_noise(built.bundle["student"], latents, t.reshape(1), batch, conditional=True)
        assert torch.equal(ours, prediction)


def test_predict_noise_is_what_the_pipeline_hands_its_scheduler_without_an_image(build, tiny_ti2v):
    """To the bit with t per frame, which is the pipeline's own call; a t per sample is the same to 1e-6 and cheaper."""
    built, pipeline = build(0.0), plain(tiny_ti2v, image=False)
    text = torch.randn(1, 9, 32, generator=generator(6))
    padded = torch.nn.functional.pad(text, (0, 0, 0, 503))
    noise = torch.randn(1, 48, 3, 4, 6, generator=generator(7))
    with handed_to(pipeline.scheduler) as steps:
        pipeline(
            prompt_embeds=padded, latents=noise, num_inference_steps=2, guidance_scale=1.0, output_type="latent", **SIZE
        )
    batch = built.adapter.prepare_batch({"vae_latent": noise, "text_embedding": text})
    assert batch.context == {}
    for prediction, t, latents in steps:
        with torch.no_grad(), calls(built.bundle["student"]) as made:
            per_frame, per_sample = (
                built.adapter.predict_noise(built.bundle["student"], latents, level, batch, conditional=True)
                for level in (t.expand(1, 1, 3, 1, 1), t.reshape(1))
            )
        assert torch.equal(per_frame, prediction)
        torch.testing.assert_close(per_sample, prediction, atol=1e-6, rtol=0)
        assert [call["timestep"].shape for call in made] == [(1, 18), (1,)]


# --- given first frames -------------------------------------------------------------------------------------------------


def test_a_given_frame_enters_clean_and_at_zero_and_the_others_as_they_are(build, raw):
    built = build()
    batch = built.adapter.prepare_batch(raw)
    noisy, t = torch.randn(batch.latents.shape, generator=generator()), torch.tensor([100.0, 900.0])
    with calls(built.bundle["student"]) as made:
        built.adapter.predict_noise(built.bundle["student"], noisy, t, batch, conditional=True)
        by_frame = t.view(2, 1, 1, 1, 1).expand(2, 1, 3, 1, 1)
        built.adapter.predict_noise(built.bundle["student"], noisy, by_frame, batch, conditional=True)
    for call in made:
        assert torch.equal(call["hidden_states"][:, :, :1], batch.latents[:, :, :1])
        assert torch.equal(call["hidden_states"][:, :, 1:], noisy[:, :, 1:])
        assert call["timestep"].shape == (2, 3 * FIRST)
        assert call["timestep"][:, :FIRST].abs().max() == 0
        assert torch.equal(call["timestep"][:, FIRST:], t[:, None].expand(2, 2 * FIRST))
    levels = by_frame.clone()
    levels[:, :, 0] = 0
    added = built.adapter.add_noise(batch.latents, noisy, levels)
    assert torch.equal(added[:, :, :1], batch.latents[:, :, :1])


def test_it_stays_clean_in_x0_also_under_guidance_and_takes_no_gradient(build, raw):
    built = build()
    adapter, student = built.adapter, built.bundle["student"]
    batch = adapter.prepare_batch(raw)
    noisy, t = torch.randn(batch.latents.shape, generator=generator()).requires_grad_(), torch.tensor([100.0, 900.0])
    for x0 in (
        adapter.predict_x0(student, noisy, t, batch, conditional=True),
        adapter.predict_x0(student, noisy, t, batch, conditional=False),
        adapter.predict_x0_guided(student, noisy, t, batch, guidance_scale=3.0),
    ):
        torch.testing.assert_close(x0[:, :, :1], batch.latents[:, :, :1], atol=1e-5, rtol=0)
        assert (x0[:, :, 1:] - batch.latents[:, :, 1:]).abs().mean() > 0.1
    x0.square().sum().backward()
    assert noisy.grad[:, :, 0].abs().max() == 0
    assert noisy.grad[:, :, 1:].abs().max() > 0
    dropped = batch.with_conditioning_dropped(torch.tensor([True, False]))
    assert torch.equal(dropped.context[GIVEN], batch.context[GIVEN])
    assert torch.equal(batch.with_both_conditionings().context[FIRST_FRAME], torch.cat([batch.latents[:, :, :1]] * 2))


def test_the_loss_does_not_see_it(build, raw):
    batch = build().adapter.prepare_batch(raw)
    errors = torch.ones_like(batch.latents)
    errors[:, :, 0] = 1e6
    assert mean_per_sample(errors, batch.loss_weight).tolist() == [1.0, 1.0]
    assert batch.loss_weight.shape == (2, 1, 3, 1, 1)
    mask = torch.rand(2, 1, 3, 4, 6)
    masked = build().adapter.prepare_batch({**raw, "loss_mask": mask})
    assert torch.equal(masked.loss_weight, mask * batch.loss_weight)


@pytest.mark.parametrize("kind", ["ode", "sde"])
def test_a_few_step_rollout_keeps_it(build, raw, kind):
    built = build()
    batch = built.adapter.prepare_batch(raw)

    def predict_x0(noisy, t):
        return built.adapter.predict_x0(built.bundle["teacher"], noisy, t, batch, conditional=True)

    noise = torch.randn(batch.latents.shape, generator=generator())
    schedule = FewStepSchedule((1000.0, 600.0, 300.0), 1000)
    with torch.no_grad(), calls(built.bundle["teacher"]) as made:
        out = rollout(predict_x0, noise, schedule, kind=kind, generator=generator(1))
    assert torch.equal(out[:, :, :1], batch.latents[:, :, :1])
    assert all(torch.equal(call["hidden_states"][:, :, :1], batch.latents[:, :, :1]) for call in made)


def test_it_is_drawn_per_sample_and_a_mixed_batch_is_two_single_ones(build, raw):
    built = build(0.5)
    adapter, teacher = built.adapter, built.bundle["teacher"]
    batch = adapter.prepare_batch(raw, generator=generator(1))
    assert batch.context[GIVEN].flatten(1).any(1).tolist() != [True, True]
    mixed = next(
        batch
        for seed in range(20)
        if (batch := adapter.prepare_batch(raw, generator=generator(seed))).context[GIVEN].sum() == 1
    )
    noisy, t = torch.randn(mixed.latents.shape, generator=generator()), torch.tensor([300.0, 700.0])
    with torch.no_grad():
        both = adapter.predict_noise(teacher, noisy, t, mixed, conditional=True)
        for index in range(2):
            part = slice(index, index + 1)
            alone = adapter.predict_noise(teacher, noisy[part], t[part], one_sample(mixed, index), conditional=True)
            torch.testing.assert_close(alone[0], both[index], atol=1e-5, rtol=1e-4)
        free = int(mixed.context[GIVEN].flatten(1).any(1).logical_not().nonzero())
        without = build(0.0).adapter.prepare_batch(raw)
        plain_call = adapter.predict_noise(teacher, noisy, t, without, conditional=True)
    torch.testing.assert_close(plain_call[free], both[free], atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="needs a generator"):
        adapter.prepare_batch(raw)


def test_images_are_never_given_whole(build, raw):
    batch = build().adapter.prepare_batch({**raw, "vae_latent": raw["vae_latent"][:, :, :1]})
    assert not batch.context[GIVEN].any()
    assert batch.loss_weight.min() == 1


def test_data_free_training_takes_first_frames_from_the_data(build, raw):
    adapter = build(num_height=64, num_width=96, num_frames=13).adapter
    batch = adapter.prepare_batch(raw, latents_source="zeros")
    assert batch.latents.shape == (2, 48, 4, 4, 6)
    assert torch.equal(batch.latents[:, :, :1], adapter.prepare_batch(raw).latents[:, :, :1])
    assert batch.latents[:, :, 1:].abs().max() == 0
    other = build(num_height=64, num_width=64, num_frames=13).adapter
    with pytest.raises(ConfigError, match="asks for 4 x 4 latents, but the data's first frames are 4 x 6"):
        other.prepare_batch(raw, latents_source="zeros")
    del raw["vae_latent"]
    with pytest.raises(DataError, match="captions but no vae_latent"):
        adapter.prepare_batch(raw, latents_source="zeros")


def test_what_no_run_can_mean_is_refused(build, run_config, raw):
    raw["trajectory_latents"] = raw["vae_latent"][:, None].repeat(1, 2, 1, 1, 1, 1)
    raw["trajectory_timesteps"] = torch.tensor([[1000.0, 0.0]] * 2)
    with pytest.raises(ConfigError, match="the trajectories of the data are of videos from prompts alone"):
        build().adapter.prepare_batch(raw, latents_source="trajectory")
    cfg = run_config(pipeline={"first_frame_probability": 0.5})
    family = WanFamily()
    with pytest.raises(ConfigError, match="0, or a TI2V pipeline"):
        family.check_schedule(cfg, (), latents_source="data", many_steps=False)
    two_frames = torch.zeros(2, 1, 2, 1, 1)
    with pytest.raises(ValueError, match="one per latent frame"):
        build().adapter.sample_timesteps(two_frames, raw["vae_latent"])
    with pytest.raises(ValueError, match=r"takes one noise level per sample, \[B\]$"):
        WanFamily().build(run_config()).adapter.sample_timesteps(
            torch.zeros(2, 1, 2, 1, 1), torch.zeros(2, 16, 2, 4, 6)
        )
    with pytest.raises(ValueError, match="less than or equal to 1"):
        WanConfig(first_frame_probability=1.5)
