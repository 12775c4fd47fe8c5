"""Sparse self-attention in Wan's transformer: the processor, and the gates of the coarse stage, named as FastVideo names them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor
from torch import Tensor, nn

from fastvideo_core.contracts.roles import RoleHandle, WeightSource
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_diffusers.sparse_attention import (
    AttentionCalls,
    Grid,
    SparseCall,
    kept_count,
    tiles_of,
    video_sparse_attention,
)

GATE = "to_gate_compress"
"""The name of a block's gate: a linear layer of the width, zero at first."""

_CALLS = "attention_calls"


class SparseProcessor(WanAttnProcessor):  # type: ignore[misc]  # diffusers is untyped
    """diffusers' own self-attention of a block, or, where the network is called so, video sparse attention.

    Args:
        block: the block, whose gate it takes; without one the coarse stage counts fully.
        calls: of the network.
    """

    def __init__(self, block: nn.Module, calls: AttentionCalls) -> None:
        super().__init__()
        self._block, self._calls = block, calls

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        call = self._calls.sparse
        if call is None:
            dense: Tensor = super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb)
            return dense
        assert rotary_emb is not None

        def by_head(tokens: Tensor) -> Tensor:
            return tokens.view(*tokens.shape[:2], attn.heads, -1)

        value = by_head(attn.to_v(hidden_states))
        # Under autocast norms give float32, which dense attention would cast as well.
        query = _rotated(by_head(attn.norm_q(attn.to_q(hidden_states))), *rotary_emb).type_as(value)
        key = _rotated(by_head(attn.norm_k(attn.to_k(hidden_states))), *rotary_emb).type_as(value)
        gate = getattr(self._block, GATE, None)
        gated = None if gate is None else by_head(gate(hidden_states)).transpose(1, 2)
        parts = [part.transpose(1, 2) for part in (query, key, value)]
        out = video_sparse_attention(*parts, gated, call).transpose(1, 2).flatten(2, 3)
        projected: Tensor = attn.to_out[1](attn.to_out[0](out))
        return projected


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of pairs of neighbouring channels [B, tokens, H, d]."""
    first, second = x.view(*x.shape[:-1], -1, 2).unbind(-1)
    cos, sin = cos[..., 0::2], sin[..., 1::2]
    turned = torch.stack((first * cos - second * sin, first * sin + second * cos), dim=-1)
    return turned.flatten(-2).type_as(x)


class GatedTransformer(WanTransformer3DModel):  # type: ignore[misc]  # diffusers is untyped
    """Makes diffusers' own networks, with gates: what weights with gates are loaded into."""

    @classmethod
    def from_config(cls, *args: Any, **settings: Any) -> WanTransformer3DModel:
        network = WanTransformer3DModel.from_config(*args, **settings)
        add_gates(network)
        return network


def add_gates(network: WanTransformer3DModel) -> None:
    """Gives every block a gate that lets nothing of the coarse stage through, like its other weights; on meta where these are."""
    for block in network.blocks:
        if not hasattr(block, GATE):
            layer = block.attn1.to_q
            gate = nn.Linear(
                layer.in_features, layer.out_features, device=layer.weight.device, dtype=layer.weight.dtype
            )
            for parameter in gate.parameters():
                nn.init.zeros_(parameter).requires_grad_(layer.weight.requires_grad)
            setattr(block, GATE, gate)


def allow_sparse_calls(network: WanTransformer3DModel) -> AttentionCalls:
    """Makes the network's self-attention follow what is returned; dense calls stay diffusers' own, to the bit."""
    calls = AttentionCalls()
    for block in network.blocks:
        block.attn1.set_processor(SparseProcessor(block, calls))
    setattr(network, _CALLS, calls)
    return calls


def sparse_call(
    network: WanTransformer3DModel, latents: Sequence[int], sparsity: float, device: torch.device
) -> SparseCall:
    """The call of the network for videos of [..., T, H, W] latents."""
    return SparseCall(tiles_of(_grid(latents, network.config.patch_size), device), sparsity)


