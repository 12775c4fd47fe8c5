"""Processes that share the tokens of a call compute what one does with the whole; here each is a thread."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from torch import Tensor

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.hidden_states import features_of
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.placing.shard import prepare_blocks
from fastvideo_core.weights.parameters import clean_name
from fastvideo_diffusers import sequence_parallel
from fastvideo_diffusers.sequence_parallel import share_tokens, whole_tokens
from fastvideo_testing.thread_group import ThreadGroup, assert_shares_are_the_whole
from fastvideo_wan.network import predict_velocity, split_tokens
from fastvideo_wan.sparse import GATE, add_gates, allow_sparse_calls, calling, sparse_call

SIZE = (2, 16, 3, 8, 12)
"""Of latents: 72 tokens, two tiles."""
PLAIN = {"patch_size": (1, 2, 2), "num_attention_heads": 4, "attention_head_dim": 8, "num_layers": 2, "ffn_dim": 32}
PLAIN |= {"in_channels": 16, "out_channels": 16, "text_dim": 32, "freq_dim": 32, "rope_max_seq_len": 32}
IMAGES = {"image_dim": 16, "added_kv_proj_dim": 32, "pos_embed_seq_len": 10, "in_channels": 36}


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("case", ["text", "levels by token, twice", "images", "sparse", "features"])
def test_they_give_its_output_to_the_bit_and_their_mean_its_gradients(monkeypatch, case, size):
    """A second call on what the first gave sends gradients through the network's input."""
    group = ThreadGroup(size)
    monkeypatch.setattr(sequence_parallel, "dist", group)
    torch.manual_seed(0)
    network = WanTransformer3DModel(
        **{**PLAIN, **(IMAGES if case == "images" else {})}, cross_attn_norm=True, qk_norm="rms_norm_across_heads"
    )
    assert_shares_are_the_whole(group, lambda group: results(case, deepcopy(network), group))


def test_a_gradient_has_a_gradient(monkeypatch):
    """Of y^3, added up over 2 processes, and of that squared: 2 * 3 x^2, and 2^2 * 36 x^3."""
    group = ThreadGroup(2)
    monkeypatch.setattr(sequence_parallel, "dist", group)

    def work() -> None:
        module, x = torch.nn.Identity(), torch.full((1, 2, 3), 1.0 + group.rank(), requires_grad=True)
        share_tokens(torch.nn.Identity(), group, first=torch.nn.Identity(), last=module)
        (first,) = torch.autograd.grad(module(x).pow(3).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
        torch.testing.assert_close([first.detach(), second], [6 * x.detach() ** 2, 144 * x.detach() ** 3])

    group.run(work)


def results(case: str, network: Any, group: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and the gradients by name, also that of the latents."""
    generator = torch.Generator().manual_seed(3)

    def drawn(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    latents, text, onto = drawn(*SIZE).requires_grad_(), drawn(2, 512, 32), drawn(*SIZE)
    handle = RoleHandle("student", {"transformer": network}, trainable=True, block_classes=(WanTransformerBlock,))
    call = None
    if case == "sparse":
        add_gates(network)
        for block in network.blocks:
            torch.nn.init.constant_(getattr(block, GATE).bias, 0.5)
        handle.bindings = (allow_sparse_calls(network).binding,)
        call = sparse_call(network, SIZE, 0.5, latents.device)
    args = TrainingArgs(output_dir="out", max_train_steps=1, enable_gradient_checkpointing_type="full")
    prepare_blocks(handle, args)
    if group is not None:
        split_tokens(network, group)
    more = {"condition": drawn(2, 20, *SIZE[2:]), "features": drawn(2, 2, 5, 16)} if case == "images" else {}
    t = torch.tensor([300.0, 900.0])
    if case.startswith("levels"):
        t = torch.rand(2, 72, generator=generator) * 1000

    def predict(noisy: Tensor, t: Tensor) -> Tensor:
        with calling(network, call):
            return predict_velocity(network, noisy, t, text, **more, autocast=False)

    out = predict(latents, t)
    if case.endswith("twice"):
        out = predict(latents - 0.5 * out, t / 2)
    loss = (out * onto).sum()
    if case == "features":
        out = torch.stack(whole_tokens(network, features_of(list(network.blocks), lambda: predict(latents, t))))
        loss = loss + out.square().sum()
    loss.backward()
    named = [("latents", latents), *((clean_name(name), p) for name, p in network.named_parameters())]
    return out.detach(), {name: p.grad for name, p in named if p.grad is not None}
