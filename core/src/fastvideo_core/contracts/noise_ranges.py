"""The noise ranges of roles that have a network for each of several, and draws of timesteps that one network of each serves."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from fastvideo_core.contracts.adapter import NoiseRanges, Ranges
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.errors import ContractError, Problem

Draw = Callable[[int, torch.Generator], Tensor]
"""(size, generator) -> timesteps of a method's own distribution: one of each sample [size], or several [size, K]."""

_MOST_DRAWS = 10_000


def noise_ranges_of(adapter: Any, handle: RoleHandle) -> Ranges:
    """The role's noise ranges, one over the whole axis where the adapter says nothing."""
    return adapter.noise_ranges(handle) if isinstance(adapter, NoiseRanges) else ((0.0, _axis_length(adapter)),)


def ranges_of_roles(
    adapter: Any, handles: Iterable[RoleHandle], above: float = 0.0
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Cuts the noise axis wherever a range of any of the roles begins or ends, and at `above`.

    Gives the cuts, none where each role has one network and `above` is 0, and the numbers of the ranges between them that lie
    in some range of every role, from `above` on.
    """
    length = _axis_length(adapter)
    ranges = [*(noise_ranges_of(adapter, handle) for handle in handles), ((above, length),)]
    cuts = tuple(sorted({edge for one in ranges for both in one for edge in both if 0 < edge < length}))
    numbers = (
        number
        for number, (low, high) in enumerate(pairwise((0.0, *cuts, length)))
        if all(any(begin <= low and high <= end for begin, end in one) for one in ranges)
    )
    return cuts, tuple(numbers)


def range_of(t: Tensor, cuts: Sequence[float]) -> Tensor:
    """The number of the range between `cuts` that holds each timestep, same shape, int64; a cut belongs to the one above it."""
    return torch.bucketize(t.double(), torch.tensor(cuts, dtype=torch.float64, device=t.device), right=True)


def is_trained_at(adapter: Any, handle: RoleHandle, t: float) -> bool:
    """Whether timestep t lies in one of the role's noise ranges."""
    cuts, own = ranges_of_roles(adapter, [handle])
    return int(range_of(torch.tensor(t), cuts)) in own


def draw_range(
    draw: Draw, generator: torch.Generator, cuts: Sequence[float], allowed: Sequence[int], handles: Sequence[RoleHandle]
) -> Tensor:
    """The numbers of the ranges between `cuts` of one sample's timesteps, [] or [K], all allowed; else ContractError."""
    for _ in range(_MOST_DRAWS):
        numbers = range_of(draw(1, generator), cuts)[0]
        if set(numbers.flatten().tolist()) <= set(allowed):
            return numbers
    names = ", ".join(f"'{handle.name}'" for handle in handles)
    found = f"none of {_MOST_DRAWS} drawn timesteps lies where the networks of {names} are trained"
    fix = "let the method's noise levels reach the ranges of the networks that are trained"
    raise ContractError(Problem(found, "method_config", fix=fix))


def _axis_length(adapter: Any) -> float:
    return float(getattr(adapter, "num_train_timesteps", float("inf")))
