"""A few-step student's schedule as the settings of diffusers' own scheduler."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from fastvideo_core.diffusion.rollout import FewStepSchedule, SamplerKind
from fastvideo_ltx.folder import MARKER
from fastvideo_ltx.schedule import BASE_SCHEDULER, as_json

TOLERANCE = 1e-4
"""Largest difference in sigma at which an exported schedule counts as the student's own."""

SHIFT_RANGE = (1e-3, 1e3)
GRID = 241
REFINEMENTS = 80


@dataclass(frozen=True)
class FittedSchedule:
    """Settings of FlowMatchEulerDiscreteScheduler that come closest to a schedule.

    Args:
        shift: its `shift`.
        shift_terminal: its `shift_terminal`.
        deviation: largest |sigma - the schedule's sigma| over the network's calls.
    """

    shift: float
    shift_terminal: float | None
    deviation: float


PLAIN = FittedSchedule(1.0, None, 0.0)
"""For pipelines that are given their timesteps: the scheduler leaves them as they are."""


def pipeline_sigmas(scheduler: FlowMatchEulerDiscreteScheduler, steps: int) -> torch.Tensor:
    """The levels [steps] that LTX's pipelines sample on, which hand evenly spaced ones from 1 to 1 / steps to the scheduler."""
    scheduler.set_timesteps(sigmas=torch.linspace(1.0, 1 / steps, steps, dtype=torch.float64).tolist())
    sigmas: torch.Tensor = scheduler.sigmas
    return sigmas[:-1]


def fit_schedule(schedule: FewStepSchedule, *, flow_shift: float) -> FittedSchedule:
    """The settings with which the pipeline samples on the schedule's sigmas.

    The levels are shifted by `shift`, and the result is stretched so that it ends at `shift_terminal`. One step and two
    steps are met by any shift (flow_shift is taken), three by solving for it where 1 - sigma of the second is a quarter of
    the third's or more; longer schedules are met when they are evenly spaced up to a shift, and approached otherwise.
    """
    targets = [schedule.sigma(index) for index in range(len(schedule))]
    terminal = targets[-1] if len(targets) > 1 else None

    def deviation(log_shift: float) -> float:
        return _deviation(targets, math.exp(log_shift), terminal, schedule.num_train_timesteps)

    if len(targets) <= 2:
        return FittedSchedule(flow_shift, terminal, deviation(math.log(flow_shift)))
    low, high = (math.log(bound) for bound in SHIFT_RANGE)
    grid = [low + (high - low) * index / (GRID - 1) for index in range(GRID)]
    best = min(grid, key=deviation)
    spacing = (high - low) / (GRID - 1)
    solution = _golden_section(deviation, best - spacing, best + spacing)
    return FittedSchedule(math.exp(solution), terminal, deviation(solution))


def few_step_scheduler_config(
    schedule: FewStepSchedule, fitted: FittedSchedule, *, kind: SamplerKind, base: dict[str, Any]
) -> dict[str, Any]:
    """The whole scheduler_config.json of an exported student.

    Besides diffusers' settings it keeps, where diffusers does not look, the exact schedule and the many-step scheduler.

    Args:
        base: configuration of the many-step scheduler.
    """
    scheduler = FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=schedule.num_train_timesteps,
        shift=fitted.shift,
        shift_terminal=fitted.shift_terminal,
        stochastic_sampling=kind == "sde",
    )
    own = {"sampling_timesteps": list(schedule.timesteps), "sampler_kind": kind, BASE_SCHEDULER: base}
    return {**as_json(scheduler), MARKER: own}


def _deviation(targets: list[float], shift: float, terminal: float | None, num_train_timesteps: int) -> float:
    scheduler = FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=num_train_timesteps, shift=shift, shift_terminal=terminal
    )
    wanted = torch.tensor(targets, dtype=torch.float64)
    return float((pipeline_sigmas(scheduler, len(targets)).double() - wanted).abs().max())


def _golden_section(function: Callable[[float], float], low: float, high: float) -> float:
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(REFINEMENTS):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return (low + high) / 2
