"""Video sparse attention against closed forms and dense attention."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention

from fastvideo_diffusers.sparse_attention import (
    AttentionCalls,
    SparseCall,
    Tiles,
    flex_fine,
    kept_count,
    tiles_of,
    token_mask,
    top_tiles,
    video_sparse_attention,
)

CPU = torch.device("cpu")
GRIDS = [(4, 8, 8), (3, 6, 10), (2, 4, 4)]
"""Whole tiles; border tiles on all three axes, of 12, 24 and 48 tokens; a single tile of 32."""


def tensors(tiles: Tiles, dtype: torch.dtype, count: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, 2, len(tiles.tile_of), 8, dtype=dtype, generator=generator) for _ in range(count)]


def test_the_case_by_hand():
    query, key, value = (
        torch.tensor(numbers, dtype=torch.float64).view(1, 1, 2, 1) for numbers in ([1, 2], [1, -1], [10, 20])
    )
    call = SparseCall(tiles_of((1, 1, 2), CPU, tile=(1, 1, 1)), 0.5)
    out = video_sparse_attention(query, key, value, torch.ones_like(value), call).flatten().tolist()
    assert out == pytest.approx([21.192029220221174, 20.179862099620916], abs=1e-12)


@pytest.mark.parametrize(
    ("sparsity", "tiles", "kept"), [(0.9, 390, 39), (0.7, 10, 4), (0.9, 1, 1), (0, 7, 7), (0.8, 390, 78)]
)
def test_as_many_tiles_are_kept_as_fastvideo_keeps(sparsity, tiles, kept):
    assert kept_count(sparsity, tiles) == kept
    assert top_tiles(torch.randn(2, 3, 1, tiles), sparsity).sum(-1).unique().tolist() == [kept]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_all_tiles_and_a_gate_of_zero_are_dense_attention(grid, dtype, most):
    tiles = tiles_of(grid, CPU)
    query, key, value = tensors(tiles, dtype)
    out = video_sparse_attention(query, key, value, torch.zeros_like(value), SparseCall(tiles, 0))
    assert (out - scaled_dot_product_attention(query, key, value)).abs().max() <= most


def test_tiles_are_cubes_of_neighbours_and_border_tiles_are_smaller():
    tiles = tiles_of((3, 6, 10), CPU)
    assert tiles.present.sum(1).tolist() == [48, 48, 24, 24, 24, 12]
    tokens = torch.cartesian_prod(*(torch.arange(size) for size in (3, 6, 10)))
    for number in range(len(tiles.members)):
        inside = tokens[tiles.members[number][tiles.present[number]]]
        assert (inside // 4).unique(dim=0).shape[0] == 1
        assert (tiles.tile_of == number).sum() == len(inside)


def test_constant_values_come_through_both_stages():
    tiles = tiles_of((3, 6, 10), CPU)
    query, key = tensors(tiles, torch.float64, 2)
    value = torch.full_like(query, 3.0)
    out = video_sparse_attention(query, key, value, torch.full_like(value, 0.5), SparseCall(tiles, 0.5))
    assert (out - 4.5).abs().max() < 1e-12
    without_gate = video_sparse_attention(query, key, value, None, SparseCall(tiles, 0.5))
    assert (without_gate - 6).abs().max() < 1e-12  # the coarse stage counts fully


def test_a_query_tile_attends_to_the_tiles_of_the_highest_scores_alone():
    """Against loops over tiles and heads."""
    tiles = tiles_of((3, 6, 10), CPU)
    query, key, value, gate = tensors(tiles, torch.float64, 4)
    out = video_sparse_attention(query, key, value, gate, SparseCall(tiles, 0.6))
    members = [tiles.members[n][tiles.present[n]] for n in range(len(tiles.members))]
    for head in range(2):
        q, k, v = (one[0, head] for one in (query, key, value))
        means = [torch.stack([one[inside].mean(0) for inside in members]) for one in (q, k, v)]
        scores = means[0] @ means[1].T / math.sqrt(8)
        for number, inside in enumerate(members):
            chosen = scores[number].argsort(descending=True)[:3]  # ceil(.4 of 6)
            seen = torch.cat([members[n] for n in chosen.tolist()])
            fine = (q[inside] @ k[seen].T / math.sqrt(8)).softmax(-1) @ v[seen]
            coarse = scores[number].softmax(-1) @ means[2]
            torch.testing.assert_close(out[0, head, inside], fine + coarse * gate[0, head, inside], rtol=0, atol=1e-12)


def test_gradients_are_those_of_finite_differences():
    tiles = tiles_of((2, 3, 5), CPU, tile=(2, 2, 2))
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(1, 1, 30, 2, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(4)]

    def attention(*parts: torch.Tensor) -> torch.Tensor:
        return video_sparse_attention(*parts, SparseCall(tiles, 0.5))

    assert torch.autograd.gradcheck(attention, given)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_blocks_that_a_gpu_computes_are_the_tokens_of_the_mask(grid):
    """flex_attention without a gradient, which is all that the CPU has of it."""
    tiles = tiles_of(grid, CPU)
    query, key, value = tensors(tiles, torch.float32)
    count = len(tiles.members)
    kept = top_tiles(torch.randn(1, 2, count, count, generator=torch.Generator().manual_seed(1)), 0.5)
    gathered = [tiles.gather(one) for one in (query, key, value)]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is not compiled
        blocks = flex_fine(gathered, kept, tiles, attention=flex_attention)
    dense = scaled_dot_product_attention(query, key, value, attn_mask=token_mask(kept, tiles))
    assert (blocks - dense).abs().max() < 1e-6


def test_what_an_estimate_computes_has_the_shapes_of_the_real_thing():
    tiles = tiles_of((3, 6, 10), CPU)
    query, key, value = tensors(tiles, torch.float32)
    out = video_sparse_attention(query, key, value, None, SparseCall(tiles, 0.5, estimates=True))
    assert out.shape == query.shape


def test_a_call_ends_where_it_was_entered_and_can_be_entered_again():
    calls, call = AttentionCalls(), SparseCall(tiles_of((2, 4, 4), CPU), 0.0)
    with calls.using(call):
        assert calls.sparse is call
        again = calls.binding()
    assert calls.sparse is None
    with again():
        assert calls.sparse is call
