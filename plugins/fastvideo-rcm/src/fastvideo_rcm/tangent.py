"""Forward-mode derivatives of networks: how a prediction changes when its inputs move in a given direction."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

SCORES_IN_MEMORY = 2**26
"""Attention scores (queries x keys, over batch and heads) of which a tangent is computed at a time: 256 MiB in float32."""


def directional_derivative(
    function: Callable[..., Tensor], primals: Sequence[Tensor], tangents: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """(function(*primals), its derivative along `tangents`), in one pass of forward-mode differentiation, without a graph.

    It is a pass of its own: a graph for the loss comes from another call, which may then be checkpointed or compiled. Attention
    is exact, by `scaled_dot_product_attention`, in chunks of queries: its scores are never in memory as a whole. Networks may be
    whole, sharded by FSDP2 or have LoRA adapters. Tangents have the shapes [B, ...] and dtypes of `primals`; that of a timestep
    t in [0, num_train_timesteps] is in units of t: along the flow, dx/dsigma = v, it is `num_train_timesteps`.

    Raises ValueError for attention with active dropout, torch's NotImplementedError for what has no forward-mode derivative.
    """
    # Who compiled a block has imported dynamo, which takes long; compiled blocks know no forward mode.
    uncompiled = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    with torch.no_grad(), uncompiled, _TangentAttention():
        pair = torch.func.jvp(function, tuple(primals), tuple(tangents))
    return pair[0], pair[1]


class _TangentAttention(TorchFunctionMode):
    """Replaces torch's attention, whose fused kernels have no forward-mode derivative, by one that has."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        call = _attention if func is scaled_dot_product_attention else func
        return call(*args, **(kwargs or {}))


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if dropout_p:
        raise ValueError(f"attention with active dropout ({dropout_p:g}) has no tangent: put the network in eval mode")
    if enable_gqa:
        key, value = [each.repeat_interleave(query.shape[-3] // each.shape[-3], -3) for each in (key, value)]
    if is_causal:
        attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    out: Tensor = _Attention.apply(query, key, value, attn_mask, scale)  # type: ignore[no-untyped-call]
    return out


class _Attention(torch.autograd.Function):
    """softmax(scale q k^T + mask) v by the fused kernel; its tangent, with p the softmax and s the scores,
    (p ds - p sum(p ds)) v + p dv.
    """

    @staticmethod
    def forward(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        query, key, value, ctx.mask, ctx.scale = inputs
        ctx.save_for_forward(query, key, value)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        query, key, value = ctx.saved_tensors
        d_query, d_key, d_value, d_mask, _ = tangents  # zeros of what does not move, None of a boolean mask
        wide = torch.promote_types(query.dtype, torch.float32)
        size = max(1, SCORES_IN_MEMORY // (key.shape[-2] * query.shape[:-2].numel()))
        parts = []
        for start in range(0, query.shape[-2], size):
            rows = slice(start, start + size)
            q, dq = query[..., rows, :], d_query[..., rows, :]
            scores = (q @ key.mT).to(wide) * ctx.scale
            d_scores = (dq @ key.mT + q @ d_key.mT).to(wide) * ctx.scale
            if (mask := _rows(ctx.mask, rows)) is not None:
                scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
            if (moved := _rows(d_mask, rows)) is not None:
                d_scores = d_scores + moved
            p = scores.softmax(-1).masked_fill(scores.amax(-1, keepdim=True) == -torch.inf, 0)
            p_ds = p * d_scores
            dp = p_ds - p * p_ds.sum(-1, keepdim=True)
            parts.append(dp.to(value.dtype) @ value + p.to(value.dtype) @ d_value)
        return torch.cat(parts, -2)


def _rows(mask: Tensor | None, rows: slice) -> Tensor | None:
    return mask if mask is None or mask.shape[-2] == 1 else mask[..., rows, :]
