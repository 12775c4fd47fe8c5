"""A few-step student's schedule as the settings of diffusers' own scheduler."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from fastvideo_core.diffusion.rollout import FewStepSchedule, SamplerKind
from fastvideo_diffusers import schedule_fit
from fastvideo_diffusers.schedule_fit import FittedSchedule
from fastvideo_ltx.folder import MARKER
from fastvideo_ltx.schedule import BASE_SCHEDULER, as_json

PLAIN = FittedSchedule(1.0, None, 0.0)
"""For pipelines that are given their timesteps: the scheduler leaves them as they are."""


def pipeline_sigmas(scheduler: FlowMatchEulerDiscreteScheduler, steps: int) -> Tensor:
    """The levels [steps] that LTX's pipelines sample on, which hand evenly spaced ones from 1 to 1 / steps to the scheduler."""
    scheduler.set_timesteps(sigmas=torch.linspace(1.0, 1 / steps, steps, dtype=torch.float64).tolist())
    sigmas: Tensor = scheduler.sigmas
    return sigmas[:-1]


def fit_schedule(schedule: FewStepSchedule, *, flow_shift: float) -> FittedSchedule:
    """The settings with which the pipeline samples on the schedule's sigmas.

    The levels are shifted by `shift`, and the result is stretched so that it ends at `shift_terminal`. One step and two
    steps are met by any shift (flow_shift is taken), three by solving for it where 1 - sigma of the second is a quarter of
    the third's or more; longer schedules are met when they are evenly spaced up to a shift, and approached otherwise.
    """

    def sigmas(shift: float, terminal: float | None) -> Tensor:
        scheduler = FlowMatchEulerDiscreteScheduler(
            num_train_timesteps=schedule.num_train_timesteps, shift=shift, shift_terminal=terminal
        )
        return pipeline_sigmas(scheduler, len(schedule))

    return schedule_fit.fit_schedule(schedule, sigmas, flow_shift=flow_shift)


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
