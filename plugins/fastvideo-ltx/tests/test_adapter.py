"""Batches and primitives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastvideo_core.contracts.adapter import DistillAdapter, HasRngGenerators, OnTrainStart
from fastvideo_core.contracts.adapter_check import check_adapter
from fastvideo_core.errors import ConfigError, DataError
from fastvideo_core.placing.materialise import materialise
from fastvideo_core.placing.shard import shard_roles
from fastvideo_core.weights.parameters import clean_name
from fastvideo_ltx.adapter import FPS, TEXT, TEXT_MASK
from fastvideo_ltx.family import LtxFamily
from fastvideo_testing.family_batches import PRIMITIVES


def _noisy(batch, seed: int = 1) -> tuple[Tensor, Tensor]:
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(seed))
    return noise, torch.tensor([900.0, 250.0])[: batch.batch_size]


# --- contracts --------------------------------------------------------------------------------------------------------


def test_the_adapter_has_every_primitive(components):
    check_adapter(components.adapter, PRIMITIVES, method="any", family="ltx")
    assert isinstance(components.adapter, DistillAdapter)
    assert isinstance(components.adapter, OnTrainStart)
    assert not isinstance(components.adapter, HasRngGenerators)
    assert components.adapter.num_train_timesteps == 1000
    assert components.adapter.supported_attention == ("dense",)


def test_handles_say_what_core_needs_to_know(components):
    student, teacher = components.bundle["student"], components.bundle["teacher"]
    assert (student.family, student.trainable, teacher.trainable) == ("ltx", True, False)
    assert [c.__name__ for c in student.block_classes] == ["LTXVideoTransformerBlock"]
    assert len(student.trainable_parameters()) > 0
    assert teacher.trainable_parameters() == []


def test_only_roles_of_the_family_are_built(run_config):
    cfg = run_config({"student": True, "other": False})
    cfg.roles["other"] = cfg.roles["other"].model_copy(update={"family": "wan"})
    assert [handle.name for handle in LtxFamily().build(cfg).bundle] == ["student"]


# --- batches ----------------------------------------------------------------------------------------------------------


def test_stored_half_precision_becomes_float32(components, raw_batch):
    raw_batch["vae_latent"] = raw_batch["vae_latent"].half()
    raw_batch["text_embedding"] = raw_batch["text_embedding"].bfloat16()
    batch = components.adapter.prepare_batch(raw_batch)
    assert batch.latents.dtype == batch.conditioning[TEXT].dtype == torch.float32


@pytest.mark.parametrize("length", [9, 300])
def test_text_is_zero_padded_or_cut_to_128_and_masked(components, raw_batch, length):
    raw_batch["text_embedding"] = torch.ones(2, length, 32)
    raw_batch["text_embedding_length"] = torch.tensor([length, 4])
    conditioning = components.adapter.prepare_batch(raw_batch).conditioning
    assert conditioning[TEXT].shape == (2, 128, 32)
    assert conditioning[TEXT_MASK].sum(1).tolist() == [min(length, 128), 4]
    assert torch.equal(conditioning[TEXT].sum(2), conditioning[TEXT_MASK] * 32.0)


def test_later_pipelines_read_256_tokens_of_text(run_config, tiny_condition, raw_batch):
    adapter = LtxFamily().build(run_config(paths={"student": tiny_condition})).adapter
    assert adapter.prepare_batch(raw_batch).conditioning[TEXT].shape == (2, 256, 32)


def test_frame_rates_are_the_clips_own_or_else_the_run_s(run_config, raw_batch):
    raw_batch["info"][1]["fps"] = None
    for pipeline, default in (({}, 25.0), ({"fps": 12.5}, 12.5)):
        adapter = LtxFamily().build(run_config(pipeline=pipeline)).adapter
        assert adapter.prepare_batch(raw_batch).context[FPS].tolist() == [24.0, default]
    raw_batch["info"][1] |= {"fps": 0.0, "media_type": "image"}
    assert adapter.prepare_batch(raw_batch).context[FPS].tolist() == [24.0, 12.5]
    del raw_batch["info"]
    assert adapter.prepare_batch(raw_batch).context[FPS].tolist() == [12.5, 12.5]
    raw_batch["info"] = [{"id": "one", "fps": 24.0}, {"id": "two", "fps": 0.0}]
    with pytest.raises(DataError, match=r"sample two: its fps is 0\n    allowed: a number above 0"):
        adapter.prepare_batch(raw_batch)


def test_each_sample_s_own_frame_rate_reaches_the_network(components, raw_batch):
    adapter, student = components.adapter, components.bundle["student"]
    batch = adapter.prepare_batch(raw_batch)
    raw_batch["info"][0]["fps"] = 12.0
    slower = adapter.prepare_batch(raw_batch)
    t = torch.full((2,), 500.0)
    with torch.no_grad():
        one, other = (adapter.predict_noise(student, b.latents, t, b, conditional=True) for b in (batch, slower))
    assert (one[0] - other[0]).abs().max() > 1e-4
    assert torch.equal(one[1], other[1])


def test_num_latent_t_cuts_the_end(run_config, raw_batch):
    adapter = LtxFamily().build(run_config(num_latent_t=1)).adapter
    raw_batch["vae_latent_normalised"] = True
    expected = raw_batch["vae_latent"][:, :, 0].flatten(2).transpose(1, 2)
    assert torch.equal(adapter.prepare_batch(raw_batch).latents, expected)


@pytest.mark.parametrize("length", [{"num_latent_t": 3}, {"num_frames": 17}, {"num_latent_t": 3, "num_frames": 17}])
def test_zeros_need_no_latents_in_the_data(run_config, raw_batch, length):
    del raw_batch["vae_latent"]
    adapter = LtxFamily().build(run_config(num_height=64, num_width=96, **length)).adapter
    batch = adapter.prepare_batch(raw_batch, latents_source="zeros")
    assert batch.latents.shape == (2, 18, 128)
    assert batch.latents.abs().sum() == 0


@pytest.mark.parametrize(("training", "tokens"), [({}, 18), ({"num_latent_t": 1}, 6)])
def test_zeros_take_the_size_of_the_data_s_latents_when_the_run_names_none(run_config, raw_batch, training, tokens):
    adapter = LtxFamily().build(run_config(**training)).adapter
    batch = adapter.prepare_batch(raw_batch, latents_source="zeros")
    assert batch.latents.shape == (2, tokens, 128)
    assert batch.latents.abs().sum() == 0


@pytest.mark.parametrize(
    ("training", "messages"),
    [
        ({}, ["training.num_height", "training.num_width", "training.num_frames"]),
        ({"num_height": 32, "num_width": 40, "num_frames": 9}, ["training.num_width: is 40"]),
        (
            {"num_height": 32, "num_width": 64, "num_frames": 10},
            ["training.num_frames: is 10", "multiples of 8 plus 1"],
        ),
        (
            {"num_height": 32, "num_width": 64, "num_frames": 81, "num_latent_t": 5},
            ["81 frames are 11 latent frames, not 5"],
        ),
    ],
)
def test_zeros_without_a_usable_size(run_config, raw_batch, training, messages):
    if not training:
        del raw_batch["vae_latent"]
    adapter = LtxFamily().build(run_config(**training)).adapter
    with pytest.raises(ConfigError) as error:
        adapter.prepare_batch(raw_batch, latents_source="zeros")
    for message in messages:
        assert message in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("vae_latent", None, "captions but no vae_latent"),
        ("vae_latent", torch.zeros(2, 16, 3, 2, 3), r"vae_latent has shape \[16, 3, 2, 3\]"),
        ("vae_latent", torch.zeros(2, 128, 3, 2, 3, dtype=torch.int64), "vae_latent has dtype int64"),
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


def test_the_negative_prompt_is_encoded_once_and_shared_by_the_batch(run_config, raw_batch):
    built = LtxFamily().build(run_config(pipeline={"negative_prompt": "ugly"}))
    before = torch.get_rng_state()
    built.adapter.on_train_start()
    batch = built.adapter.prepare_batch(raw_batch)
    first = batch.negative_conditioning
    built.adapter.on_train_start()
    again = built.adapter.prepare_batch(raw_batch).negative_conditioning
    assert torch.equal(torch.get_rng_state(), before)
    assert first[TEXT].shape == (2, 128, 32)
    assert first[TEXT].stride(0) == 0
    assert first[TEXT].data_ptr() == again[TEXT].data_ptr()
    assert first[TEXT_MASK].sum(1).tolist() == [5, 5]
    assert batch.with_both_conditionings().context[FPS].tolist() == [24.0, 30.0, 24.0, 30.0]


def test_by_default_guidance_leads_away_from_the_published_text_and_dropped_captions_are_empty(run_config, raw_batch):
    built = LtxFamily().build(run_config())
    built.adapter.on_train_start()
    batch = built.adapter.prepare_batch(raw_batch)
    dropped = batch.with_conditioning_dropped(torch.tensor([False, True]))
    texts = {}
    for text in ("worst quality, inconsistent motion, blurry, jittery, distorted", ""):
        named = LtxFamily().build(run_config(pipeline={"negative_prompt": text}))
        named.adapter.on_train_start()
        texts[text] = named.adapter.prepare_batch(raw_batch).negative_conditioning
    published, empty = texts.values()
    assert torch.equal(batch.negative_conditioning[TEXT], published[TEXT])
    assert torch.equal(dropped.conditioning[TEXT][0], batch.conditioning[TEXT][0])
    assert torch.equal(dropped.conditioning[TEXT][1], empty[TEXT][1])
    assert torch.equal(dropped.conditioning[TEXT_MASK][1], empty[TEXT_MASK][1])
    assert dropped.context[FPS].tolist() == [24.0, 30.0]


def test_unconditional_calls_before_train_start_say_what_is_missing(run_config, raw_batch):
    built = LtxFamily().build(run_config())
    batch = built.adapter.prepare_batch(raw_batch)
    noisy, t = _noisy(batch)
    with pytest.raises(ValueError, match=r"encoded by on_train_start\(\)"):
        built.adapter.predict_noise(built.bundle["student"], noisy, t, batch, conditional=False)


def test_sparse_attention_is_refused(components, raw_batch):
    with pytest.raises(ConfigError, match="dense attention only"):
        components.adapter.prepare_batch(raw_batch, current_vsa_sparsity=0.5)
    batch = components.adapter.prepare_batch(raw_batch)
    noisy, t = _noisy(batch)
    with pytest.raises(ConfigError, match="attn_kind 'vsa'"):
        components.adapter.predict_x0(components.bundle["student"], noisy, t, batch, conditional=True, attn_kind="vsa")


# --- noise ------------------------------------------------------------------------------------------------------------


def test_noise_velocity_and_x0_agree_with_each_other(components, raw_batch):
    adapter = components.adapter
    batch = adapter.prepare_batch(raw_batch)
    noise, t = _noisy(batch)
    noisy = adapter.add_noise(batch.latents, noise, t)
    sigma = (t / 1000).view(-1, 1, 1)
    torch.testing.assert_close(noisy, (1 - sigma) * batch.latents + sigma * noise)
    target = adapter.prediction_target(batch.latents, noise, t)
    torch.testing.assert_close(noisy - sigma * target, batch.latents)
    with torch.no_grad():
        v = adapter.predict_noise(components.bundle["student"], noisy, t, batch, conditional=True)
        x0 = adapter.predict_x0(components.bundle["student"], noisy, t, batch, conditional=True)
    assert torch.equal(x0, noisy - sigma * v)


def test_t_is_one_value_for_all_per_sample_or_per_token(components, raw_batch):
    adapter, student = components.adapter, components.bundle["student"]
    batch = adapter.prepare_batch(raw_batch)
    noisy, _ = _noisy(batch)
    per_token = torch.full((2, 18, 1), 700.0)
    with torch.no_grad():
        ways = [
            adapter.predict_x0(student, noisy, t, batch, conditional=True)
            for t in (torch.tensor(700.0), torch.tensor([700.0, 700.0]), torch.full((2, 1, 1), 700.0), per_token)
        ]
        per_token[:, 3:] = 100.0
        mixed = adapter.predict_x0(student, noisy, per_token, batch, conditional=True)
        v = adapter.predict_noise(student, noisy, per_token, batch, conditional=True)
    assert torch.equal(ways[0], ways[1])
    assert torch.equal(ways[0], ways[2])
    torch.testing.assert_close(ways[0], ways[3])
    assert torch.equal(mixed, noisy - per_token / 1000 * v)
    assert (mixed - ways[0]).abs().max() > 1e-2
    with pytest.raises(ValueError, match=r"t has shape \[2, 3, 1\]"):
        adapter.predict_x0(student, noisy, torch.full((2, 3, 1), 700.0), batch, conditional=True)


# --- the network ------------------------------------------------------------------------------------------------------


def test_negative_conditioning_gives_another_prediction(components, raw_batch):
    batch = components.adapter.prepare_batch(raw_batch)
    noisy, t = _noisy(batch)
    with torch.no_grad():
        both = [
            components.adapter.predict_x0(components.bundle["student"], noisy, t, batch, conditional=conditional)
            for conditional in (True, False)
        ]
    assert (both[0] - both[1]).abs().max() > 1e-4


def test_a_batch_of_two_is_twice_a_batch_of_one(components, raw_batch):
    adapter, student = components.adapter, components.bundle["student"]
    batch = adapter.prepare_batch(raw_batch)
    noisy, t = _noisy(batch)
    with torch.no_grad():
        whole = adapter.predict_x0(student, noisy, t, batch, conditional=True)
        for i in (0, 1):
            one = {
                key: value[i : i + 1] if isinstance(value, Tensor | list) else value for key, value in raw_batch.items()
            }
            single = adapter.prepare_batch(one)
            alone = adapter.predict_x0(student, noisy[i : i + 1], t[i : i + 1], single, conditional=True)
            torch.testing.assert_close(whole[i : i + 1], alone, atol=1e-5, rtol=1e-5)


def test_guidance_is_u_plus_w_times_c_minus_u_in_one_call(components, raw_batch):
    adapter, teacher = components.adapter, components.bundle["teacher"]
    batch = adapter.prepare_batch(raw_batch)
    noisy, t = _noisy(batch)
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


def test_gradients_reach_the_trained_role_only(components, raw_batch):
    adapter = components.adapter
    student, teacher = components.bundle["student"], components.bundle["teacher"]
    batch = adapter.prepare_batch(raw_batch)
    noisy, t = _noisy(batch)
    gradients = []
    for rounds in (2, 1):
        x0 = adapter.predict_x0(student, noisy, t, batch, conditional=True)
        loss = (adapter.predict_x0(teacher, x0, t, batch, conditional=True) ** 2).mean()
        adapter.backward(loss, None, grad_accum_rounds=rounds)
        gradients.append([p.grad for p in student.trainable_parameters()])
        for p in student.trainable_parameters():
            p.grad = None
    assert all(p.grad is None for _, p in teacher.named_parameters())
    assert sum(g.abs().sum() for g in gradients[0]) > 0
    for half, whole in zip(*gradients, strict=True):
        torch.testing.assert_close(half * 2, whole)


@pytest.mark.parametrize("kind", ["full", "ops", "block_skip"])
@pytest.mark.parametrize("mixed_precision", ["no", "bf16"])
def test_gradient_checkpointing_changes_no_gradient(run_config, raw_batch, mixed_precision, kind):
    gradients = []
    for chosen in (None, kind):
        cfg = run_config(enable_gradient_checkpointing_type=chosen, mixed_precision=mixed_precision)
        built = LtxFamily().build(cfg)
        student = built.bundle["student"]
        calls = [_count_calls(block) for block in student.modules["transformer"].transformer_blocks]
        shard_roles(built.bundle, cfg.training)
        batch = built.adapter.prepare_batch(raw_batch)
        noisy, t = _noisy(batch)
        v = built.adapter.predict_noise(student, noisy, t, batch, conditional=True)
        built.adapter.backward((v.float() ** 2).mean(), None)
        again = {None: [1, 1], "block_skip": [2, 1]}.get(chosen, [2, 2])
        assert [len(seen) for seen in calls] == again
        gradients.append({clean_name(name): p.grad for name, p in student.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    assert [name for name, value in gradients[0].items() if not torch.equal(value, gradients[1][name])] == []


def _count_calls(block) -> list[int]:
    calls: list[int] = []
    block.attn1.to_q.register_forward_pre_hook(lambda module, args: calls.append(1))
    return calls


def test_mixed_precision_computes_in_bf16_and_stays_close_to_float32(run_config, raw_batch):
    predictions = {}
    for mixed_precision in ("no", "bf16"):
        built = LtxFamily().build(run_config({"student": True, "teacher": False}, mixed_precision=mixed_precision))
        for handle in built.bundle:
            materialise(handle)
        batch = built.adapter.prepare_batch(raw_batch)
        noisy, t = _noisy(batch)
        for name in ("student", "teacher"):
            with torch.no_grad():
                v = built.adapter.predict_noise(built.bundle[name], noisy, t, batch, conditional=True)
                x0 = built.adapter.predict_x0(built.bundle[name], noisy, t, batch, conditional=True)
            assert v.dtype == (torch.bfloat16 if mixed_precision == "bf16" else torch.float32)
            assert x0.dtype == torch.float32
            predictions[mixed_precision, name] = v.float()
    for name in ("student", "teacher"):
        exact, rounded = predictions["no", name], predictions["bf16", name]
        assert 0 < (exact - rounded).abs().max() / exact.abs().max() < 0.05


def test_features_have_the_stated_channels_and_reach_the_input(components, raw_batch):
    adapter, handle = components.adapter, components.bundle["student"]
    batch = adapter.prepare_batch(raw_batch)
    noisy = torch.randn_like(batch.latents).requires_grad_()
    features = adapter.extract_features(handle, noisy, torch.full((2,), 500.0), batch, conditional=True)
    assert tuple(feature.shape[-1] for feature in features) == adapter.feature_channels(handle)
    assert [feature.shape[:2] for feature in features] == [(2, 18)] * len(features)
    sum(feature.square().sum() for feature in features).backward()
    assert noisy.grad.abs().sum() > 0
    assert not any(block._forward_hooks for block in handle.modules["transformer"].transformer_blocks)
