"""Processes that share the video tokens of a call compute what one does with the whole; here each is a thread."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from diffusers import LTX2VideoTransformer3DModel, LTXVideoTransformer3DModel
from torch import Tensor

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.hidden_states import features_of
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.placing.shard import prepare_blocks
from fastvideo_core.weights.parameters import clean_name
from fastvideo_diffusers import sequence_parallel
from fastvideo_diffusers.sequence_parallel import whole_tokens
from fastvideo_ltx.family import LtxFamily
from fastvideo_ltx.layout import TokenLayout
from fastvideo_ltx.ltx1 import network as ltx1
from fastvideo_ltx.ltx2 import network as ltx2
from fastvideo_testing.thread_group import ThreadGroup, assert_shares_are_the_whole

SIZES = {"num_attention_heads": 4, "attention_head_dim": 8, "num_layers": 2, "caption_channels": 16}
SIZES |= {"in_channels": 8, "out_channels": 8, "cross_attention_dim": 32}
SOUND = {"audio_in_channels": 8, "audio_out_channels": 8, "audio_attention_head_dim": 4}
SOUND |= {"audio_num_attention_heads": 4, "audio_cross_attention_dim": 16}
LATEST = {"ff_bias": False, "use_prompt_adaln_single": False, "gated_attn": True, "audio_gated_attn": True}
LATEST |= {"cross_attn_mod": True, "audio_cross_attn_mod": True}
VIDEO, TEXT = TokenLayout(frames=3, height=2, width=4), 6
BOTH = TokenLayout(frames=3, height=2, width=4, audio=5)
"""24 video tokens, and 5 audio tokens, which nothing divides."""


@pytest.mark.parametrize(("case", "size"), [("one level", 2), ("levels by token, twice", 4), ("features", 2)])
def test_shares_of_ltx_video_are_the_whole(monkeypatch, case, size):
    """Outputs to the bit, and gradients; a second call on what the first gave sends gradients through the network's input."""
    torch.manual_seed(0)
    compare(monkeypatch, LTXVideoTransformer3DModel(**SIZES), VIDEO, case, size)


@pytest.mark.parametrize(
    ("case", "size"),
    [
        ("one level", 2),
        ("levels by token, twice", 4),
        ("features", 2),
        ("interleaved", 2),
        ("gates", 2),
        ("video alone", 2),
    ],
)
def test_shares_of_ltx2_are_the_whole(monkeypatch, case, size):
    """Both streams, of which the audio's depends on the video of all processes."""
    torch.manual_seed(0)
    more: dict[str, Any] = {"rope_type": "interleaved" if case == "interleaved" else "split"}
    network = LTX2VideoTransformer3DModel(**SIZES, **SOUND, **more, **(LATEST if case == "gates" else {}))
    compare(monkeypatch, network, VIDEO if case == "video alone" else BOTH, case, size)


def compare(monkeypatch: Any, network: Any, layout: TokenLayout, case: str, size: int) -> None:
    group = ThreadGroup(size)
    monkeypatch.setattr(sequence_parallel, "dist", group)
    tolerance = 1e-6 if case == "gates" else 0.0  # the CPU's sigmoid rounds the rest of its vectors otherwise
    assert_shares_are_the_whole(group, partial(results, case, network, layout), tolerance=tolerance)


def results(case: str, network: Any, layout: TokenLayout, group: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and the gradients by name, also that of the latents."""
    network = deepcopy(network)
    generator = torch.Generator().manual_seed(3)

    def drawn(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    latents, onto = drawn(2, layout.total, 8).requires_grad_(), drawn(2, layout.total, 8)
    text, audio_text = drawn(2, TEXT, 16), drawn(2, TEXT, 16)
    mask, fps = torch.arange(TEXT) < torch.tensor([[4], [6]]), torch.tensor([24.0, 30.0], dtype=torch.float64)
    blocks = list(network.transformer_blocks)
    handle = RoleHandle("student", {"transformer": network}, trainable=True, block_classes=(type(blocks[0]),))
    args = TrainingArgs(output_dir="out", max_train_steps=1, enable_gradient_checkpointing_type="full")
    prepare_blocks(handle, args)
    if group is not None:
        LtxFamily().split_tokens(network, group)
    t = torch.tensor([300.0, 900.0])
    if case.startswith("levels"):
        t = torch.rand(2, layout.total, generator=generator) * 1000
    inputs = {"text": text, "audio_text": audio_text, "text_mask": mask.long(), "fps": fps}
    positions = ltx1.token_positions(layout, fps, temporal_factor=8, spatial_factor=32, causal=True)

    def predict(noisy: Tensor, t: Tensor) -> Tensor:
        if isinstance(network, LTX2VideoTransformer3DModel):
            return ltx2.predict_velocity(network, noisy, t, inputs, layout, autocast=False)
        return ltx1.predict_velocity(network, noisy, t, text, mask, positions, autocast=False)

    out = predict(latents, t)
    if case.endswith("twice"):
        out = predict(latents - 0.5 * out, t / 2)
    loss = (out * onto).sum()
    if case == "features":
        blocks = list(network.transformer_blocks)
        out = torch.stack(whole_tokens(network, features_of(blocks, lambda: predict(latents, t))))
        loss = loss + out.square().sum()
    loss.backward()
    named = [("latents", latents), *((clean_name(name), p) for name, p in network.named_parameters())]
    return out.detach(), {name: p.grad for name, p in named if p.grad is not None}
