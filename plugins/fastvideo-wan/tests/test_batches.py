"""What the adapter makes of the data's latents, masks and texts, and of a run that has no latents."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import WanPipeline

from fastvideo_core.diffusion.reduce import mean_per_sample
from fastvideo_core.errors import ConfigError, DataError
from fastvideo_wan.config import NEGATIVE_PROMPT
from fastvideo_wan.family import WanFamily
from fastvideo_wan.tiny import LATENTS_MEAN, LATENTS_STD


def test_the_loss_counts_by_the_data_s_mask_and_masked_places_get_no_gradient(components, raw_batch, run_config):
    mask = torch.zeros(2, 1, 2, 4, 6, dtype=torch.float16)
    mask[0, 0, 1, 2, 3], mask[1, 0, 0, :, 1] = 1, 0.5
    masked = {**raw_batch, "loss_mask": mask}
    batch = components.adapter.prepare_batch(masked)
    prediction = torch.randn_like(batch.latents).requires_grad_()
    mean_per_sample((prediction - batch.latents) ** 2, batch.loss_weight).sum().backward()
    error = 2 * (prediction - batch.latents).detach()
    expected = torch.zeros_like(error)
    expected[0, :, 1, 2, 3] = error[0, :, 1, 2, 3] / 16
    expected[1, :, 0, :, 1] = error[1, :, 0, :, 1] / (16 * 4)
    torch.testing.assert_close(prediction.grad, expected)
    assert components.adapter.prepare_batch(masked, latents_source="zeros").loss_weight is None
    assert "loss_mask" in WanFamily().optional_tensors(run_config())


def test_latents_are_normalised_unless_they_are_already(components, raw_batch):
    mean = torch.tensor(LATENTS_MEAN).view(1, -1, 1, 1, 1)
    std = torch.tensor(LATENTS_STD).view(1, -1, 1, 1, 1)
    batch = components.adapter.prepare_batch(raw_batch)
    torch.testing.assert_close(batch.latents, (raw_batch["vae_latent"] - mean) / std)
    raw_batch["vae_latent_normalised"] = True
    assert torch.equal(components.adapter.prepare_batch(raw_batch).latents, raw_batch["vae_latent"])


def test_stored_half_precision_becomes_float32(components, raw_batch):
    raw_batch["vae_latent"] = raw_batch["vae_latent"].half()
    raw_batch["text_embedding"] = raw_batch["text_embedding"].bfloat16()
    batch = components.adapter.prepare_batch(raw_batch)
    assert batch.latents.dtype == batch.conditioning["text"].dtype == torch.float32


@pytest.mark.parametrize("length", [9, 600])
def test_text_is_zero_padded_or_cut_to_512(components, raw_batch, length):
    raw_batch["text_embedding"] = torch.ones(2, length, 32)
    raw_batch["text_embedding_length"] = torch.tensor([length, 4])
    text = components.adapter.prepare_batch(raw_batch).conditioning["text"]
    assert text.shape == (2, 512, 32)
    assert text[0].sum() == min(length, 512) * 32
    assert text[1].sum() == 4 * 32
    assert text[1, 4:].abs().sum() == 0


def test_num_latent_t_cuts_the_end(run_config, raw_batch):
    adapter = WanFamily().build(run_config(num_latent_t=1)).adapter
    raw_batch["vae_latent_normalised"] = True
    assert torch.equal(adapter.prepare_batch(raw_batch).latents, raw_batch["vae_latent"][:, :, :1])


@pytest.mark.parametrize("length", [{"num_latent_t": 3}, {"num_frames": 9}, {"num_latent_t": 3, "num_frames": 9}])
def test_zeros_need_no_latents_in_the_data(run_config, raw_batch, length):
    del raw_batch["vae_latent"]
    adapter = WanFamily().build(run_config(num_height=32, num_width=48, **length)).adapter
    batch = adapter.prepare_batch(raw_batch, latents_source="zeros")
    assert batch.latents.shape == (2, 16, 3, 4, 6)
    assert batch.latents.abs().sum() == 0


@pytest.mark.parametrize(("training", "frames"), [({}, 2), ({"num_latent_t": 1}, 1)])
def test_zeros_take_the_size_of_the_data_s_latents_when_the_run_names_none(run_config, raw_batch, training, frames):
    adapter = WanFamily().build(run_config(**training)).adapter
    batch = adapter.prepare_batch(raw_batch, latents_source="zeros")
    assert batch.latents.shape == (2, 16, frames, 4, 6)
    assert batch.latents.abs().sum() == 0


@pytest.mark.parametrize(
    ("training", "messages"),
    [
        ({}, ["training.num_height", "training.num_width", "training.num_frames"]),
        ({"num_height": 32, "num_width": 40, "num_frames": 5}, ["training.num_width: is 40"]),
        ({"num_height": 32, "num_width": 48, "num_frames": 6}, ["training.num_frames: is 6", "multiples of 4 plus 1"]),
        (
            {"num_height": 32, "num_width": 48, "num_frames": 81, "num_latent_t": 5},
            ["81 frames are 21 latent frames, not 5"],
        ),
    ],
)
def test_zeros_without_a_usable_size(run_config, raw_batch, training, messages):
    if not training:
        del raw_batch["vae_latent"]
    adapter = WanFamily().build(run_config(**training)).adapter
    with pytest.raises(ConfigError) as error:
        adapter.prepare_batch(raw_batch, latents_source="zeros")
    for message in messages:
        assert message in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("vae_latent", None, "captions but no vae_latent"),
        ("vae_latent", torch.zeros(2, 8, 2, 4, 6), r"vae_latent has shape \[8, 2, 4, 6\]"),
        ("vae_latent", torch.zeros(2, 16, 2, 5, 6), "H a multiple of 2"),
        ("vae_latent", torch.zeros(2, 16, 2, 4, 6, dtype=torch.int64), "vae_latent has dtype int64"),
        ("text_embedding", torch.zeros(2, 9, 32, dtype=torch.uint8), "text_embedding has dtype uint8"),
        ("text_embedding", None, "no text_embedding"),
        ("text_embedding", torch.zeros(2, 9, 64), r"text_embedding has shape \[9, 64\]"),
    ],
)
def test_data_that_does_not_fit_names_the_sample(components, raw_batch, key, value, message):
    raw_batch = {name: item for name, item in {**raw_batch, key: value}.items() if item is not None}
    with pytest.raises(DataError, match=message) as error:
        components.adapter.prepare_batch(raw_batch)
    assert "sample one" in str(error.value)


def test_the_negative_prompt_is_encoded_once_as_the_pipeline_does_and_shared_by_the_batch(run_config, raw_batch, tiny):
    built = WanFamily().build(run_config(pipeline={"negative_prompt": "ugly &amp;  blurred"}))
    before = torch.get_rng_state()
    built.adapter.on_train_start()
    first = built.adapter.prepare_batch(raw_batch).negative_conditioning["text"]
    built.adapter.on_train_start()
    again = built.adapter.prepare_batch(raw_batch).negative_conditioning["text"]
    assert torch.equal(torch.get_rng_state(), before)
    assert first.shape == (2, 512, 32)
    assert first.stride(0) == 0
    assert first.data_ptr() == again.data_ptr()
    pipeline = WanPipeline.from_pretrained(tiny)
    with torch.no_grad():
        expected, _ = pipeline.encode_prompt("ugly &amp;  blurred", None, False, max_sequence_length=512)
    assert torch.equal(first[:1], expected)


def test_by_default_guidance_leads_away_from_the_published_text_and_dropped_captions_are_empty(
    run_config, raw_batch, tiny
):
    built = WanFamily().build(run_config())
    built.adapter.on_train_start()
    batch = built.adapter.prepare_batch(raw_batch)
    dropped = batch.with_conditioning_dropped(torch.tensor([False, True]))
    pipeline = WanPipeline.from_pretrained(tiny)
    with torch.no_grad():
        published, empty = (
            pipeline.encode_prompt(text, None, False, max_sequence_length=512)[0][0] for text in (NEGATIVE_PROMPT, "")
        )
    assert torch.equal(batch.negative_conditioning["text"][0], published)
    assert not torch.equal(published, empty)
    assert torch.equal(dropped.conditioning["text"][0], batch.conditioning["text"][0])
    assert torch.equal(dropped.conditioning["text"][1], empty)


def test_the_stored_configuration_names_the_negative_prompt_in_full(run_config):
    cfg = run_config()
    assert cfg.pipeline_config.negative_prompt == "default"
    assert WanFamily().resolve(cfg, latents_source="data").negative_prompt == NEGATIVE_PROMPT
    empty = cfg.pipeline_config.model_copy(update={"negative_prompt": ""})
    assert WanFamily().resolve(replace(cfg, pipeline_config=empty), latents_source="data").negative_prompt == ""
