"""A few-step student's schedule as the settings of diffusers' own scheduler: shifted, stretched, as close as it comes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from fastvideo_core.contracts.family import WarpedSchedule
from fastvideo_core.contracts.validator import StudentSchedule
from fastvideo_core.diffusion import flow
from fastvideo_core.diffusion.rollout import FewStepSchedule, SamplerKind
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_diffusers.folder import MARKER

TOLERANCE = 1e-4
"""Largest difference in sigma at which a fitted schedule counts as the student's own."""

SHIFT_RANGE = (1e-3, 1e3)
GRID = 241


@dataclass(frozen=True)
class FittedSchedule:
    """Settings of a scheduler that spaces its levels evenly, shifts them and stretches them to a last one.

    Args:
        shift: s of s u / (1 + (s - 1) u).
        shift_terminal: the level of the last network call; None for one call alone.
        deviation: largest |sigma - the student's sigma| over the network's calls.
    """

    shift: float
    shift_terminal: float | None
    deviation: float


def timestep_shift(flow_shift: float, num_train_timesteps: int) -> Callable[[Tensor], Tensor]:
    """Unshifted t to shifted t, held inside [0, num_train_timesteps]; same shape. As `FlowMatchingAdapter`'s."""

    def shifted(t: Tensor) -> Tensor:
        u = (t / num_train_timesteps).clamp(0, 1)
        return flow.shift_sigma(u, flow_shift) * num_train_timesteps

    return shifted


def fit_euler(
    schedule: FewStepSchedule, levels: Callable[[FlowMatchEulerDiscreteScheduler, int], Tensor], *, flow_shift: float
) -> FittedSchedule:
    """The settings of FlowMatchEulerDiscreteScheduler with which a pipeline samples closest to the schedule's sigmas.

    The levels are shifted by `shift`, and the result is stretched so that it ends at `shift_terminal`. One step and two
    steps are met by any shift (flow_shift is taken), three by solving for it; longer schedules are met when they are evenly
    spaced up to a shift, and approached otherwise.

    Args:
        levels: the sigmas [steps] that the pipeline samples on with such a scheduler and so many steps.
    """

    def sigmas(shift: float, terminal: float | None) -> Tensor:
        return levels(_euler(schedule, shift, terminal), len(schedule))

    return fit_schedule(schedule, sigmas, flow_shift=flow_shift)


def few_step_scheduler_config(
    schedule: FewStepSchedule, fitted: FittedSchedule, *, kind: SamplerKind, **own: Any
) -> dict[str, Any]:
    """The whole scheduler_config.json of an exported student.

    Besides diffusers' settings it keeps, where diffusers does not look, the exact schedule and what else the family says.

    Args:
        own: the family's; see `folder.MARKER`.
    """
    scheduler = _euler(schedule, fitted.shift, fitted.shift_terminal, stochastic_sampling=kind == "sde")
    marked = {**own, "sampling_timesteps": list(schedule.timesteps), "sampler_kind": kind}
    return {**as_json(scheduler), MARKER: marked}


def exported_schedule(stored: Mapping[str, Any], *, where: str) -> StudentSchedule | None:
    """What `few_step_scheduler_config` kept of a student's schedule; None where that is no student's.

    Args:
        stored: what stands under MARKER.
        where: how an error names the file.

    Raises:
        ConfigError: it is damaged.
    """
    if "sampling_timesteps" not in stored:
        return None
    kind = stored.get("sampler_kind")
    try:
        if kind not in ("ode", "sde"):
            raise ValueError(f"its sampler_kind is {kind!r}")
        return StudentSchedule(FewStepSchedule.from_denoising_steps(stored["sampling_timesteps"]).timesteps, kind)
    except (TypeError, ValueError) as error:
        found = f"the student's schedule cannot be read: {error}"
        raise ConfigError(Problem(found, where, fix="export it again")) from error


def student_of(
    student_schedule: WarpedSchedule | None, *, flow_shift: float, num_train_timesteps: int
) -> FewStepSchedule | None:
    """The schedule of a few-step student under the run's shift; None for a role of many steps."""
    return None if student_schedule is None else student_schedule(timestep_shift(flow_shift, num_train_timesteps))


def fitted_scheduler(
    student: FewStepSchedule,
    levels: Callable[[FlowMatchEulerDiscreteScheduler, int], Tensor],
    *,
    flow_shift: float,
    kind: SamplerKind,
    own: Mapping[str, Any],
) -> tuple[dict[str, Any], list[str]]:
    """`few_step_scheduler_config` with the settings of `fit_euler`, and what the user is told where it deviates."""
    fitted = fit_euler(student, levels, flow_shift=flow_shift)
    return few_step_scheduler_config(student, fitted, kind=kind, **own), deviation_notes(fitted)


def as_json(scheduler: Any) -> dict[str, Any]:
    """A scheduler's whole scheduler_config.json."""
    content: dict[str, Any] = json.loads(scheduler.to_json_string())
    return content


def deviation_notes(fitted: FittedSchedule) -> list[str]:
    """What the user of an export is told where the plain pipeline does not follow the student's schedule."""
    if fitted.deviation <= TOLERANCE:
        return []
    found = (
        f"diffusers' FlowMatchEulerDiscreteScheduler cannot follow this schedule exactly: the largest deviation in "
        f"sigma is {fitted.deviation:.4f}; `fastvideo-distill sample` follows it exactly"
    )
    return [found]


def _euler(
    schedule: FewStepSchedule, shift: float, terminal: float | None, **settings: Any
) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=schedule.num_train_timesteps, shift=shift, shift_terminal=terminal, **settings
    )


def fit_schedule(
    schedule: FewStepSchedule, sigmas: Callable[[float, float | None], Tensor], *, flow_shift: float
) -> FittedSchedule:
    """The settings whose levels are closest to the schedule's.

    Args:
        schedule: the student's.
        sigmas: the scheduler's levels [len(schedule)] for (shift, shift_terminal).
        flow_shift: taken where one or two steps are met by any shift.
    """
    targets = torch.tensor([schedule.sigma(index) for index in range(len(schedule))], dtype=torch.float64)
    terminal = float(targets[-1]) if len(targets) > 1 else None

    def deviation(log_shift: float) -> float:
        return float((sigmas(math.exp(log_shift), terminal).double() - targets).abs().max())

    if len(targets) <= 2:
        return FittedSchedule(flow_shift, terminal, deviation(math.log(flow_shift)))
    low, high = (math.log(bound) for bound in SHIFT_RANGE)
    grid = [low + (high - low) * index / (GRID - 1) for index in range(GRID)]
    best = min(grid, key=deviation)
    spacing = (high - low) / (GRID - 1)
    solution = golden_section(deviation, best - spacing, best + spacing)
    return FittedSchedule(math.exp(solution), terminal, deviation(solution))


def golden_section(function: Callable[[float], float], low: float, high: float, *, refinements: int = 80) -> float:
    """Where a function that falls, then rises in [low, high] is least (Kiefer 1953).

    Args:
        refinements: each narrows the interval by (sqrt(5) - 1) / 2 with one call; near a smooth minimum the answer is as
            exact as the function's own rounding allows.
    """
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(refinements):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return (low + high) / 2
