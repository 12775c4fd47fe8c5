"""The noise ranges of roles that have a network for each of several, and what is drawn so that one of them serves it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastvideo_core.contracts.adapter import NoiseRanges
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.diffusion.noise_ranges import Ranges, boundaries, common_parts, part_of
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


def is_trained_at(adapter: Any, handle: RoleHandle, t: float) -> bool:
    """Whether timestep t lies in one of the role's noise ranges."""
    ranges, length = noise_ranges_of(adapter, handle), axis_length(adapter)
    return int(part_of(torch.tensor(t), boundaries([ranges], length))) in common_parts([ranges], length)


def draw_part(
    draw: Draw, generator: torch.Generator, cuts: Sequence[float], allowed: Sequence[int], handles: Sequence[RoleHandle]
) -> int:
    """The part between `cuts` that one drawn timestep lies in, of those that are allowed.

    Raises:
        ContractError: none of very many does; `handles` are whose networks are trained there.
    """
    for _ in range(_MOST_DRAWS):
        part = int(part_of(draw(1, generator), cuts))
        if part in allowed:
            return part
    names = ", ".join(f"'{handle.name}'" for handle in handles)
    raise ContractError(
        Problem(
            found=f"none of {_MOST_DRAWS} drawn timesteps lies where the networks of {names} are trained",
            where="method_config",
            fix="let the method's noise levels reach the ranges of the networks that are trained",
        )
    )
