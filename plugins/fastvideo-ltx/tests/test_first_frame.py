"""First-frame conditioning: given tokens are clean, at t = 0, and without loss."""

from __future__ import annotations

import pytest
import torch

from fastvideo_core.diffusion.reduce import mean_per_sample
from fastvideo_core.errors import ConfigError, DataError
from fastvideo_ltx.adapter import CLEAN, GIVEN
from fastvideo_ltx.family import LtxFamily

FIRST = 6
"""Tokens of a frame of 2 x 3 latents."""


@pytest.fixture
def given(run_config):
    """A run in which every first frame is given."""
    built = LtxFamily().build(
        run_config({"student": True, "teacher": False}, pipeline={"first_frame_probability": 1.0})
    )
    built.adapter.on_train_start()
    return built


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _seen(handle) -> list[dict[str, torch.Tensor]]:
    calls = []
    handle.modules["transformer"].register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(kwargs), with_kwargs=True
    )
    return calls


def test_without_it_nothing_is_drawn_and_every_token_counts(components, raw_batch):
    generator = _generator()
    before = generator.get_state()
    batch = components.adapter.prepare_batch(raw_batch, generator=generator)
    assert GIVEN not in batch.context
    assert batch.loss_weight is None
    assert torch.equal(generator.get_state(), before)
    calls = _seen(components.bundle["student"])
    t = torch.tensor([100.0, 900.0])
    components.adapter.predict_noise(components.bundle["student"], batch.latents, t, batch, conditional=True)
    assert torch.equal(calls[0]["timestep"], t)


def test_given_tokens_enter_clean_and_at_zero_and_the_others_as_they_are(given, raw_batch):
    batch = given.adapter.prepare_batch(raw_batch)
    noisy, t = torch.randn_like(batch.latents), torch.tensor([100.0, 900.0])
    calls = _seen(given.bundle["student"])
    given.adapter.predict_noise(given.bundle["student"], noisy, t, batch, conditional=True)
    seen, levels = calls[0]["hidden_states"], calls[0]["timestep"]
    assert torch.equal(seen[:, :FIRST], batch.latents[:, :FIRST])
    assert torch.equal(seen[:, FIRST:], noisy[:, FIRST:])
    assert levels.shape == (2, 18)
    assert levels[:, :FIRST].abs().max() == 0
    assert torch.equal(levels[:, FIRST:], t[:, None].expand(2, 12))


def test_given_tokens_stay_clean_in_x0_also_under_guidance(given, raw_batch):
    adapter, teacher = given.adapter, given.bundle["teacher"]
    batch = adapter.prepare_batch(raw_batch)
    noisy, t = torch.randn_like(batch.latents), torch.tensor([100.0, 900.0])
    with torch.no_grad():
        for x0 in (
            adapter.predict_x0(teacher, noisy, t, batch, conditional=True),
            adapter.predict_x0(teacher, noisy, t, batch, conditional=False),
            adapter.predict_x0_guided(teacher, noisy, t, batch, guidance_scale=3.0),
        ):
            assert torch.allclose(x0[:, :FIRST], batch.latents[:, :FIRST], atol=1e-5)
            assert (x0[:, FIRST:] - batch.latents[:, FIRST:]).abs().min() > 0
    dropped = batch.with_conditioning_dropped(torch.tensor([True, False]))
    assert torch.equal(dropped.context[GIVEN], batch.context[GIVEN])


def test_the_loss_does_not_see_given_tokens(given, raw_batch):
    batch = given.adapter.prepare_batch(raw_batch)
    errors = torch.ones_like(batch.latents)
    errors[:, :FIRST] = 1e6
    assert mean_per_sample(errors, batch.loss_weight).tolist() == [1.0, 1.0]
    assert batch.loss_weight.shape == (2, 18, 1)


def test_a_mask_is_of_the_video_s_tokens_and_given_ones_stay_out(components, given, raw_batch):
    mask = torch.arange(18.0).reshape(1, 1, 3, 2, 3).half() / 18
    raw = {**raw_batch, "loss_mask": mask.expand(2, 1, 3, 2, 3)}
    tokens = (torch.arange(18.0) / 18).half().float().expand(2, 18)
    assert torch.equal(components.adapter.prepare_batch(raw).loss_weight[..., 0], tokens)
    free = (torch.arange(18) >= FIRST).float()
    assert torch.equal(given.adapter.prepare_batch(raw).loss_weight[..., 0], tokens * free)


def test_no_gradient_flows_through_given_tokens(given, raw_batch):
    batch = given.adapter.prepare_batch(raw_batch)
    noisy = torch.randn_like(batch.latents).requires_grad_()
    x0 = given.adapter.predict_x0(given.bundle["student"], noisy, torch.tensor([500.0]), batch, conditional=True)
    x0.square().sum().backward()
    assert noisy.grad[:, :FIRST].abs().max() == 0
    assert noisy.grad[:, FIRST:].abs().max() > 0


