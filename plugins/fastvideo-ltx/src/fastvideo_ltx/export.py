"""A trained role as a complete diffusers folder, which the plain pipeline of its index loads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from diffusers import DiffusionPipeline
from torch import Tensor

from fastvideo_core.diffusion.flow import shift_sigma
from fastvideo_core.diffusion.rollout import FewStepSchedule
from fastvideo_core.errors import CheckpointError, Problem
from fastvideo_diffusers.pipeline_copy import ROOT_FILES, component_names, copy_parts, new_folder
from fastvideo_diffusers.quiet import no_progress_bars
from fastvideo_diffusers.schedule_fit import TOLERANCE
from fastvideo_ltx.batches import layout_of_video
from fastvideo_ltx.config import LtxConfig
from fastvideo_ltx.export_schedule import PLAIN, few_step_scheduler_config, fit_schedule
from fastvideo_ltx.folder import TRANSFORMER, LtxFolder
from fastvideo_ltx.generations import open_folder
from fastvideo_ltx.schedule import many_step_config, resolve_flow_shift

StudentSchedule: TypeAlias = Callable[[Callable[[Tensor], Tensor]], FewStepSchedule | None]
"""From the family's timestep shift to the student's schedule, as `MethodConfig.student_schedule`."""

MAX_SHARD_SIZE = "5GB"


def export_pipeline(
    base_path: str,
    out: Path,
    modules: dict[str, dict[str, Tensor]],
    *,
    pipeline_config: LtxConfig,
    student_schedule: StudentSchedule | None,
) -> list[str]:
    """Writes the base pipeline with another transformer.

    The scheduler stays the base's, unless pipeline_config.flow_shift fixes its shift. For a few-step student it is set so
    that the plain pipeline, called with as many inference steps as the schedule has and guidance_scale=1.0, follows the
    student's schedule; pipelines that take timesteps are to be given them.

    Args:
        base_path: folder or hub id whose other components are copied.
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
    folder = open_folder(base_path, where="base path")
    transformer = _transformer(folder, modules)
    scheduler_config, notes = _scheduler_config(folder, pipeline_config, student_schedule)
    notes += folder.generation.export_notes(folder, pipeline_config)

    with new_folder(Path(out)) as aside:
        _copy_components(base_path, aside)
        with no_progress_bars():
            transformer.save_pretrained(aside / TRANSFORMER, max_shard_size=MAX_SHARD_SIZE)
        _write_json(aside / "scheduler" / "scheduler_config.json", scheduler_config)
    return notes


def _transformer(folder: LtxFolder, modules: dict[str, dict[str, Tensor]]) -> Any:
    if set(modules) != {TRANSFORMER}:
        raise CheckpointError(
            Problem(f"holds the modules {', '.join(modules) or 'none'}", where="export", allowed=TRANSFORMER)
        )
    transformer = folder.generation.outline(folder.path)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in modules[TRANSFORMER].items()}
    try:
        transformer.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise CheckpointError(
            Problem(
                f"its weights do not fit the transformer: {' '.join(str(error).split())[:300]}",
                where=f"export with base {folder.path}",
                fix="name the pipeline that the role was trained from",
            )
        ) from error
    return transformer


def _scheduler_config(
    folder: LtxFolder, config: LtxConfig, student_schedule: StudentSchedule | None
) -> tuple[dict[str, Any], list[str]]:
    size = folder.generation.size
    layout = layout_of_video(folder, num_frames=size.num_frames, height=size.height, width=size.width)
    flow_shift = resolve_flow_shift(folder, config, tokens=layout.video)

    def warp(t: Tensor) -> Tensor:
        u = (t / folder.num_train_timesteps).clamp(0, 1)
        return shift_sigma(u, flow_shift) * folder.num_train_timesteps

    few_step = student_schedule(warp) if student_schedule is not None else None
    if few_step is None:
        return many_step_config(folder, config), []
    base = many_step_config(folder, config)
    unguided = folder.generation.unguided
    if folder.generation.takes_timesteps(folder):
        levels = ", ".join(f"{t:g}" for t in few_step.timesteps)
        notes = [f"sample it with {folder.pipeline}(timesteps=[{levels}], {unguided})"]
        if config.sampler_kind == "sde":  # such pipelines hand the negated velocity to the scheduler
            notes.append(
                f"{folder.pipeline} cannot redraw the noise between steps, as the student was trained to; "
                "`fastvideo-distill sample` does"
            )
        return few_step_scheduler_config(few_step, PLAIN, kind="ode", base=base), notes
    fitted = fit_schedule(few_step, flow_shift=flow_shift)
    notes = [f"sample it with {folder.pipeline}(num_inference_steps={len(few_step)}, {unguided})"]
    if fitted.deviation > TOLERANCE:
        notes.append(
            f"diffusers' FlowMatchEulerDiscreteScheduler cannot follow this schedule exactly: the largest deviation in "
            f"sigma is {fitted.deviation:.4f}; `fastvideo-distill sample` follows it exactly"
        )
    return few_step_scheduler_config(few_step, fitted, kind=config.sampler_kind, base=base), notes


def _copy_components(base_path: str, aside: Path) -> None:
    """The base's index, its license, and every component of the index but the transformer."""
    names = component_names(DiffusionPipeline.load_config(base_path), where=f"base path ({base_path})")
    components = [name for name in names if name != TRANSFORMER]
    source = Path(base_path)
    if not source.is_dir():
        from huggingface_hub import snapshot_download

        wanted = [*ROOT_FILES, *(f"{name}/*" for name in components)]
        source = Path(snapshot_download(base_path, allow_patterns=wanted))
    copy_parts(source, aside, components)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


__all__ = ["export_pipeline"]
