"""The adapter's primitives: noise, and calls of the network as the pipeline makes them."""

from __future__ import annotations

import pytest
import torch
from diffusers import WanPipeline
from torch import Tensor

from fastvideo_core.contracts.adapter import DistillAdapter, HasRngGenerators, OnTrainStart
from fastvideo_core.contracts.adapter_check import check_adapter
from fastvideo_core.errors import ConfigError
from fastvideo_testing.family_batches import PRIMITIVES
from fastvideo_wan.family import WanFamily

from .noised import noisy_at


def test_the_adapter_has_every_primitive(components):
    check_adapter(components.adapter, PRIMITIVES, method="any", family="wan")
    assert isinstance(components.adapter, DistillAdapter)
    assert isinstance(components.adapter, OnTrainStart)
    assert not isinstance(components.adapter, HasRngGenerators)
    assert components.adapter.num_train_timesteps == 1000
    assert components.adapter.supported_attention == ("dense", "vsa")


def test_handles_say_what_core_needs_to_know(components):
    student, teacher = components.bundle["student"], components.bundle["teacher"]
    assert (student.family, student.trainable, teacher.trainable) == ("wan", True, False)
    assert [c.__name__ for c in student.block_classes] == ["WanTransformerBlock"]
    assert len(student.trainable_parameters()) > 0
    assert teacher.trainable_parameters() == []


def test_only_roles_of_the_family_are_built(run_config):
    cfg = run_config({"student": True, "other": False})
    cfg.roles["other"] = cfg.roles["other"].model_copy(update={"family": "ltx"})
    assert [handle.name for handle in WanFamily().build(cfg).bundle] == ["student"]


def test_unconditional_calls_before_train_start_say_what_is_missing(run_config, raw_batch):
    built = WanFamily().build(run_config())
    batch = built.adapter.prepare_batch(raw_batch)
    noisy, t = noisy_at(batch)
    with pytest.raises(ValueError, match=r"encoded by on_train_start\(\)"):
        built.adapter.predict_noise(built.bundle["student"], noisy, t, batch, conditional=False)


def test_sparse_attention_of_a_run_without_it_is_refused(components, raw_batch):
    batch = components.adapter.prepare_batch(raw_batch, current_vsa_sparsity=0.5)
    noisy, t = noisy_at(batch)
    with pytest.raises(ConfigError, match="built for dense attention is called with attn_kind 'vsa'"):
        components.adapter.predict_x0(components.bundle["student"], noisy, t, batch, conditional=True, attn_kind="vsa")


def test_the_shift_is_the_closed_form_and_stays_on_the_axis(components):
    t = torch.tensor([-5.0, 0.0, 500.0, 1000.0, 1200.0], dtype=torch.float64)
    u = torch.tensor([0, 0, 0.5, 1, 1], dtype=torch.float64)
    expected = 3 * u / (1 + 2 * u) * 1000
    torch.testing.assert_close(components.adapter.shift_and_clamp_timestep(t), expected)


def test_noise_velocity_and_x0_agree_with_each_other(components, raw_batch):
    adapter = components.adapter
    batch = adapter.prepare_batch(raw_batch)
    noise, t = noisy_at(batch)
    noisy = adapter.add_noise(batch.latents, noise, t)
    sigma = (t / 1000).view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(noisy, (1 - sigma) * batch.latents + sigma * noise)
    target = adapter.prediction_target(batch.latents, noise, t)
    torch.testing.assert_close(noisy - sigma * target, batch.latents)
    with torch.no_grad():
        v = adapter.predict_noise(components.bundle["student"], noisy, t, batch, conditional=True)
        x0 = adapter.predict_x0(components.bundle["student"], noisy, t, batch, conditional=True)
    assert torch.equal(x0, noisy - sigma * v)


def test_the_network_call_is_the_pipelines_bit_for_bit(components, raw_batch, tiny):
    batch = components.adapter.prepare_batch(raw_batch)
    noisy, t = noisy_at(batch)
    plain = WanPipeline.from_pretrained(tiny).transformer
    with torch.no_grad():
        expected = plain(noisy, timestep=t, encoder_hidden_states=batch.conditioning["text"], return_dict=False)[0]
        actual = components.adapter.predict_noise(components.bundle["student"], noisy, t, batch, conditional=True)
    assert torch.equal(actual, expected)


def test_negative_conditioning_gives_another_prediction(components, raw_batch):
    batch = components.adapter.prepare_batch(raw_batch)
    noisy, t = noisy_at(batch)
    with torch.no_grad():
        both = [
            components.adapter.predict_x0(components.bundle["student"], noisy, t, batch, conditional=conditional)
            for conditional in (True, False)
        ]
    assert (both[0] - both[1]).abs().max() > 1e-4


