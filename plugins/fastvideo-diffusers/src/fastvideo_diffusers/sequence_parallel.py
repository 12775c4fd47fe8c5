"""Shares the tokens of a network's calls over the processes of a group, each of which calls it with the same arguments.

Between attentions a process has the tokens of its share; inside, all tokens and its share of the heads. What goes back through
the network is the exact transpose of what goes forward: added up over the group, gradients are those of the sum of the processes'
losses, each of which is the whole loss. Their mean over all processes, as FSDP takes it, is therefore the gradient of the loss,
whatever it is made of, also where it goes through the network's inputs: nothing is scaled.

Source: Jacobs et al., "DeepSpeed Ulysses", arXiv:2309.14509.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from fastvideo_core.distributed.context import EstimatedGroup
from fastvideo_core.errors import ConfigError, Problem

Group = ProcessGroup | EstimatedGroup
"""As `RoleHandle.split_tokens` gets it."""
_GROUP = "token_group"

TOKENS, CHANNELS = 1, 2
"""Dimensions of hidden states [B, tokens, channels]."""


def share_tokens(network: nn.Module, group: Group, *, first: nn.Module, last: nn.Module) -> None:
    """Makes a network compute a share of its tokens, from the `hidden_states` of its `first` block to its `last` layer's output.

    Levels by token, a `timestep` [B, tokens], are shared too. `exchange_heads` makes its attentions see all tokens.
    """
    _share_input(network, group, "timestep")
    _share_input(first, group, "hidden_states")
    last.register_forward_hook(lambda module, args, output: _gathered(output, group))
    setattr(network, _GROUP, group)  # for `whole_tokens`


def exchange_heads(
    attention: Any, group: Group, *more: nn.Module | None, queries_whole: bool = False, keys_whole: bool = False
) -> None:
    """Makes an attention of diffusers compute its share of the heads for all tokens.

    Args:
        attention: with `heads`, `norm_q`, `norm_k`, `to_v`, whose outputs are [B, tokens, heads x d], and `to_out`. What lies
            between these (rotary embeddings, kernels) gets all tokens and needs no knowledge of it.
        more: further modules whose outputs are by head, of the queries' tokens.
        queries_whole, keys_whole: each process has all of these tokens, which are not shared.
    """

    def by_head(whole: bool) -> Callable[..., Tensor]:
        def take(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            return _share(output, group, CHANNELS) if whole else _exchanged(output, group, CHANNELS, TOKENS)

        return take

    def back(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        own = _gathered(args[0], group, CHANNELS) if queries_whole else _exchanged(args[0], group, TOKENS, CHANNELS)
        return (own, *args[1:])

    for module in filter(None, (attention.norm_q, *more)):
        module.register_forward_hook(by_head(queries_whole))
    for module in (attention.norm_k, attention.to_v):
        module.register_forward_hook(by_head(keys_whole))
    attention.to_out[0].register_forward_pre_hook(back)
    attention.heads //= group.size()


def share_heads(rotary: nn.Module, group: Group) -> None:
    """Makes a rotary embedding give the part for this process's heads: of [B, tokens, heads x d] or [B, heads, tokens, d]."""

    def take(module: nn.Module, args: Any, output: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(_share(one, group, CHANNELS if one.ndim == 3 else 1) for one in output)

    rotary.register_forward_hook(take)


def whole_tokens(network: nn.Module, hidden_states: Sequence[Tensor]) -> list[Tensor]:
    """Hidden states [B, tokens, channels] from inside a network, with all tokens."""
    group: Group | None = getattr(network, _GROUP, None)
    return list(hidden_states) if group is None else [_gathered(one, group) for one in hidden_states]


def split_problems(
    size: int,
    counts: Mapping[str, int],
    *,
    where: str = "training.sequence_parallel",
    fix: str = "take a number that divides them, or other sizes of videos",
) -> list[Problem]:
    """What does not divide by so many processes, of counts by what they are of."""
    uneven = [f"{count} {name}" for name, count in counts.items() if count % size]
    return (
        [Problem(f"{', '.join(uneven)} cannot be shared evenly by {size} processes", where, fix=fix)] if uneven else []
    )


def _share_input(module: nn.Module, group: Group, name: str) -> None:
    """An argument's, given by name or, of a block, first; one without tokens, [B], stays as it is."""

    def share(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if name in kwargs:
            return args, {**kwargs, name: _share(kwargs[name], group)}
        return (_share(args[0], group), *args[1:]), kwargs

    module.register_forward_pre_hook(share, with_kwargs=True)


def _share(tensor: Tensor, group: Group, dim: int = TOKENS) -> Tensor:
    if tensor.ndim <= dim or tensor.shape[dim] == 1:
        return tensor
    if problems := split_problems(group.size(), {"tokens": tensor.shape[dim]}):
        raise ConfigError(problems)
    # a copy: what is kept of a share does not keep the whole in memory
    return tensor.chunk(group.size(), dim)[group.rank()].clone()


def _exchanged(tensor: Tensor, group: Group, divided: int, joined: int) -> Tensor:
    exchanged: Tensor = _Exchange.apply(tensor, group, divided, joined)  # type: ignore[no-untyped-call]  # torch types it not
    return exchanged


def _gathered(tensor: Tensor, group: Group, dim: int = TOKENS) -> Tensor:
    gathered: Tensor = _Gather.apply(tensor, group, dim)  # type: ignore[no-untyped-call]  # torch types it not
    return gathered


class _Exchange(torch.autograd.Function):
    """Divides one dimension over the processes, and joins another that was."""

    @staticmethod
    def forward(tensor: Tensor, group: Group, divided: int, joined: int) -> Tensor:
        return torch.cat(_sent(tensor, group, divided).unbind(), joined)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.group, ctx.divided, ctx.joined = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _exchanged(gradient, ctx.group, ctx.joined, ctx.divided), None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        return _exchanged(tangent, ctx.group, ctx.divided, ctx.joined)


class _Gather(torch.autograd.Function):
    """The whole out of the shares; going back, each share gets what all processes' losses say of it."""

    @staticmethod
    def forward(tensor: Tensor, group: Group, dim: int) -> Tensor:
        size = group.size()
        shares = tensor.new_empty(size * len(tensor), *tensor.shape[1:])
        if not isinstance(group, EstimatedGroup):
            # torch 2.13 warns of the older name
            gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
            gather(shares, tensor.contiguous(), group=group)
        return torch.cat(shares.chunk(size), dim)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.group, ctx.dim = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        received = _exchanged(gradient, ctx.group, ctx.dim, 0)  # has a gradient itself
        return received.reshape(ctx.group.size(), -1, *received.shape[1:]).sum(0), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        return _gathered(tangent, ctx.group, ctx.dim)


def _sent(tensor: Tensor, group: Group, dim: int) -> Tensor:
    """Each process's part of `tensor` along `dim` goes to it; what came from each, [processes, ...]."""
    parts = torch.stack(tensor.chunk(group.size(), dim))
    received = torch.empty_like(parts)
    if not isinstance(group, EstimatedGroup):
        dist.all_to_all_single(received, parts, group=group)
    return received