def test_it_is_drawn_per_sample_with_its_probability_from_the_generator(run_config):
    adapter = LtxFamily().build(run_config(pipeline={"first_frame_probability": 0.3})).adapter
    raw = {"vae_latent": torch.zeros(4000, 128, 2, 1, 1), "text_embedding": torch.zeros(4000, 1, 32)}
    batch = adapter.prepare_batch(raw, generator=_generator(1))
    assert batch.context[GIVEN].float().mean(0).tolist() == [pytest.approx(0.3, abs=0.03), 0.0]
    again = adapter.prepare_batch(raw, generator=_generator(1))
    assert torch.equal(batch.context[GIVEN], again.context[GIVEN])
    other = adapter.prepare_batch(raw, generator=_generator(2))
    assert not torch.equal(batch.context[GIVEN], other.context[GIVEN])
    with pytest.raises(ValueError, match="needs a generator"):
        adapter.prepare_batch(raw)


def test_a_sample_without_it_is_treated_as_in_a_run_without_it(run_config, raw_batch):
    velocities = []
    for probability in (0.0, 1e-9):
        built = LtxFamily().build(run_config(pipeline={"first_frame_probability": probability}))
        batch = built.adapter.prepare_batch(raw_batch, generator=_generator())
        with torch.no_grad():
            t = torch.tensor([100.0, 900.0])
            velocities.append(
                built.adapter.predict_noise(built.bundle["student"], batch.latents, t, batch, conditional=True)
            )
    torch.testing.assert_close(*velocities)


def test_noise_on_given_tokens_falls_with_the_square_of_the_level_and_is_not_in_x0(run_config, raw_batch):
    built = LtxFamily().build(run_config(pipeline={"first_frame_probability": 1.0, "first_frame_noise": 0.15}))
    adapter, student = built.adapter, built.bundle["student"]
    batch = adapter.prepare_batch(raw_batch, generator=_generator())
    noisy, t, calls = torch.randn_like(batch.latents), torch.tensor([200.0, 1000.0]), _seen(student)
    with torch.no_grad():
        x0 = adapter.predict_x0(student, noisy, t, batch, conditional=True)
    added = calls[0]["hidden_states"][:, :FIRST] - batch.latents[:, :FIRST]
    assert added[0].std().item() == pytest.approx(0.15 * 0.2**2, rel=0.1)
    assert added[1].std().item() == pytest.approx(0.15, rel=0.1)
    assert calls[0]["timestep"][:, :FIRST].abs().max() == 0
    assert torch.equal(x0[:, :FIRST], batch.latents[:, :FIRST])
    assert torch.equal(calls[0]["hidden_states"][:, FIRST:], noisy[:, FIRST:])
    with pytest.raises(ValueError, match="given first frames have noise"):
        adapter.prepare_batch(raw_batch)


def test_images_are_never_given_whole(given, raw_batch):
    raw_batch["vae_latent"] = raw_batch["vae_latent"][:, :, :1]
    batch = given.adapter.prepare_batch(raw_batch)
    assert not batch.context[GIVEN].any()
    assert batch.loss_weight.min() == 1


def test_data_free_training_takes_first_frames_from_the_data(run_config, raw_batch):
    cfg = run_config(pipeline={"first_frame_probability": 1.0}, num_height=64, num_width=96, num_frames=33)
    adapter = LtxFamily().build(cfg).adapter
    batch = adapter.prepare_batch(raw_batch, latents_source="zeros")
    assert batch.latents.shape == (2, 30, 128)
    assert torch.equal(batch.latents[:, :FIRST], adapter.prepare_batch(raw_batch).latents[:, :FIRST])
    assert batch.latents[:, FIRST:].abs().max() == 0
    assert torch.equal(batch.context[CLEAN], batch.latents)


def test_first_frames_of_another_size_or_none_at_all_are_refused(run_config, raw_batch):
    cfg = run_config(pipeline={"first_frame_probability": 1.0}, num_height=64, num_width=64, num_frames=33)
    adapter = LtxFamily().build(cfg).adapter
    with pytest.raises(ConfigError, match="asks for 2 x 2 latents, but the data's first frames are 2 x 3"):
        adapter.prepare_batch(raw_batch, latents_source="zeros")
    del raw_batch["vae_latent"]
    with pytest.raises(DataError, match="captions but no vae_latent"):
        adapter.prepare_batch(raw_batch, latents_source="zeros")


def test_a_run_on_trajectories_gives_no_first_frames(given, raw_batch):
    raw_batch["trajectory_latents"] = raw_batch["vae_latent"][:, None].repeat(1, 2, 1, 1, 1, 1)
    raw_batch["trajectory_timesteps"] = torch.tensor([[1000.0, 0.0]] * len(raw_batch["vae_latent"]))
    with pytest.raises(ConfigError, match="the trajectories of the data are of videos from prompts alone"):
        given.adapter.prepare_batch(raw_batch, latents_source="trajectory")
