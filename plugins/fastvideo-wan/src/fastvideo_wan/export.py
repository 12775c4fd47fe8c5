"""A trained role as a complete diffusers folder, which the plain pipeline of its class loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from fastvideo_core.contracts.family import WarpedSchedule
from fastvideo_core.diffusion.rollout import FewStepSchedule
from fastvideo_diffusers import export
from fastvideo_diffusers.adapter import SPARSITY
from fastvideo_diffusers.folder import MARKER
from fastvideo_diffusers.schedule_fit import as_json, fitted_scheduler, student_of
from fastvideo_diffusers.scheduler_shift import shifted_scheduler
from fastvideo_wan.config import WanConfig
from fastvideo_wan.folder import IMAGE_PIPELINE, PIPELINE, WanFolder, open_folder
from fastvideo_wan.loading import outline_transformer
from fastvideo_wan.schedule import resolve_flow_shift
from fastvideo_wan.sparse import GATE


def export_pipeline(
    base: str,
    out: Path,
    modules: Mapping[str, Mapping[str, Tensor]],
    *,
    pipeline_config: WanConfig,
    student_schedule: WarpedSchedule | None,
) -> list[str]:
    """Writes the base pipeline with other networks and the run's one flow shift.

    For a few-step student the scheduler is set so that the plain pipeline, called with as many inference steps as the
    schedule has and guidance_scale=1.0, follows the student's schedule.

    Args:
        base: folder or hub id whose other components are copied.
        out: the new folder; complete or absent, whatever happens.
        modules: state dicts by module name: {"transformer": ...}, of two networks both, stored in their own dtypes.
        pipeline_config: of the run.
        student_schedule: the method's schedule of its few-step student, given the family's timestep shift; None, or
            one that gives None, exports for many-step sampling.

    Returns:
        notes for the user: how to sample, and how far the exported schedule is from the student's.

    Raises:
        ConfigError: the base is no Wan pipeline, or `out` is not empty.
        CheckpointError: the state dicts do not fit the base's networks.
    """
    folder = open_folder(base, where="base path")
    scheduler, notes = _scheduler(folder, pipeline_config, student_schedule)
    gated = any(f".{GATE}." in key for module in modules.values() for key in module)
    networks = {name: outline_transformer(folder.path, name=name, gates=gated) for name in folder.networks}
    marked = {
        key: value for key, value in scheduler.pop(MARKER, {}).items() if key != SPARSITY
    }  # the base's may be another
    if (sparsity := pipeline_config.student_sparsity) is not None:
        marked[SPARSITY] = sparsity
        notes += _sparse_notes(sparsity, gated=gated)
    scheduler |= {MARKER: marked} if marked else {}
    export.export_pipeline(base, out, modules, networks=networks, scheduler=scheduler)
    return notes


def _sparse_notes(sparsity: float, *, gated: bool) -> list[str]:
    """What the user is told of a student that attends sparsely."""
    left_out = f"the student attends sparsely (VSA, {sparsity:g} of the tiles left out)"
    if gated:
        plain = f"attends densely, and does not load its gates ({GATE}), so that its videos are others"
        return [
            f"{left_out}: the plain pipeline {plain}; `fastvideo-distill sample` and FastVideo attend as it was trained"
        ]
    plain = "the plain pipeline attends densely, and FastVideo gives it gates of zero, so that their videos are others"
    return [f"{left_out}, without gates: {plain}; `fastvideo-distill sample` attends as it was trained"]


def _scheduler(
    folder: WanFolder, config: WanConfig, student_schedule: WarpedSchedule | None
) -> tuple[dict[str, Any], list[str]]:
    flow_shift = resolve_flow_shift(folder, config)
    axis = folder.num_train_timesteps
    student = student_of(student_schedule, flow_shift=flow_shift, num_train_timesteps=axis)
    if student is None:
        return as_json(shifted_scheduler(folder, flow_shift)), []
    notes = [f"sample it with {folder.pipeline}(num_inference_steps={len(student)}, guidance_scale=1.0)"]
    if folder.expand_timesteps:
        notes.append(f"text alone goes through {PIPELINE}, a prompt with an image through {IMAGE_PIPELINE}")
    kind = config.sampler_kind
    own = {"flow_shift": flow_shift}
    settings, deviation = fitted_scheduler(student, pipeline_sigmas, flow_shift=flow_shift, kind=kind, own=own)
    return settings, notes + deviation + _boundary_notes(folder, student, settings)


def _boundary_notes(folder: WanFolder, student: FewStepSchedule, settings: Mapping[str, Any]) -> list[str]:
    """What the user is told where the plain pipeline calls the other one of two networks than the student does."""
    if folder.boundary_ratio is None:
        return []
    boundary = folder.boundary_ratio * folder.num_train_timesteps
    levels = pipeline_sigmas(FlowMatchEulerDiscreteScheduler.from_config(dict(settings)), len(student))
    plain = (levels * folder.num_train_timesteps).tolist()
    own = torch.tensor(student.timesteps, dtype=torch.float32).tolist()
    other = [index + 1 for index in range(len(own)) if (plain[index] >= boundary) != (own[index] >= boundary)]
    return [
        f"step {index} is at t = {own[index - 1]:g}, beside the networks' boundary {boundary:g}: {folder.pipeline} calls the "
        "other one there; `fastvideo-distill sample` calls the one that was trained"
        for index in other
    ]


def pipeline_sigmas(scheduler: FlowMatchEulerDiscreteScheduler, steps: int) -> Tensor:
    """The levels [steps] that Wan's pipelines sample on: the scheduler's own, evenly spaced before it shifts them."""
    scheduler.set_timesteps(steps)
    sigmas: Tensor = scheduler.sigmas
    return sigmas[:-1]
