"""A few-step student's schedule as the settings of diffusers' own scheduler."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from fastvideo_core.diffusion.rollout import FewStepSchedule, SamplerKind
from fastvideo_wan.folder import MARKER

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


def fit_schedule(schedule: FewStepSchedule, *, flow_shift: float) -> FittedSchedule:
    """The settings whose set_timesteps(len(schedule)) gives the schedule's sigmas.

    diffusers spaces its levels evenly, shifts them by `shift` and stretches the result so that it ends at
    `shift_terminal`. One step and two steps are met by any shift (flow_shift is taken), three by solving for it; longer
    schedules are met when they are evenly spaced up to a shift, and approached otherwise.
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
    schedule: FewStepSchedule, fitted: FittedSchedule, *, kind: SamplerKind, flow_shift: float
) -> dict[str, object]:
    """The whole scheduler_config.json of an exported student.

    Besides diffusers' settings it keeps, where diffusers does not look, the run's flow_shift and the exact schedule.
    """
    scheduler = FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=schedule.num_train_timesteps,
        shift=fitted.shift,
        shift_terminal=fitted.shift_terminal,
        stochastic_sampling=kind == "sde",
    )
    own = {"flow_shift": flow_shift, "sampling_timesteps": list(schedule.timesteps), "sampler_kind": kind}
    return {**json.loads(scheduler.to_json_string()), MARKER: own}


def _deviation(targets: list[float], shift: float, terminal: float | None, num_train_timesteps: int) -> float:
    scheduler = FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=num_train_timesteps, shift=shift, shift_terminal=terminal
    )
    scheduler.set_timesteps(len(targets))
    wanted = torch.tensor(targets, dtype=torch.float64)
    return float((scheduler.sigmas[:-1].double() - wanted).abs().max())


def _golden_section(function, low: float, high: float) -> float:  # type: ignore[no-untyped-def]
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
