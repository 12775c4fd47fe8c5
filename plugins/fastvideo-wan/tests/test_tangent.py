"""Forward-mode derivatives through Wan as it is trained: checkpointed, compiled, with LoRA adapters, in bfloat16."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fastvideo_core.config.run import LoraConfig
from fastvideo_core.contracts.family import ModelComponents
from fastvideo_core.placing.shard import shard_roles
from fastvideo_core.weights.lora import add_lora, initialise_lora
from fastvideo_wan.family import WanFamily

directional_derivative = pytest.importorskip("fastvideo_rcm.tangent", reason="rcm's own").directional_derivative


def along_the_flow(built: ModelComponents, raw_batch: dict[str, Any]) -> tuple[Any, tuple[Tensor, Tensor], Any]:
    """predict_noise of the student, where, and the direction of the flow there."""
    batch = built.adapter.prepare_batch(raw_batch)
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([900.0, 300.0])
    x = built.adapter.add_noise(batch.latents, noise, t)
    student = built.bundle["student"]

    def predict(x: Tensor, t: Tensor) -> Tensor:
        return built.adapter.predict_noise(student, x, t, batch, conditional=True)

    return predict, (x, t), (noise - batch.latents, torch.full_like(t, 1000))


def math_tangent(built: ModelComponents, raw_batch: dict[str, Any]) -> Tensor:
    """By torch's own attention without fused kernels, which keeps all scores."""
    predict, where, direction = along_the_flow(built, raw_batch)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        return torch.func.jvp(predict, where, direction)[1]


def off(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def gradients(built: ModelComponents, raw_batch: dict[str, Any]) -> dict[str, Tensor]:
    predict, where, _ = along_the_flow(built, raw_batch)
    built.adapter.backward((predict(*where).float() ** 2).mean(), None)
    return {name: p.grad.clone() for name, p in built.bundle["student"].named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["full", "ops", "block_skip"])
def test_blocks_that_are_checkpointed_have_the_same_tangent_and_train_after_it(run_config, raw_batch, kind):
    plain = WanFamily().build(run_config())
    cfg = run_config(enable_gradient_checkpointing_type=kind)
    built = WanFamily().build(cfg)
    shard_roles(built.bundle, cfg.training)
    _, tangent = directional_derivative(*along_the_flow(built, raw_batch))
    assert off(tangent, math_tangent(plain, raw_batch)) < 1e-6
    after, before = gradients(built, raw_batch), gradients(plain, raw_batch)
    assert len(after) == len(before) > 0
    for (name, value), expected in zip(after.items(), before.values(), strict=True):
        assert torch.equal(value, expected), name


def test_lora_adapters_are_in_the_tangent(run_config, raw_batch):
    pytest.importorskip("peft", reason="an extra of core")
    built = WanFamily().build(run_config())
    student = built.bundle["student"]
    without = math_tangent(built, raw_batch)
    add_lora(student, LoraConfig(rank=4))
    initialise_lora(student, seed=0)
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)
    _, tangent = directional_derivative(*along_the_flow(built, raw_batch))
    assert off(tangent, math_tangent(built, raw_batch)) < 1e-6
    assert off(tangent, without) > 1e-3
    assert all("lora_" in name for name in gradients(built, raw_batch))


def test_in_bfloat16_the_tangent_has_the_precision_of_bfloat16(run_config, raw_batch):
    exact = math_tangent(WanFamily().build(run_config()), raw_batch)
    built = WanFamily().build(run_config(mixed_precision="bf16"))
    _, tangent = directional_derivative(*along_the_flow(built, raw_batch))
    assert 1e-4 < off(tangent, exact) < 2e-2


def test_compiled_blocks_are_called_as_they_were_written(run_config, raw_batch):
    plain = WanFamily().build(run_config())
    built = WanFamily().build(run_config())
    for block in built.bundle["student"].modules["transformer"].blocks:
        block.compile(backend="aot_eager")
    _, tangent = directional_derivative(*along_the_flow(built, raw_batch))
    _, expected = directional_derivative(*along_the_flow(plain, raw_batch))
    torch.testing.assert_close(tangent, expected, rtol=0, atol=0)