def _grid(latents: Sequence[int], patch_size: Sequence[int]) -> Grid:
    """The frames, rows and columns of tokens of [..., T, H, W] latents."""
    return cast("Grid", tuple(size // patch for size, patch in zip(latents[-3:], patch_size, strict=True)))


def estimated_call(network: Any, latents: Sequence[int], sparsity: float) -> SparseCall | None:
    """A call for estimates, to be made before tensors have no values; None of a network that has dense attention alone."""
    if not hasattr(network, _CALLS):
        return None
    return replace(sparse_call(network, latents, sparsity, torch.device("cpu")), estimates=True)


def check_tiles(latent_size: Sequence[int], patch_size: Sequence[int], sparsity: float) -> None:
    """Sparse attention leaves something out of videos of [T, H, W] latents.

    Raises:
        ConfigError: there are too few tiles.
    """
    grid = _grid(latent_size, patch_size)
    tiles = len(tiles_of(grid, torch.device("cpu")).members)
    if sparsity > 0 and kept_count(sparsity, tiles) == tiles:
        found = f"found {sparsity}, of the {tiles} tiles of 4 x 4 x 4 tokens that these videos ({grid} tokens) have"
        fix = "train on larger or longer videos, or with attn_kind: dense"
        raise ConfigError(Problem(f"{found}: none is left out", "training.VSA_sparsity", fix=fix))


def calling(network: Any, call: SparseCall | None) -> AbstractContextManager[None]:
    """Inside, the network is called so; one that has dense attention alone stays as it is with None."""
    calls: AttentionCalls | None = getattr(network, _CALLS, None)
    if calls is not None:
        return calls.using(call)
    if call is not None:
        found, fix = (
            "a network that was built for dense attention is called with attn_kind 'vsa'",
            "build a run with it",
        )
        raise ConfigError(Problem(found, "the student's alone is built for both", fix=fix))
    return nullcontext()


def with_sparse_attention(handle: RoleHandle) -> RoleHandle:
    """A role on meta whose networks can be called sparsely; gates that they have and the weights lack are zero.

    The weights are the pipeline's, or those of the checkpoint from which a run starts: perhaps one with dense attention.
    """
    for network in handle.modules.values():
        calls = allow_sparse_calls(cast("WanTransformer3DModel", network))
        handle.bindings += (calls.binding,)
    gated = partial(_WithGates, handle=handle)
    held, weights = handle.quantise, handle.weights
    return replace(
        handle,
        weights=None if weights is None else gated(weights),
        quantise=gated if held is None else lambda whole: held(gated(whole)),
    )


class _WithGates:
    """A WeightSource: the weights of another one, with gates that are zero where it has none."""

    def __init__(self, below: WeightSource, handle: RoleHandle) -> None:
        self._below, self._missing = below, {key: _gate_shapes(network) for key, network in handle.modules.items()}
        for module, shapes in self._missing.items():
            for name in shapes.keys() & set(below.tensor_names(module)):
                del shapes[name]

    def tensor_names(self, module: str) -> Sequence[str]:
        """Names of the tensors, with the gates'."""
        return [*self._below.tensor_names(module), *self._missing[module]]

    def read(self, module: str, name: str, rows: slice | None = None) -> Tensor:
        """One tensor, or some of its rows."""
        if (shape := self._missing[module].get(name)) is None:
            return self._below.read(module, name, rows)
        zero = torch.zeros(shape)
        return zero if rows is None else zero[rows]


def _gate_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Of the gates' stored tensors, by name, however their weights are held."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, layer in network.named_modules():
        if name.endswith(f".{GATE}"):
            out, into = cast("int", layer.out_features), cast("int", layer.in_features)
            shapes |= {f"{name}.weight": (out, into), f"{name}.bias": (out,)}
    return shapes
