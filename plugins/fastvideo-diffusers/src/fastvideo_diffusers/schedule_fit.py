"""The schedule of a shifted, stretched scheduler that comes closest to a few-step student's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fastvideo_core.diffusion.rollout import FewStepSchedule

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