def test_a_batch_of_two_is_twice_a_batch_of_one(components, raw_batch):
    adapter, student = components.adapter, components.bundle["student"]
    batch = adapter.prepare_batch(raw_batch)
    noisy, t = noisy_at(batch)
    with torch.no_grad():
        whole = adapter.predict_x0(student, noisy, t, batch, conditional=True)
        for i in (0, 1):
            one = {key: value[i : i + 1] if isinstance(value, Tensor) else value for key, value in raw_batch.items()}
            single = adapter.prepare_batch(one)
            alone = adapter.predict_x0(student, noisy[i : i + 1], t[i : i + 1], single, conditional=True)
            torch.testing.assert_close(whole[i : i + 1], alone, atol=1e-5, rtol=1e-5)


def test_guidance_is_u_plus_w_times_c_minus_u_in_one_call(components, raw_batch):
    adapter, teacher = components.adapter, components.bundle["teacher"]
    batch = adapter.prepare_batch(raw_batch)
    noisy, t = noisy_at(batch)
    sizes = []
    teacher.modules["transformer"].register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(kwargs["hidden_states"].shape[0]), with_kwargs=True
    )
    with torch.no_grad():
        c = adapter.predict_x0(teacher, noisy, t, batch, conditional=True)
        u = adapter.predict_x0(teacher, noisy, t, batch, conditional=False)
        sizes.clear()
        guided = adapter.predict_x0_guided(teacher, noisy, t, batch, guidance_scale=3.5)
        plain = adapter.predict_x0_guided(teacher, noisy, t, batch, guidance_scale=1.0)
    torch.testing.assert_close(guided, u + 3.5 * (c - u), atol=1e-5, rtol=1e-5)
    assert torch.equal(plain, c)
    assert sizes == [4, 2]


def test_t_is_one_value_per_sample(components, raw_batch):
    adapter, student = components.adapter, components.bundle["student"]
    batch = adapter.prepare_batch(raw_batch)
    noisy, _ = noisy_at(batch)
    with torch.no_grad():
        ways = [
            adapter.predict_x0(student, noisy, t, batch, conditional=True)
            for t in (torch.tensor(700.0), torch.tensor([700.0, 700.0]), torch.full((2, 1, 1, 1, 1), 700.0))
        ]
    assert torch.equal(ways[0], ways[1])
    assert torch.equal(ways[0], ways[2])
    with pytest.raises(ValueError, match="one noise level per sample"):
        adapter.predict_x0(student, noisy, torch.full((2, 1, 2, 1, 1), 700.0), batch, conditional=True)


def test_gradients_reach_the_trained_role_only(components, raw_batch):
    adapter = components.adapter
    student, teacher = components.bundle["student"], components.bundle["teacher"]
    batch = adapter.prepare_batch(raw_batch)
    noisy, t = noisy_at(batch)
    x0 = adapter.predict_x0(student, noisy, t, batch, conditional=True)
    loss = (adapter.predict_x0(teacher, x0, t, batch, conditional=True) ** 2).mean()
    adapter.backward(loss, None, grad_accum_rounds=2)
    halves = [p.grad.clone() for p in student.trainable_parameters()]
    assert all(p.grad is None for _, p in teacher.named_parameters())
    assert sum(g.abs().sum() for g in halves) > 0
    for p in student.trainable_parameters():
        p.grad = None
    x0 = adapter.predict_x0(student, noisy, t, batch, conditional=True)
    adapter.backward((adapter.predict_x0(teacher, x0, t, batch, conditional=True) ** 2).mean(), None)
    for half, parameter in zip(halves, student.trainable_parameters(), strict=True):
        torch.testing.assert_close(half * 2, parameter.grad)


def test_a_full_size_latent_trains_in_batches_of_one_and_two(components):
    student = components.bundle["student"]
    for size in (1, 2):
        raw = {
            "vae_latent": torch.randn(size, 16, 16, 40, 64, generator=torch.Generator().manual_seed(0)),
            "text_embedding": torch.zeros(size, 3, 32),
        }
        batch = components.adapter.prepare_batch(raw)
        t = torch.full((size,), 500.0)
        with torch.no_grad():
            v = components.adapter.predict_noise(student, batch.latents, t, batch, conditional=True)
        assert v.shape == (size, 16, 16, 40, 64)
        assert torch.isfinite(v).all()
