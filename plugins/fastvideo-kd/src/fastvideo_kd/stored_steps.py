"""Which steps of a teacher's sampling are stored: those at which the student's schedule has its own."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import torch
from pydantic import ValidationError
from torch import Tensor

from fastvideo_core.diffusion.denoising_steps import NOISE_AXIS
from fastvideo_core.diffusion.rollout import FewStepSchedule
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_kd.config import KDConfig
from fastvideo_kd.method import KDMethod
from fastvideo_kd.states import TOLERANCE

Shift = Callable[[Tensor], Tensor]
"""A family's `shift_and_clamp_timestep`."""


def solver_timesteps(shift: Shift, steps: int, num_train_timesteps: int = NOISE_AXIS) -> list[float]:
    """Where the teacher's steps begin, and the end: 1 - i / steps on the unshifted axis, moved through the family's shift."""
    unshifted = torch.linspace(num_train_timesteps, 0, steps + 1, dtype=torch.float64)
    shifted: list[float] = shift(unshifted).tolist()
    return shifted


def student_options(args: argparse.Namespace) -> KDConfig:
    """The student's schedule as `--denoising-steps` and `--no-warp` give it.

    Raises:
        ConfigError: it is none.
    """
    typed = args.denoising_steps
    try:
        steps = tuple(float(step) for step in typed.split(","))
        return KDConfig(denoising_steps=steps, warp_denoising_step=not args.no_warp)
    except ValidationError as error:
        found = f"{typed!r}: {error.errors()[0]['msg'].removeprefix('Value error, ')}"
    except ValueError:
        found = f"{typed!r} are no numbers with commas between them"
    raise ConfigError(Problem(found, "--denoising-steps", fix="for example 1000,750,500,250"))


def student_timesteps(options: KDConfig, shift: Shift) -> tuple[float, ...]:
    """The timesteps of the student's schedule."""
    schedule = KDMethod.student_schedule(options, shift)
    assert isinstance(schedule, FewStepSchedule)
    return schedule.timesteps


def kept_steps(timesteps: Sequence[float], wanted: Sequence[float]) -> list[int]:
    """Which of the teacher's steps begin at the wanted timesteps.

    Raises:
        ConfigError: none does at one of them; the nearest ones are named.
    """
    kept, problems = [], []
    for t in wanted:
        nearest = sorted(range(len(timesteps) - 1), key=lambda index: abs(timesteps[index] - t))
        kept.append(nearest[0])
        if abs(timesteps[nearest[0]] - t) > TOLERANCE:
            near = " and ".join(f"{timesteps[index]:g}" for index in sorted(nearest[:2]))
            found = f"the teacher's {len(timesteps) - 1} steps have no state at {t:g}; the nearest are at {near}"
            fix = "choose --steps so that the schedule's are among them (a multiple of the student's), or other ones"
            problems.append(Problem(found, "--denoising-steps", fix=fix))
    if problems:
        raise ConfigError(problems)
    return kept
