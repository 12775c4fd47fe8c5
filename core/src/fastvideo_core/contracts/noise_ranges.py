"""Timesteps of an iteration that one network of each role serves, where a role has several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastvideo_core.contracts.adapter import NoiseRanges
from fastvideo_core.contracts.rng import RandomStreams
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


class RangeOfIteration:
    """Draws timesteps that lie in one part of the noise axis for all samples, rounds and processes of an iteration."""

    def __init__(self) -> None:
        self._decided: dict[str, tuple[int, int]] = {}

    def draw(
        self,
        adapter: Any,
        handles: Sequence[RoleHandle],
        draw: Draw,
        size: int,
        *,
        rng: RandomStreams,
        iteration: int,
        stream: str,
        shared: str,
    ) -> Tensor:
        """See `DistillMethod.draw_in_one_range`."""
        ranges, length = [noise_ranges_of(adapter, handle) for handle in handles], axis_length(adapter)
        cuts, allowed = boundaries(ranges, length), common_parts(ranges, length)
        local = rng.local(stream)
        if not cuts:
            return draw(size, local)
        if self._decided.get(shared, (None,))[0] != iteration:
            self._decided[shared] = (iteration, _decide(draw, rng.shared(shared), cuts, allowed, handles))
        part = self._decided[shared][1]
        t = draw(size, local)
        while (outside := part_of(t, cuts) != part).any():
            t = torch.where(outside, draw(size, local), t)
        return t


def _decide(
    draw: Draw,
    generator: torch.Generator,
    cuts: Sequence[float],
    allowed: Sequence[int],
    handles: Sequence[RoleHandle],
) -> int:
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
