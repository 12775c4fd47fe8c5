"""Batches and primitives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import WanPipeline
from torch import Tensor

from fastvideo_core.contracts.adapter import DistillAdapter, HasRngGenerators, OnTrainStart
from fastvideo_core.contracts.adapter_check import check_adapter
from fastvideo_core.diffusion.reduce import mean_per_sample
from fastvideo_core.errors import ConfigError, DataError
from fastvideo_core.placing.shard import shard_roles
from fastvideo_core.weights.parameters import clean_name
from fastvideo_testing.family_batches import PRIMITIVES
from fastvideo_wan.config import NEGATIVE_PROMPT
from fastvideo_wan.family import WanFamily
from fastvideo_wan.network import Float32TimestepEmbedding
from fastvideo_wan.tiny import LATENTS_MEAN, LATENTS_STD


def _noisy(batch, seed: int = 1) -> tuple[Tensor, Tensor]:
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(seed))
    return noise, torch.tensor([900.0, 250.0])[: batch.batch_size]


# --- contracts --------------------------------------------------------------------------------------------------------


def test_the_adapter_has_every_primitive(components):
    check_adapter(components.adapter, PRIMITIVES, method="any", family="wan")
    assert isinstance(components.adapter, DistillAdapter)
    assert isinstance(components.adapter, OnTrainStart)
    assert not isinstance(components.adapter, HasRngGenerators)
    assert components.adapter.num_train_timesteps == 1000
    assert components.adapter.supported_attention == ("dense",)


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


# --- batches ----------------------------------------------------------------------------------------------------------


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


def test_unconditional_calls_before_train_start_say_what_is_missing(run_config, raw_batch):
    built = WanFamily().build(run_config())
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


def test_the_shift_is_the_closed_form_and_stays_on_the_axis(components):
    t = torch.tensor([-5.0, 0.0, 500.0, 1000.0, 1200.0], dtype=torch.float64)
    u = torch.tensor([0, 0, 0.5, 1, 1], dtype=torch.float64)
    expected = 3 * u / (1 + 2 * u) * 1000
    torch.testing.assert_close(components.adapter.shift_and_clamp_timestep(t), expected)


def test_noise_velocity_and_x0_agree_with_each_other(components, raw_batch):
    adapter = components.adapter
    batch = adapter.prepare_batch(raw_batch)
    noise, t = _noisy(batch)
    noisy = adapter.add_noise(batch.latents, noise, t)
    sigma = (t / 1000).view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(noisy, (1 - sigma) * batch.latents + sigma * noise)
    target = adapter.prediction_target(batch.latents, noise, t)
    torch.testing.assert_close(noisy - sigma * target, batch.latents)
    with torch.no_grad():
        v = adapter.predict_noise(components.bundle["student"], noisy, t, batch, conditional=True)
        x0 = adapter.predict_x0(components.bundle["student"], noisy, t, batch, conditional=True)
    assert torch.equal(x0, noisy - sigma * v)


# --- the network ------------------------------------------------------------------------------------------------------


def test_the_network_call_is_the_pipelines_bit_for_bit(components, raw_batch, tiny):
    batch = components.adapter.prepare_batch(raw_batch)
    noisy, t = _noisy(batch)
    plain = WanPipeline.from_pretrained(tiny).transformer
    with torch.no_grad():
        expected = plain(noisy, timestep=t, encoder_hidden_states=batch.conditioning["text"], return_dict=False)[0]
        actual = components.adapter.predict_noise(components.bundle["student"], noisy, t, batch, conditional=True)
    assert torch.equal(actual, expected)


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
            one = {key: value[i : i + 1] if isinstance(value, Tensor) else value for key, value in raw_batch.items()}
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


def test_t_is_one_value_per_sample(components, raw_batch):
    adapter, student = components.adapter, components.bundle["student"]
    batch = adapter.prepare_batch(raw_batch)
    noisy, _ = _noisy(batch)
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
    noisy, t = _noisy(batch)
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


@pytest.mark.parametrize("kind", ["full", "ops", "block_skip"])
@pytest.mark.parametrize("mixed_precision", ["no", "bf16"])
def test_gradient_checkpointing_changes_no_gradient(run_config, raw_batch, mixed_precision, kind):
    gradients = []
    for chosen in (None, kind):
        cfg = run_config(enable_gradient_checkpointing_type=chosen, mixed_precision=mixed_precision)
        built = WanFamily().build(cfg)
        student = built.bundle["student"]
        first, second = student.modules["transformer"].blocks
        calls = [_count_calls(block) for block in (first, second)]
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


def test_mixed_precision_computes_in_bf16_around_float32_islands(run_config, raw_batch):
    built = WanFamily().build(run_config({"student": True, "teacher": False}, mixed_precision="bf16"))
    batch = built.adapter.prepare_batch(raw_batch)
    noisy, t = _noisy(batch)
    for name in ("student", "teacher"):
        transformer = built.bundle[name].modules["transformer"]
        seen = _output_dtypes(
            {
                "time_embedder.linear_1": transformer.condition_embedder.time_embedder.linear_1,
                "time_embedder": transformer.condition_embedder.time_embedder,
                "norm1": transformer.blocks[0].norm1,
                "norm2": transformer.blocks[0].norm2,
                "norm3": transformer.blocks[0].norm3,
                "to_q": transformer.blocks[0].attn1.to_q,
                "ffn": transformer.blocks[0].ffn,
                "block": transformer.blocks[0],
            }
        )
        with torch.no_grad():
            v = built.adapter.predict_noise(built.bundle[name], noisy, t, batch, conditional=True)
            x0 = built.adapter.predict_x0(built.bundle[name], noisy, t, batch, conditional=True)
        low = {"to_q", "ffn", "block"}
        assert {key for key, dtype in seen.items() if dtype == torch.bfloat16} == low, (name, seen)
        assert all(seen[key] == torch.float32 for key in set(seen) - low)
        assert v.dtype == torch.bfloat16
        assert x0.dtype == torch.float32


def test_mixed_precision_stays_close_to_float32(run_config, raw_batch):
    predictions = []
    for mixed_precision in ("no", "bf16"):
        built = WanFamily().build(run_config(mixed_precision=mixed_precision))
        batch = built.adapter.prepare_batch(raw_batch)
        noisy, t = _noisy(batch)
        with torch.no_grad():
            predictions.append(
                built.adapter.predict_noise(built.bundle["student"], noisy, t, batch, conditional=True).float()
            )
    error = (predictions[0] - predictions[1]).abs().max() / predictions[0].abs().max()
    assert 0 < error < 0.05


def test_the_time_embedder_stays_the_same_module_to_checkpoints(components):
    embedder = components.bundle["student"].modules["transformer"].condition_embedder.time_embedder
    assert type(embedder) is Float32TimestepEmbedding
    assert set(embedder.state_dict()) == {"linear_1.weight", "linear_1.bias", "linear_2.weight", "linear_2.bias"}


def _count_calls(block) -> list[int]:
    calls: list[int] = []
    block.attn1.to_q.register_forward_pre_hook(lambda module, args: calls.append(1))
    return calls


def _output_dtypes(modules) -> dict[str, torch.dtype]:
    seen: dict[str, torch.dtype] = {}

    def hook(name):
        def record(module, args, output):
            seen[name] = output.dtype

        return record

    for name, module in modules.items():
        module.register_forward_hook(hook(name))
    return seen


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
