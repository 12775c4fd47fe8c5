"""The noise ranges of roles that have a network for each of several, and draws of timesteps that one network of each serves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from fastvideo_core.contracts.adapter import NoiseRanges, Ranges
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.errors import ContractError, Problem

Draw = Callable[[int, torch.Generator], Tensor]
"""(size, generator) -> timesteps [size] of a method's own distribution."""

_MOST_DRAWS = 10_000


def axis_length(adapter: Any) -> float:
    """The length of the adapter's noise axis; infinite where it has none."""
    return float(getattr(adapter, "num_train_timesteps", float("inf")))


def noise_ranges_of(adapter: Any, handle: RoleHandle) -> Ranges:
    """The role's noise ranges, one over the whole axis where the adapter says nothing."""
    return adapter.noise_ranges(handle) if isinstance(adapter, NoiseRanges) else ((0.0, axis_length(adapter)),)


def boundaries(ranges: Iterable[Ranges], length: float) -> tuple[float, ...]:
    """Where any range of any of `ranges` begins or ends inside of the axis [0, length]: it is cut there."""
    return tuple(sorted({edge for one in ranges for both in one for edge in both if 0 < edge < length}))


def range_of(t: Tensor, cuts: Sequence[float]) -> Tensor:
    """The number of the range between `cuts` that holds each timestep, same shape, int64; a cut belongs to the one above it."""
    return torch.bucketize(t.double(), torch.tensor(cuts, dtype=torch.float64, device=t.device), right=True)


def common_ranges(ranges: Sequence[Ranges], length: float) -> tuple[int, ...]:
    """The numbers of the ranges between all `boundaries` that lie inside of some range of each of `ranges`."""
    edges = (0.0, *boundaries(ranges, length), length)
    return tuple(
        index
        for index, (low, high) in enumerate(pairwise(edges))
        if all(any(begin <= low and high <= end for begin, end in one) for one in ranges)
    )


def is_trained_at(adapter: Any, handle: RoleHandle, t: float) -> bool:
    """Whether timestep t lies in one of the role's noise ranges."""
    ranges, length = noise_ranges_of(adapter, handle), axis_length(adapter)
    return int(range_of(torch.tensor(t), boundaries([ranges], length))) in common_ranges([ranges], length)


def draw_range(
    draw: Draw, generator: torch.Generator, cuts: Sequence[float], allowed: Sequence[int], handles: Sequence[RoleHandle]
) -> int:
    """The number of the range between `cuts` that one drawn timestep lies in, of those that are allowed.

    Raises:
        ContractError: none of very many does; `handles` are whose networks are trained there.
    """
    for _ in range(_MOST_DRAWS):
        index = int(range_of(draw(1, generator), cuts))
        if index in allowed:
            return index
    names = ", ".join(f"'{handle.name}'" for handle in handles)
    raise ContractError(
        Problem(
            found=f"none of {_MOST_DRAWS} drawn timesteps lies where the networks of {names} are trained",
            where="method_config",
            fix="let the method's noise levels reach the ranges of the networks that are trained",
        )
    )
