"""The states of stored trajectories at given timesteps."""

from __future__ import annotations

import torch
from torch import Tensor

from fastvideo_core.contracts.batch import Trajectory
from fastvideo_core.diffusion.denoising_steps import NOISE_AXIS
from fastvideo_core.errors import DataError, Problem

TOLERANCE = 0.5
"""Timesteps that are nearer to each other than this, of 1000, are the same: some data sets store them as whole numbers."""


def clean_end(trajectory: Trajectory) -> Tensor:
    """The last state of each sample [B, ...], whatever its timestep is said to be."""
    return trajectory.states[:, -1]


def state_at(trajectory: Trajectory, t: Tensor) -> Tensor:
    """The state of each sample at its timestep t [B], [B, ...]; at 0 the clean end.

    999, the last index of the noise axis, and 1000 are pure noise both.

    Raises:
        DataError: a sample has no state at its timestep; the message names those that there are.
    """
    stored, wanted = _pure_noise(trajectory.timesteps), _pure_noise(t.to(trajectory.timesteps))
    last = stored.shape[1] - 1
    distance = (stored[:, :last] - wanted[:, None]).abs()
    nearest = distance.argmin(dim=1)
    missing = (distance.gather(1, nearest[:, None])[:, 0] > TOLERANCE) & (wanted > 0)
    if missing.any():
        number = int(missing.nonzero()[0])
        raise missing_state(trajectory.timesteps[number].tolist(), float(t[number]))
    index = torch.where(wanted > 0, nearest, last)
    return trajectory.states[torch.arange(len(index), device=index.device), index]


def missing_state(stored: list[float], wanted: float) -> DataError:
    """That a trajectory with these timesteps has no state at another one."""
    there = ", ".join(f"{time:g}" for time in stored[:-1])
    fix = (
        "set method_config.denoising_steps (with warp_denoising_step and pipeline_config.flow_shift) to these times, or write "
        "trajectories with the wanted states: fastvideo-distill trajectories"
    )
    return DataError(
        Problem(f"the trajectories hold no state at timestep {wanted:g}", "training.data_path", allowed=there, fix=fix)
    )


def _pure_noise(t: Tensor) -> Tensor:
    return torch.where(t >= NOISE_AXIS - 1, t.new_tensor(float(NOISE_AXIS)), t)
