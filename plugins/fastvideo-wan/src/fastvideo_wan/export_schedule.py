"""A few-step student's schedule as the settings of diffusers' own scheduler."""

from __future__ import annotations

import json

from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from fastvideo_core.diffusion.rollout import FewStepSchedule, SamplerKind
from fastvideo_diffusers import schedule_fit
from fastvideo_diffusers.schedule_fit import FittedSchedule
from fastvideo_wan.folder import MARKER


def fit_schedule(schedule: FewStepSchedule, *, flow_shift: float) -> FittedSchedule:
    """The settings whose set_timesteps(len(schedule)) gives the schedule's sigmas.

    diffusers spaces its levels evenly, shifts them by `shift` and stretches the result so that it ends at
    `shift_terminal`. One step and two steps are met by any shift (flow_shift is taken), three by solving for it; longer
    schedules are met when they are evenly spaced up to a shift, and approached otherwise.
    """

    def sigmas(shift: float, terminal: float | None) -> Tensor:
        scheduler = FlowMatchEulerDiscreteScheduler(
            num_train_timesteps=schedule.num_train_timesteps, shift=shift, shift_terminal=terminal
        )
        scheduler.set_timesteps(len(schedule))
        levels: Tensor = scheduler.sigmas
        return levels[:-1]

    return schedule_fit.fit_schedule(schedule, sigmas, flow_shift=flow_shift)


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
