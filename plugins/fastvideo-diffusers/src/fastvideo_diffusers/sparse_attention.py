"""Video sparse attention: a coarse stage over tiles of tokens chooses which tiles each tile's tokens attend to.

Source: Zhang et al., "VSA: Faster Video Diffusion with Trainable Sparse Attention", arXiv:2505.13389; FastVideo's
attention/backends/video_sparse_attn.py, whose gated checkpoints it reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

Grid = tuple[int, int, int]
"""Tokens of a video: frames, rows, columns."""

TILE: Grid = (4, 4, 4)
"""Of whole ones."""


@dataclass(frozen=True, eq=False)
class Tiles:
    """How the tokens of a video, in raster order, fall into tiles; those at the border hold fewer tokens.

    Args:
        members: [tiles, volume]: the tokens of each tile; 0 where it holds fewer.
        present: [tiles, volume]: which of these are tokens.
        tile_of: [tokens]: the tile of each.
        slot_of: [tokens]: its position in `members`, flattened.
    """

    members: Tensor
    present: Tensor
    tile_of: Tensor
    slot_of: Tensor

    @property
    def volume(self) -> int:
        return self.members.shape[1]

    def gather(self, tokens: Tensor) -> Tensor:
        """[B, H, tokens, d] as [B, H, tiles, volume, d], zero where a tile holds fewer."""
        gathered: Tensor = _Gather.apply(tokens, self)  # type: ignore[no-untyped-call]  # torch types it not
        return gathered

    def spread(self, gathered: Tensor) -> Tensor:
        """The other way: [B, H, tiles, volume, d] as [B, H, tokens, d]."""
        tokens: Tensor = _Spread.apply(gathered, self)  # type: ignore[no-untyped-call]  # torch types it not
        return tokens

    def means(self, gathered: Tensor) -> Tensor:
        """The mean over each tile's tokens [B, H, tiles, d], summed in float32 at least."""
        wide = torch.promote_types(gathered.dtype, torch.float32)
        return gathered.sum(3, dtype=wide) / self.present.sum(1, dtype=wide)[:, None]


class _Gather(torch.autograd.Function):
    """Each way is the other's gradient: no index is there twice, so that nothing has to be summed up in some order."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, tiles: Tiles) -> Tensor:
        ctx.tiles = tiles
        return tokens[:, :, tiles.members] * tiles.present[..., None]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.tiles.spread(gradient), None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gathered: Tensor, tiles: Tiles) -> Tensor:
        ctx.tiles = tiles
        return gathered.flatten(2, 3)[:, :, tiles.slot_of]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.tiles.gather(gradient), None


@lru_cache(maxsize=16)
def tiles_of(grid: Grid, device: torch.device, tile: Grid = TILE) -> Tiles:
    """The tiles of a video of so many latent frames, rows and columns of tokens."""
    places = [torch.arange(size, device=device) for size in grid]
    counts = [math.ceil(size / edge) for size, edge in zip(grid, tile, strict=True)]
    which = [place // edge for place, edge in zip(places, tile, strict=True)]
    inside = [place % edge for place, edge in zip(places, tile, strict=True)]
    tile_of, slot = _raster(which, counts), _raster(inside, tile)
    volume = math.prod(tile)
    slot_of = tile_of * volume + slot
    members = torch.zeros(math.prod(counts) * volume, dtype=torch.long, device=device)
    present = torch.zeros_like(members, dtype=torch.bool)
    members[slot_of] = torch.arange(len(slot_of), device=device)
    present[slot_of] = True
    return Tiles(members.view(-1, volume), present.view(-1, volume), tile_of, slot_of)


def _raster(axes: list[Tensor], sizes: list[int] | Grid) -> Tensor:
    """The flat index of every combination of the axes' indices, in raster order."""
    first, second, third = torch.meshgrid(*axes, indexing="ij")
    return ((first * sizes[1] + second) * sizes[2] + third).flatten()


def kept_count(sparsity: float, tiles: int) -> int:
    """How many tiles each query tile attends to, as FastVideo rounds it: at least one."""
    return max(1, min(math.ceil((1 - sparsity) * tiles), tiles))


def top_tiles(scores: Tensor, sparsity: float) -> Tensor:
    """The key tiles of the highest scores, for each query tile and head: [B, H, tiles, tiles], of bool; no gradient."""
    chosen = scores.detach().topk(kept_count(sparsity, scores.shape[-1]), dim=-1).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, chosen, True)


