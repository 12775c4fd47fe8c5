"""Ranges of the noise axis: which network of a role serves a timestep, where a role has several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

Ranges = tuple[tuple[float, float], ...]
"""(low, high) of timesteps, in order; `low` belongs to a range, `high` only where the axis ends."""


def boundaries(ranges: Iterable[Ranges], length: float) -> tuple[float, ...]:
    """Where any range of any of `ranges` begins or ends inside of the axis [0, length]: they cut it into parts."""
    return tuple(sorted({edge for one in ranges for both in one for edge in both if 0 < edge < length}))


def part_of(t: Tensor, cuts: Sequence[float]) -> Tensor:
    """The number of the part that each timestep lies in, same shape, int64; a cut belongs to the part above it."""
    return torch.bucketize(t.double(), torch.tensor(cuts, dtype=torch.float64, device=t.device), right=True)


def common_parts(ranges: Sequence[Ranges], length: float) -> tuple[int, ...]:
    """The numbers of the parts that lie in some range of every one of `ranges`."""
    edges = (0.0, *boundaries(ranges, length), length)
    return tuple(
        part
        for part, (low, high) in enumerate(pairwise(edges))
        if all(any(begin <= low and high <= end for begin, end in one) for one in ranges)
    )
