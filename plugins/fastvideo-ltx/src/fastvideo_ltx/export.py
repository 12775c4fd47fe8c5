"""A trained role as a complete diffusers folder, which the plain pipeline of its index loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from fastvideo_core.contracts.family import WarpedSchedule
from fastvideo_diffusers import export
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_diffusers.schedule_fit import (
    FittedSchedule,
    few_step_scheduler_config,
    fitted_scheduler,
    student_of,
)
from fastvideo_ltx.batches import layout_of_video
from fastvideo_ltx.config import LtxConfig
from fastvideo_ltx.folder import LtxFolder
from fastvideo_ltx.generation import generation_of
from fastvideo_ltx.generations import open_folder
from fastvideo_ltx.schedule import BASE_SCHEDULER, many_step_config, resolve_flow_shift

PLAIN = FittedSchedule(1.0, None, 0.0)
"""For pipelines that are given their timesteps: the scheduler leaves them as they are."""


def export_pipeline(
    base: str,
    out: Path,
    modules: Mapping[str, Mapping[str, Tensor]],
    *,
    pipeline_config: LtxConfig,
    student_schedule: WarpedSchedule | None,
) -> list[str]:
    """Writes the base pipeline with another transformer.

    The scheduler stays the base's, unless pipeline_config.flow_shift fixes its shift. For a few-step student it is set so
    that the plain pipeline, called with as many inference steps as the schedule has and guidance_scale=1.0, follows the
    student's schedule; pipelines that take timesteps are to be given them.

    Args:
        base: folder or hub id whose other components are copied.
        out: the new folder; complete or absent, whatever happens.
        modules: state dicts by module name: {"transformer": ...}, stored in their own dtypes.
        pipeline_config: of the run.
        student_schedule: the method's schedule of its few-step student, given the family's timestep shift; None, or
            one that gives None, exports for many-step sampling.

    Returns:
        notes for the user: how to sample, and how far the exported schedule is from the student's.

    Raises:
        ConfigError: the base is no LTX pipeline, or `out` is not empty.
        CheckpointError: the state dict does not fit the base's transformer.
    """
    folder = open_folder(base, where="base path")
    scheduler, notes = _scheduler(folder, pipeline_config, student_schedule)
    generation = generation_of(folder)
    transformer = generation.outline(folder.path)
    export.export_pipeline(base, out, modules, networks={TRANSFORMER: transformer}, scheduler=scheduler)
    return notes + generation.export_notes(folder, pipeline_config)


def _scheduler(
    folder: LtxFolder, config: LtxConfig, student_schedule: WarpedSchedule | None
) -> tuple[dict[str, Any], list[str]]:
    generation = generation_of(folder)
    flow_shift = resolve_flow_shift(folder, config, tokens=layout_of_video(folder, generation.size).video)
    base = many_step_config(folder, config)
    student = student_of(student_schedule, flow_shift=flow_shift, num_train_timesteps=folder.num_train_timesteps)
    if student is None:
        return base, []
    unguided = generation.unguided
    if generation.takes_timesteps(folder):
        levels = ", ".join(f"{t:g}" for t in student.timesteps)
        notes = [f"sample it with {folder.pipeline}(timesteps=[{levels}], {unguided})"]
        if config.sampler_kind == "sde":  # such pipelines hand the negated velocity to the scheduler
            notes.append(
                f"{folder.pipeline} cannot redraw the noise between steps, as the student was trained to; "
                "`fastvideo-distill sample` does"
            )
        return few_step_scheduler_config(student, PLAIN, kind="ode", **{BASE_SCHEDULER: base}), notes
    notes = [f"sample it with {folder.pipeline}(num_inference_steps={len(student)}, {unguided})"]
    own = {BASE_SCHEDULER: base}
    written, deviates = fitted_scheduler(
        student, pipeline_sigmas, flow_shift=flow_shift, kind=config.sampler_kind, own=own
    )
    if deviates and generation.takes_sigmas and config.sampler_kind == "ode":
        sigmas = ", ".join(f"{t / student.num_train_timesteps:g}" for t in student.timesteps)
        notes.append(
            f"{folder.pipeline} follows it exactly with scheduler=FlowMatchEulerDiscreteScheduler() and sigmas=[{sigmas}]"
        )
    return written, notes + deviates


def pipeline_sigmas(scheduler: FlowMatchEulerDiscreteScheduler, steps: int) -> Tensor:
    """The levels [steps] that LTX's pipelines sample on, which hand evenly spaced ones from 1 to 1 / steps to the scheduler."""
    scheduler.set_timesteps(sigmas=torch.linspace(1.0, 1 / steps, steps, dtype=torch.float64).tolist())
    sigmas: Tensor = scheduler.sigmas
    return sigmas[:-1]