@dataclass(frozen=True)
class SparseCall:
    """How the self-attention of a network's call is computed.

    Args:
        tiles: those of its video.
        sparsity: the fraction of tiles left out, in [0, 1).
        estimates: computes what takes as much memory, whatever the values: for `check`, where tensors have none.
    """

    tiles: Tiles
    sparsity: float
    estimates: bool = False


class AttentionCalls:
    """What a network's self-attention computes: dense, or sparse as `sparse` says."""

    def __init__(self) -> None:
        self.sparse: SparseCall | None = None

    @contextmanager
    def using(self, call: SparseCall | None) -> Iterator[None]:
        """Inside, the network is called so."""
        before, self.sparse = self.sparse, call
        try:
            yield
        finally:
            self.sparse = before

    def binding(self) -> Callable[[], AbstractContextManager[None]]:
        """One of `RoleHandle.bindings`: a block is recomputed as it was called."""
        return partial(self.using, self.sparse)


@torch.compiler.disable  # type: ignore[untyped-decorator]  # the fine stage brings its own compiled kernels
def video_sparse_attention(query: Tensor, key: Tensor, value: Tensor, gate: Tensor | None, call: SparseCall) -> Tensor:
    """Attention of each token to the tokens of a few tiles, and through a gate to all tiles' means.

    Args:
        query, key, value: [B, H, tokens, d] in one dtype, after norms and rotation, tokens in raster order.
        gate: [B, H, tokens, d], of the coarse stage; None is 1.

    Returns:
        [B, H, tokens, d].
    """
    with torch.autocast(query.device.type, enabled=False):  # which tiles are chosen is not left to bfloat16
        tiles = call.tiles
        gathered = [tiles.gather(one) for one in (query, key, value)]
        queries, keys, values = (tiles.means(one) for one in gathered)
        scores = queries @ keys.transpose(-1, -2) / math.sqrt(query.shape[-1])
        of_tiles = (scores.softmax(-1) @ values).to(value.dtype)
        coarse = tiles.spread(of_tiles[:, :, :, None].expand(-1, -1, -1, tiles.volume, -1))
        kept = top_tiles(scores, call.sparsity)
        if call.estimates:
            query, key, value = (one.flatten(2, 3) for one in gathered)
            fine = tiles.spread(scaled_dot_product_attention(query, key, value).view_as(gathered[0]))
        elif query.is_cuda:
            fine = flex_fine(gathered, kept, tiles)
        else:
            fine = scaled_dot_product_attention(query, key, value, attn_mask=token_mask(kept, tiles))
        return fine + (coarse if gate is None else coarse * gate)


def token_mask(kept: Tensor, tiles: Tiles) -> Tensor:
    """Which keys a query attends to, by token: [B, H, tokens, tokens]."""
    return kept[:, :, tiles.tile_of][..., tiles.tile_of]


# --- on CUDA ----------------------------------------------------------------------------------------------------------


@cache
def _compiled() -> Any:
    """At the first use: who imports this module is spared the compiler's import, a sixth of a family's."""
    # Autotuning is not for speed alone: the kernels' usual blocks are larger than a tile, and the backward has no other choice.
    return torch.compile(flex_attention, mode="max-autotune-no-cudagraphs", dynamic=False)


def flex_fine(gathered: list[Tensor], kept: Tensor, tiles: Tiles, attention: Any = None) -> Tensor:
    """The fine stage by blocks: tiles that are left out are not computed.

    Args:
        gathered: query, key, value as `Tiles.gather` gives them.
        attention: `flex_attention`; None is what it is compiled to.
    """
    query, key, value = (one.flatten(2, 3) for one in gathered)
    fine: Tensor = (attention or _compiled())(query, key, value, block_mask=block_mask(kept, tiles))
    return tiles.spread(fine.view_as(gathered[0]))


def block_mask(kept: Tensor, tiles: Tiles) -> BlockMask:
    """The kept tiles as flex_attention takes them: those that hold all their tokens apart from those at the border."""
    volume, present = tiles.volume, tiles.present.flatten()
    whole = tiles.present.all(1)

    def attends(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        # The lists alone are not enough: without this, eager flex_attention attends to everything.
        return kept[b, h, q // volume, k // volume] & present[k]

    return BlockMask.from_kv_blocks(
        *_ordered(kept & ~whole), *_ordered(kept & whole), BLOCK_SIZE=volume, mask_mod=attends
    )


def _ordered(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """How many are chosen in each row, and their indices first."""
    order = chosen.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    return chosen.sum(-1, dtype=torch.int32), order.to(torch.int32)
