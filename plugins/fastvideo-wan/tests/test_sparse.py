"""Wan's transformer with sparse self-attention: dense calls are diffusers' own, and gates go where FastVideo has them."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from safetensors.torch import load_file, save_file
from torch import Tensor

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.placing.shard import prepare_blocks
from fastvideo_wan.loading import load_transformer, meta_transformer, outline_transformer
from fastvideo_wan.network import predict_velocity
from fastvideo_wan.sparse import GATE, add_gates, allow_sparse_calls, calling, sparse_call, with_sparse_attention
from fastvideo_wan.tiny import write_tiny_pipeline

CPU = torch.device("cpu")
LATENTS = (1, 16, 3, 8, 12)
"""3 x 4 x 6 tokens: two tiles."""


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(1, 512, 32, generator=generator)
    return torch.randn(LATENTS, generator=generator), torch.tensor([600.0]), text


def load(tiny: str):
    return load_transformer(tiny, dtype=torch.float32, device=CPU)


def velocity(network, inputs, sparsity: float | None = None) -> Tensor:
    call = None if sparsity is None else sparse_call(network, LATENTS, sparsity, CPU)
    with calling(network, call):
        return predict_velocity(network, *inputs, autocast=False)


@torch.no_grad()
def test_dense_calls_are_diffusers_own_to_the_bit(tiny, inputs):
    network = load(tiny)
    before = velocity(network, inputs)
    allow_sparse_calls(network)
    add_gates(network)
    assert torch.equal(velocity(network, inputs), before)


@torch.no_grad()
def test_a_sparse_call_that_leaves_nothing_out_is_the_dense_one(tiny, inputs):
    network = load(tiny)
    dense = velocity(network, inputs)
    allow_sparse_calls(network)
    add_gates(network)
    torch.testing.assert_close(velocity(network, inputs, 0.0), dense, rtol=0, atol=1e-6)
    assert (velocity(network, inputs, 0.5) - dense).abs().max() > 1e-4
    for block in network.blocks:
        torch.nn.init.eye_(getattr(block, GATE).weight)
    assert (velocity(network, inputs, 0.0) - dense).abs().max() > 1e-4


@torch.no_grad()
def test_without_gates_the_coarse_stage_counts_fully(tiny, inputs):
    """A gate that is 1 for every input is none."""
    bare, gated = load(tiny), load(tiny)
    for network in (bare, gated):
        allow_sparse_calls(network)
    add_gates(gated)
    for block in gated.blocks:
        torch.nn.init.ones_(getattr(block, GATE).bias)
    torch.testing.assert_close(velocity(bare, inputs, 0.5), velocity(gated, inputs, 0.5))


def test_a_recomputed_block_attends_as_it_was_called(tiny, inputs):
    """Recomputing happens when the call is over."""
    gradients = []
    for kind in (None, "full"):
        handle = RoleHandle(
            "student", {"transformer": load(tiny)}, trainable=True, block_classes=(WanTransformerBlock,)
        )
        add_gates(handle.modules["transformer"])
        handle = with_sparse_attention(handle)
        handle.set_trainable()
        prepare_blocks(
            handle, TrainingArgs(output_dir="out", max_train_steps=1, enable_gradient_checkpointing_type=kind)
        )
        velocity(handle.modules["transformer"], inputs, 0.5).square().mean().backward()
        gradients.append([parameter.grad for _, parameter in handle.named_parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_gates_are_read_where_fastvideo_has_them(tiny, tmp_path):
    """As FastVideo's checkpoints name them: blocks.N.to_gate_compress, in the transformer's own files."""
    folder = tmp_path / "gated"
    write_tiny_pipeline(folder, seed=0)
    (file,) = (folder / "transformer").glob("*.safetensors")
    weights = load_file(file)
    shapes = {"weight": (24, 24), "bias": (24,)}
    gates = {f"blocks.{n}.{GATE}.{part}": torch.randn(shape) for n in (0, 1) for part, shape in shapes.items()}
    save_file({**weights, **gates}, file, {"format": "pt"})
    for dtype in (torch.float32, torch.bfloat16):
        found = load_transformer(str(folder), dtype=dtype, device=CPU).state_dict()
        assert all(torch.equal(found[name], value.to(dtype)) for name, value in gates.items())
    for made in (meta_transformer(str(folder), dtype=torch.float32), outline_transformer(str(folder))):
        assert set(gates) <= set(made.state_dict())
    assert not any(GATE in name for name in outline_transformer(tiny).state_dict())
