"""The states of stored trajectories at the timesteps of a student's schedule."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastvideo_core.diffusion.denoising_steps import NOISE_AXIS
from fastvideo_core.errors import DataError, Problem

TOLERANCE = 0.5
"""Timesteps that are no further apart than this, of 1000, are the same: some data sets store them as whole numbers."""


def state_numbers(timesteps: Tensor, schedule: Sequence[float], *, where: str = "training.data_path") -> Tensor:
    """Which state of each trajectory a student is given at each of its K timesteps, and last the clean end: [B, K + 1].

    999, the last index of the noise axis, and 1000 are pure noise both. The clean end is the last state, whatever its timestep.

    Args:
        timesteps: [B, S] on the CPU, as `Trajectory` has them.
        schedule: of the student, falling.
        where: how errors name the data.

    Raises:
        DataError: a trajectory has no state at one of them; the message names those that there are.
    """
    rows = [_numbers_of_one(stored, schedule, where) for stored in timesteps.tolist()]
    return torch.tensor(rows)


def take(states: Tensor, numbers: Tensor) -> Tensor:
    """One state of each trajectory [B, S, ...], by its number [B]."""
    return states[torch.arange(len(numbers), device=numbers.device), numbers]


def _numbers_of_one(stored: Sequence[float], schedule: Sequence[float], where: str) -> list[int]:
    last, found = len(stored) - 1, []
    for t in schedule:
        near = min(range(last), key=lambda number: _distance(stored[number], t))
        if _distance(stored[near], t) > TOLERANCE:
            there = ", ".join(f"{time:g}" for time in stored[:-1])
            fix = (
                "set method_config.denoising_steps (with warp_denoising_step and pipeline_config.flow_shift) to these, or "
                "write trajectories with the wanted states: fastvideo-distill trajectories"
            )
            missing = f"the trajectories hold no state at timestep {t:g}"
            raise DataError(Problem(missing, where, allowed=there, fix=fix))
        found.append(near)
    return [*found, last]


def _distance(one: float, other: float) -> float:
    lowest = NOISE_AXIS - 1
    return 0.0 if one >= lowest and other >= lowest else abs(one - other)
