"""Processes that share the tokens of a call compute what one does with the whole; here each is a thread."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.placing.shard import prepare_blocks
from fastvideo_core.weights.parameters import clean_name
from fastvideo_diffusers import sequence_parallel
from fastvideo_ltx.generations import GENERATIONS
from fastvideo_ltx.layout import TokenLayout
from fastvideo_ltx.ltx1 import network as ltx1
from fastvideo_ltx.ltx2 import network as ltx2
from fastvideo_testing.thread_group import ThreadGroup, assert_shares_are_the_whole


@pytest.mark.parametrize(
    ("model", "audio", "per_token"),
    [
        ("tiny", 0, True),
        ("tiny_ltx2", 9, False),
        ("tiny_ltx2", 9, True),
        ("tiny_ltx2", 0, True),
        ("tiny_ltx25", 9, True),
    ],
)
def test_they_give_its_output_to_the_bit_and_their_mean_its_gradients(request, monkeypatch, model, audio, per_token):
    """A second call on what the first gave sends gradients through the network's input. Audio tokens need not divide."""
    group = ThreadGroup(2)
    monkeypatch.setattr(sequence_parallel, "dist", group)
    generation = GENERATIONS[1 if model == "tiny" else 2]
    path = request.getfixturevalue(model)
    network = generation.load_transformer(path, dtype=torch.float32, device=torch.device("cpu"), where="path")
    layout = TokenLayout(frames=2, height=2, width=3, audio=audio)
    assert_shares_are_the_whole(
        group,
        lambda group: results(generation, deepcopy(network).requires_grad_(), layout, group, per_token),
        tolerance=1e-5 if model == "tiny_ltx25" else 0.0,  # its gates are products of two columns
    )


def results(generation: Any, network: Any, layout: TokenLayout, group: Any, per_token: bool) -> Any:
    generator = torch.Generator().manual_seed(3)

    def drawn(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    handle = RoleHandle("student", {"transformer": network}, trainable=True, block_classes=(generation.block,))
    args = TrainingArgs(output_dir="out", max_train_steps=1, enable_gradient_checkpointing_type="full")
    prepare_blocks(handle, args)
    if group is not None:
        generation.split_tokens(network, group)
    noisy = drawn(2, layout.total, network.config.in_channels).requires_grad_()
    t = torch.rand(2, layout.total, generator=generator) * 1000 if per_token else torch.tensor([300.0, 900.0])
    mask = torch.tensor([[1] * 8, [0] * 3 + [1] * 5])
    rates = torch.full((2,), 24.0)

    def predict(noisy: Tensor, t: Tensor) -> Tensor:
        if generation is GENERATIONS[1]:
            positions = ltx1.token_positions(layout, rates, temporal_factor=8, spatial_factor=32, causal=True)
            return ltx1.predict_velocity(network, noisy, t, text, mask.bool(), positions, autocast=False)
        inputs = {"text": text, "audio_text": audio_text, "text_mask": mask, "fps": rates}
        return ltx2.predict_velocity(network, noisy, t, inputs, layout, autocast=False)

    if generation is GENERATIONS[1]:
        text = drawn(2, 8, network.config.caption_channels)
    else:
        text = drawn(2, 8, ltx2.text_width(network))
        audio_text = drawn(2, 8, ltx2.audio_text_width(network))
    out = predict(noisy, t)
    out = predict(noisy - 0.5 * out, t / 2)
    (out * drawn(*out.shape)).sum().backward()
    named = [("noisy", noisy), *((clean_name(name), p) for name, p in network.named_parameters())]
    return out.detach(), {name: p.grad for name, p in named if p.grad is not None}
