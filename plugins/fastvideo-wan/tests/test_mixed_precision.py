"""Recomputed blocks and mixed precision: the same gradients, and float32 where the network needs it."""

from __future__ import annotations

import pytest
import torch

from fastvideo_core.placing.materialise import materialise
from fastvideo_core.placing.shard import shard_roles
from fastvideo_core.weights.parameters import clean_name
from fastvideo_wan.family import WanFamily
from fastvideo_wan.network import Float32TimestepEmbedding

from .noised import noisy_at


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
        noisy, t = noisy_at(batch)
        v = built.adapter.predict_noise(student, noisy, t, batch, conditional=True)
        built.adapter.backward((v.float() ** 2).mean(), None)
        again = {None: [1, 1], "block_skip": [2, 1]}.get(chosen, [2, 2])
        assert [len(seen) for seen in calls] == again
        gradients.append({clean_name(name): p.grad for name, p in student.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    assert [name for name, value in gradients[0].items() if not torch.equal(value, gradients[1][name])] == []


def test_mixed_precision_computes_in_bf16_around_float32_islands(run_config, raw_batch):
    built = WanFamily().build(run_config({"student": True, "teacher": False}, mixed_precision="bf16"))
    for handle in built.bundle:
        materialise(handle)
    batch = built.adapter.prepare_batch(raw_batch)
    noisy, t = noisy_at(batch)
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
        noisy, t = noisy_at(batch)
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
