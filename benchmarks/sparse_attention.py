"""Video sparse attention beside dense attention: whether a GPU's blocks give the reference's values and gradients, then FLOPs
and milliseconds of both, forward and with backward.

    python benchmarks/sparse_attention.py            # Wan 1.3B's heads at 480p (31,200 tokens) and 720p (75,600); needs a GPU
    python benchmarks/sparse_attention.py --tiny     # few tokens, on the CPU too, where the fine stage is a dense mask
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from fastvideo_diffusers.sparse_attention import (
    Grid,
    SparseCall,
    Tiles,
    flex_fine,
    kept_count,
    tiles_of,
    token_mask,
    top_tiles,
    video_sparse_attention,
)

SPARSITIES = (0.9, 0.8)
SIZES: dict[str, Grid] = {"480p, 77 frames": (20, 30, 52), "720p, 81 frames": (21, 45, 80)}
TINY: dict[str, Grid] = {"tiny": (5, 8, 12)}
SMALL: Grid = (6, 10, 14)
"""Of the comparison of values: border tiles on all axes."""

REPEATS = 5


def made(grid: Grid, heads: int, width: int, count: int) -> list[Tensor]:
    """So many random [1, heads, tokens, width] tensors that take gradients."""
    generator = torch.Generator(device=device()).manual_seed(0)
    shape, dtype = (1, heads, grid[0] * grid[1] * grid[2], width), torch.bfloat16 if on_gpu() else torch.float32
    return [
        torch.randn(shape, dtype=dtype, device=device(), generator=generator).requires_grad_() for _ in range(count)
    ]


def agreement(heads: int, width: int) -> str:
    """How far values and gradients of the GPU's fine stage are from those of the dense mask, in norms."""
    tiles = tiles_of(SMALL, device())
    query, key, value = made(SMALL, heads, width, 3)
    count = len(tiles.members)
    kept = top_tiles(torch.rand(1, heads, count, count, device=device()), 0.6)
    found = []
    for compute in (blocks, masked):
        parts = [part.detach().clone().requires_grad_() for part in (query, key, value)]
        out = compute(parts, kept, tiles)
        out.backward(torch.ones_like(out))
        found.append([out.detach(), *(part.grad for part in parts if part.grad is not None)])
    off = [
        float((one.float() - other.float()).norm() / other.float().norm()) for one, other in zip(*found, strict=True)
    ]
    if max(off) > 2e-2:
        raise AssertionError(f"values and gradients are off by {off}")
    return ", ".join(f"{name} {size:.1e}" for name, size in zip(("values", "query", "key", "value"), off, strict=True))


def blocks(parts: list[Tensor], kept: Tensor, tiles: Tiles) -> Tensor:
    return flex_fine([tiles.gather(part) for part in parts], kept, tiles)


def masked(parts: list[Tensor], kept: Tensor, tiles: Tiles) -> Tensor:
    query, key, value = parts
    return scaled_dot_product_attention(query, key, value, attn_mask=token_mask(kept, tiles))


def milliseconds(compute: Callable[[], Tensor], given: list[Tensor]) -> tuple[float, float]:
    """Of a forward without gradients, and of one with its backward; medians."""

    def forward() -> None:
        with torch.no_grad():
            compute()

    def both() -> None:
        for tensor in given:
            tensor.grad = None
        out = compute()
        out.backward(torch.ones_like(out))

    times = []
    for work in (forward, both):
        work()  # compiles
        found = []
        for _ in range(REPEATS):
            synchronize()
            started = time.perf_counter()
            work()
            synchronize()
            found.append(time.perf_counter() - started)
        times.append(1000 * statistics.median(found))
    return times[0], times[1]


def tflop(grid: Grid, heads: int, width: int, sparsity: float | None) -> float:
    """Of a forward's products of matrices; None is dense."""
    tokens, tiles = grid[0] * grid[1] * grid[2], len(tiles_of(grid, device()).members)
    pairs = tokens**2 if sparsity is None else tokens * kept_count(sparsity, tiles) * 64 + tiles**2
    return 4 * pairs * heads * width / 1e12


HEADER = (
    "| video | tokens | attention | TFLOP | forward ms | of dense | with backward ms | of dense |\n"
    "|---|---:|---|---:|---:|---:|---:|---:|"
)


def rows(name: str, grid: Grid, heads: int, width: int) -> None:
    """Prints a row for dense attention and for each sparsity."""
    query, key, value, gate = made(grid, heads, width, 4)
    tiles, dense = tiles_of(grid, device()), None
    for sparsity in (None, *SPARSITIES):

        def compute(sparsity: float | None = sparsity) -> Tensor:
            if sparsity is None:
                return scaled_dot_product_attention(query, key, value)
            return video_sparse_attention(query, key, value, gate, SparseCall(tiles, sparsity))

        forward, both = milliseconds(compute, [query, key, value, gate])
        dense = dense or (forward, both)
        kind = "dense" if sparsity is None else f"vsa {sparsity:g}"
        cells = [name, f"{len(tiles.tile_of):,}", kind, f"{tflop(grid, heads, width, sparsity):.3g}"]
        cells += [f"{forward:.1f}", f"{forward / dense[0]:.2f}", f"{both:.1f}", f"{both / dense[1]:.2f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


def on_gpu() -> bool:
    return torch.cuda.is_available()


def device() -> torch.device:
    return torch.device("cuda" if on_gpu() else "cpu")


def synchronize() -> None:
    if on_gpu():
        torch.cuda.synchronize()


def main() -> int:
    """Prints both; 0 when the values agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="few tokens, which a CPU can do")
    arguments = parser.parse_args()
    if not on_gpu() and not arguments.tiny:
        print("error: there is no CUDA device here; --tiny runs on the CPU", file=sys.stderr)
        return 2
    heads, width = (2, 16) if arguments.tiny else (12, 128)
    print(torch.cuda.get_device_name() if on_gpu() else "CPU", f"torch {torch.__version__}", flush=True)
    if on_gpu():
        print(f"fine stage by blocks, off from the dense mask by: {agreement(2, 128)}", flush=True)
    print(HEADER, flush=True)
    for name, grid in (TINY if arguments.tiny else SIZES).items():
        rows(name, grid, heads, width)
    return 0


if __name__ == "__main__":
    sys.exit(main())
